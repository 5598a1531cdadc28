//! Access control lists: grants, canned ACLs, and how ownership settings switch them off.

/// Who owns objects that others write into a bucket, and whether ACLs mean anything in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// ACLs are off; the bucket's owner owns everything in it.
    BucketOwnerEnforced,
    /// An object written with `bucket-owner-full-control` belongs to the bucket's owner, others to who wrote them.
    BucketOwnerPreferred,
    /// An object belongs to who wrote it.
    ObjectWriter,
}

impl Ownership {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::BucketOwnerEnforced, Self::BucketOwnerPreferred, Self::ObjectWriter];

    /// AWS's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BucketOwnerEnforced => "BucketOwnerEnforced",
            Self::BucketOwnerPreferred => "BucketOwnerPreferred",
            Self::ObjectWriter => "ObjectWriter",
        }
    }

    /// By AWS's name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ownership| ownership.name() == name)
    }
}

/// What a grant gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Permission {
    /// All four.
    FullControl,
    /// Bucket: put objects. Object: nothing.
    Write,
    /// Change the ACL.
    WriteAcp,
    /// Bucket: list. Object: read.
    Read,
    /// Read the ACL.
    ReadAcp,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::FullControl, Self::Write, Self::WriteAcp, Self::Read, Self::ReadAcp];

    /// AWS's name in XML.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FullControl => "FULL_CONTROL",
            Self::Write => "WRITE",
            Self::WriteAcp => "WRITE_ACP",
            Self::Read => "READ",
            Self::ReadAcp => "READ_ACP",
        }
    }

    /// By AWS's name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.name() == name)
    }

    /// The header that grants it.
    #[must_use]
    pub const fn header(self) -> &'static str {
        match self {
            Self::FullControl => "x-amz-grant-full-control",
            Self::Write => "x-amz-grant-write",
            Self::WriteAcp => "x-amz-grant-write-acp",
            Self::Read => "x-amz-grant-read",
            Self::ReadAcp => "x-amz-grant-read-acp",
        }
    }
}

/// Whom a grant is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Grantee {
    /// The account with this canonical id.
    Canonical(String),
    /// Everybody.
    AllUsers,
    /// Everybody who can sign.
    AuthenticatedUsers,
    /// S3's log writers. Nobody here: stored and shown.
    LogDelivery,
}

impl Grantee {
    /// The URI of a group.
    #[must_use]
    pub const fn uri(&self) -> Option<&'static str> {
        match self {
            Self::Canonical(_) => None,
            Self::AllUsers => Some("http://acs.amazonaws.com/groups/global/AllUsers"),
            Self::AuthenticatedUsers => Some("http://acs.amazonaws.com/groups/global/AuthenticatedUsers"),
            Self::LogDelivery => Some("http://acs.amazonaws.com/groups/s3/LogDelivery"),
        }
    }

    /// The group with this URI.
    #[must_use]
    pub fn group(uri: &str) -> Option<Self> {
        [Self::AllUsers, Self::AuthenticatedUsers, Self::LogDelivery].into_iter().find(|group| group.uri() == Some(uri))
    }
}

/// One grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Whom.
    pub grantee: Grantee,
    /// What.
    pub permission: Permission,
}

/// An access control list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acl {
    /// The canonical id of the owner of what it hangs on.
    pub owner: String,
    /// Its grants, [`Acl::GRANTS_MAX`] at most.
    pub grants: Vec<Grant>,
}

/// The ACLs that have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CannedAcl {
    /// The owner alone.
    Private,
    /// Everybody reads.
    PublicRead,
    /// Everybody reads and writes.
    PublicReadWrite,
    /// Everybody who can sign reads.
    AuthenticatedRead,
    /// Objects: the bucket's owner reads.
    BucketOwnerRead,
    /// Objects: the bucket's owner may do everything.
    BucketOwnerFullControl,
    /// EC2 reads: there is none here, so the owner alone.
    AwsExecRead,
    /// Buckets: log writers write.
    LogDeliveryWrite,
}

impl CannedAcl {
    /// By the value of `x-amz-acl`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "private" => Self::Private,
            "public-read" => Self::PublicRead,
            "public-read-write" => Self::PublicReadWrite,
            "authenticated-read" => Self::AuthenticatedRead,
            "bucket-owner-read" => Self::BucketOwnerRead,
            "bucket-owner-full-control" => Self::BucketOwnerFullControl,
            "aws-exec-read" => Self::AwsExecRead,
            "log-delivery-write" => Self::LogDeliveryWrite,
            _ => return None,
        })
    }

    /// What it grants on something of `owner`'s in a bucket of `bucket_owner`'s (canonical ids).
    #[must_use]
    pub fn acl(self, owner: &str, bucket_owner: &str) -> Acl {
        let mut acl = Acl::private(owner);
        let mut grant = |grantee, permission| acl.grants.push(Grant { grantee, permission });
        match self {
            Self::Private | Self::AwsExecRead => {}
            Self::PublicRead => grant(Grantee::AllUsers, Permission::Read),
            Self::PublicReadWrite => {
                grant(Grantee::AllUsers, Permission::Read);
                grant(Grantee::AllUsers, Permission::Write);
            }
            Self::AuthenticatedRead => grant(Grantee::AuthenticatedUsers, Permission::Read),
            Self::BucketOwnerRead if bucket_owner != owner => {
                grant(Grantee::Canonical(bucket_owner.to_owned()), Permission::Read);
            }
            Self::BucketOwnerFullControl if bucket_owner != owner => {
                grant(Grantee::Canonical(bucket_owner.to_owned()), Permission::FullControl);
            }
            Self::BucketOwnerRead | Self::BucketOwnerFullControl => {}
            Self::LogDeliveryWrite => {
                grant(Grantee::LogDelivery, Permission::Write);
                grant(Grantee::LogDelivery, Permission::ReadAcp);
            }
        }
        acl
    }
}

impl Acl {
    /// Most grants of one list: S3's.
    pub const GRANTS_MAX: usize = 100;

    /// The owner, and nobody else.
    #[must_use]
    pub fn private(owner: &str) -> Self {
        let grant = Grant { grantee: Grantee::Canonical(owner.to_owned()), permission: Permission::FullControl };
        Self { owner: owner.to_owned(), grants: vec![grant] }
    }

    /// Whether it gives anything to everybody, or to everybody who can sign.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.grants.iter().any(|grant| matches!(grant.grantee, Grantee::AllUsers | Grantee::AuthenticatedUsers))
    }

    /// Whether it is what an object or bucket has that nobody set an ACL on.
    #[must_use]
    pub fn is_private(&self) -> bool {
        *self == Self::private(&self.owner)
    }

    /// Whether it gives `wanted` to the account with this canonical id (`None`: to strangers). `ignore_public`: grants to
    /// groups don't count.
    pub(crate) fn gives(&self, wanted: Permission, canonical_id: Option<&str>, ignore_public: bool) -> bool {
        self.grants.iter().any(|grant| {
            let who = match &grant.grantee {
                Grantee::Canonical(id) => canonical_id == Some(id.as_str()),
                Grantee::AllUsers => !ignore_public,
                Grantee::AuthenticatedUsers => !ignore_public && canonical_id.is_some(),
                Grantee::LogDelivery => false,
            };
            who && (grant.permission == wanted || grant.permission == Permission::FullControl)
        })
    }
}

/// What an action needs of a bucket's ACL, if ACLs can give it.
pub(crate) fn of_bucket(action: &str) -> Option<Permission> {
    Some(match action {
        "s3:ListBucket" | "s3:ListBucketVersions" | "s3:ListBucketMultipartUploads" => Permission::Read,
        "s3:PutObject" => Permission::Write,
        "s3:GetBucketAcl" => Permission::ReadAcp,
        "s3:PutBucketAcl" => Permission::WriteAcp,
        _ => return None,
    })
}

/// What an action needs of an object's ACL, if ACLs can give it.
pub(crate) fn of_object(action: &str) -> Option<Permission> {
    Some(match action {
        "s3:GetObject"
        | "s3:GetObjectVersion"
        | "s3:GetObjectTorrent"
        | "s3:GetObjectVersionTorrent"
        | "s3:GetObjectAttributes"
        | "s3:GetObjectVersionAttributes" => Permission::Read,
        "s3:GetObjectAcl" | "s3:GetObjectVersionAcl" => Permission::ReadAcp,
        "s3:PutObjectAcl" | "s3:PutObjectVersionAcl" => Permission::WriteAcp,
        _ => return None,
    })
}
