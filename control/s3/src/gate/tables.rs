//! What each operation understands: its query keys and its `x-amz-*` headers. What is not here is refused.

use penstock_digest::ChecksumAlgorithm;

use crate::wire;

macro_rules! operations {
    ($($name:ident: [$($key:literal),*];)*) => {
        /// The operations that are implemented. Their names are AWS's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Op {
            $(#[doc = stringify!($name)] $name,)*
        }

        impl Op {
            /// All of them.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name that AWS and the SDKs' `x-id` have for it.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The query keys that it reads, those that name it included.
            pub(crate) const fn query_keys(self) -> &'static [&'static str] {
                match self { $(Self::$name => &[$($key),*],)* }
            }
        }
    };
}

operations! {
    ListBuckets: ["prefix", "continuation-token", "max-buckets", "bucket-region"];
    CreateBucket: [];
    HeadBucket: [];
    DeleteBucket: [];
    GetBucketLocation: ["location"];
    GetBucketVersioning: ["versioning"];
    ListObjects: ["prefix", "delimiter", "marker", "max-keys", "encoding-type"];
    ListObjectsV2: [
        "list-type", "prefix", "delimiter", "start-after", "continuation-token", "max-keys", "encoding-type",
        "fetch-owner"
    ];
    DeleteObjects: ["delete"];
    ListMultipartUploads: [
        "uploads", "prefix", "delimiter", "key-marker", "upload-id-marker", "max-uploads", "encoding-type"
    ];
    PutObject: [];
    CopyObject: [];
    RenameObject: ["renameObject"];
    GetObject: [
        "partNumber", "versionId", "response-content-type", "response-content-language", "response-expires",
        "response-cache-control", "response-content-disposition", "response-content-encoding"
    ];
    HeadObject: [
        "partNumber", "versionId", "response-content-type", "response-content-language", "response-expires",
        "response-cache-control", "response-content-disposition", "response-content-encoding"
    ];
    DeleteObject: ["versionId"];
    CreateMultipartUpload: ["uploads"];
    UploadPart: ["partNumber", "uploadId"];
    UploadPartCopy: ["partNumber", "uploadId"];
    CompleteMultipartUpload: ["uploadId"];
    AbortMultipartUpload: ["uploadId"];
    ListParts: ["uploadId", "max-parts", "part-number-marker"];
    GetBucketTagging: ["tagging"];
    PutBucketTagging: ["tagging"];
    DeleteBucketTagging: ["tagging"];
    PutBucketVersioning: ["versioning"];
    ListObjectVersions: [
        "versions", "prefix", "delimiter", "key-marker", "version-id-marker", "max-keys", "encoding-type"
    ];
    GetBucketLifecycleConfiguration: ["lifecycle"];
    PutBucketLifecycleConfiguration: ["lifecycle"];
    DeleteBucketLifecycle: ["lifecycle"];
    GetObjectTagging: ["tagging", "versionId"];
    PutObjectTagging: ["tagging", "versionId"];
    DeleteObjectTagging: ["tagging", "versionId"];
    GetObjectAttributes: ["attributes", "versionId"];
    GetObjectLockConfiguration: ["object-lock"];
    PutObjectLockConfiguration: ["object-lock"];
    GetObjectRetention: ["retention", "versionId"];
    PutObjectRetention: ["retention", "versionId"];
    GetObjectLegalHold: ["legal-hold", "versionId"];
    PutObjectLegalHold: ["legal-hold", "versionId"];
    GetBucketPolicy: ["policy"];
    PutBucketPolicy: ["policy"];
    DeleteBucketPolicy: ["policy"];
    GetBucketPolicyStatus: ["policyStatus"];
    GetPublicAccessBlock: ["publicAccessBlock"];
    PutPublicAccessBlock: ["publicAccessBlock"];
    DeletePublicAccessBlock: ["publicAccessBlock"];
    GetBucketOwnershipControls: ["ownershipControls"];
    PutBucketOwnershipControls: ["ownershipControls"];
    GetBucketAcl: ["acl"];
    PutBucketAcl: ["acl"];
    GetObjectAcl: ["acl", "versionId"];
    PutObjectAcl: ["acl", "versionId"];
    GetBucketCors: ["cors"];
    PutBucketCors: ["cors"];
    DeleteBucketCors: ["cors"];
    GetBucketEncryption: ["encryption"];
    PutBucketEncryption: ["encryption"];
    DeleteBucketEncryption: ["encryption"];
    UpdateObjectEncryption: ["encryption", "versionId"];
    GetBucketReplication: ["replication"];
    GetBucketAccelerateConfiguration: ["accelerate"];
    GetBucketRequestPayment: ["requestPayment"];
    GetBucketLogging: ["logging"];
    GetBucketNotificationConfiguration: ["notification"];
    PutBucketNotificationConfiguration: ["notification"];
    PutBucketLogging: ["logging"];
}

/// What a sub-resource is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// A bucket.
    Bucket,
    /// An object.
    Object,
}

/// Operations that a method and one telling query key name. What is not here is in [`super::operation`].
pub(crate) const SUB_RESOURCES: &[(On, &str, &str, Op)] = &[
    (On::Bucket, "GET", "location", Op::GetBucketLocation),
    (On::Bucket, "GET", "versioning", Op::GetBucketVersioning),
    (On::Bucket, "GET", "uploads", Op::ListMultipartUploads),
    (On::Bucket, "POST", "delete", Op::DeleteObjects),
    (On::Bucket, "GET", "tagging", Op::GetBucketTagging),
    (On::Bucket, "PUT", "tagging", Op::PutBucketTagging),
    (On::Bucket, "DELETE", "tagging", Op::DeleteBucketTagging),
    (On::Bucket, "PUT", "versioning", Op::PutBucketVersioning),
    (On::Bucket, "GET", "versions", Op::ListObjectVersions),
    (On::Bucket, "GET", "object-lock", Op::GetObjectLockConfiguration),
    (On::Bucket, "PUT", "object-lock", Op::PutObjectLockConfiguration),
    (On::Bucket, "GET", "lifecycle", Op::GetBucketLifecycleConfiguration),
    (On::Bucket, "PUT", "lifecycle", Op::PutBucketLifecycleConfiguration),
    (On::Bucket, "DELETE", "lifecycle", Op::DeleteBucketLifecycle),
    (On::Bucket, "GET", "policy", Op::GetBucketPolicy),
    (On::Bucket, "PUT", "policy", Op::PutBucketPolicy),
    (On::Bucket, "DELETE", "policy", Op::DeleteBucketPolicy),
    (On::Bucket, "GET", "policyStatus", Op::GetBucketPolicyStatus),
    (On::Bucket, "GET", "publicAccessBlock", Op::GetPublicAccessBlock),
    (On::Bucket, "PUT", "publicAccessBlock", Op::PutPublicAccessBlock),
    (On::Bucket, "DELETE", "publicAccessBlock", Op::DeletePublicAccessBlock),
    (On::Bucket, "GET", "ownershipControls", Op::GetBucketOwnershipControls),
    (On::Bucket, "PUT", "ownershipControls", Op::PutBucketOwnershipControls),
    (On::Bucket, "GET", "acl", Op::GetBucketAcl),
    (On::Bucket, "PUT", "acl", Op::PutBucketAcl),
    (On::Object, "GET", "acl", Op::GetObjectAcl),
    (On::Object, "PUT", "acl", Op::PutObjectAcl),
    (On::Bucket, "GET", "cors", Op::GetBucketCors),
    (On::Bucket, "PUT", "cors", Op::PutBucketCors),
    (On::Bucket, "DELETE", "cors", Op::DeleteBucketCors),
    (On::Bucket, "GET", "encryption", Op::GetBucketEncryption),
    (On::Bucket, "PUT", "encryption", Op::PutBucketEncryption),
    (On::Bucket, "DELETE", "encryption", Op::DeleteBucketEncryption),
    (On::Object, "PUT", "encryption", Op::UpdateObjectEncryption),
    (On::Bucket, "GET", "replication", Op::GetBucketReplication),
    (On::Bucket, "GET", "accelerate", Op::GetBucketAccelerateConfiguration),
    (On::Bucket, "GET", "requestPayment", Op::GetBucketRequestPayment),
    (On::Bucket, "GET", "logging", Op::GetBucketLogging),
    (On::Bucket, "GET", "notification", Op::GetBucketNotificationConfiguration),
    (On::Bucket, "PUT", "notification", Op::PutBucketNotificationConfiguration),
    (On::Bucket, "PUT", "logging", Op::PutBucketLogging),
    (On::Object, "POST", "uploads", Op::CreateMultipartUpload),
    (On::Object, "PUT", "renameObject", Op::RenameObject),
    (On::Object, "GET", "tagging", Op::GetObjectTagging),
    (On::Object, "PUT", "tagging", Op::PutObjectTagging),
    (On::Object, "DELETE", "tagging", Op::DeleteObjectTagging),
    (On::Object, "GET", "attributes", Op::GetObjectAttributes),
    (On::Object, "GET", "retention", Op::GetObjectRetention),
    (On::Object, "PUT", "retention", Op::PutObjectRetention),
    (On::Object, "GET", "legal-hold", Op::GetObjectLegalHold),
    (On::Object, "PUT", "legal-hold", Op::PutObjectLegalHold),
];

impl Op {
    /// Whether it stores `Content-Type` and the like, and `x-amz-meta-*`.
    pub(crate) const fn stores_headers(self) -> bool {
        matches!(self, Self::PutObject | Self::CopyObject | Self::CreateMultipartUpload)
    }

    /// Whether its body is object data.
    pub(crate) const fn takes_object_body(self) -> bool {
        matches!(self, Self::PutObject | Self::UploadPart)
    }

    /// Whether its body is a document (XML or JSON), read as a whole.
    pub(crate) fn takes_document(self) -> bool {
        matches!(
            self,
            Self::CreateBucket | Self::DeleteObjects | Self::CompleteMultipartUpload | Self::UpdateObjectEncryption
        ) || (self.name().starts_with("Put") && self != Self::PutObject)
    }

    /// Whether it changes nothing.
    pub(crate) fn only_reads(self) -> bool {
        ["Get", "Head", "List"].iter().any(|start| self.name().starts_with(start))
    }
}

/// A set of operations.
#[derive(Clone, Copy)]
pub(crate) enum Ops {
    /// Every operation.
    All,
    /// These.
    Of(&'static [Op]),
    /// Those of which it is true.
    If(fn(Op) -> bool),
}

impl Ops {
    /// Whether `op` is in it.
    pub(crate) fn has(self, op: Op) -> bool {
        match self {
            Self::All => true,
            Self::If(is) => is(op),
            Self::Of(ops) => ops.contains(&op),
        }
    }
}

/// What is done with a header.
#[derive(Clone, Copy)]
pub(crate) enum Rule {
    /// Authentication or the operation reads it, whatever it says, and refuses what it can't do.
    Read,
    /// It changes nothing; why is in the table.
    Ignored,
    /// These values ask for what we do anyway (without regard to case); others are refused.
    OneOf(&'static [&'static str]),
}

/// A header that is known.
pub(crate) struct Header {
    /// Its name in lower case.
    pub(crate) name: &'static str,
    /// Where it is known.
    pub(crate) ops: Ops,
    /// What is done with it.
    pub(crate) rule: Rule,
}

const fn header(name: &'static str, ops: Ops, rule: Rule) -> Header {
    Header { name, ops, rule }
}

/// Operations that make an object or an upload.
const MAKES: Ops = Ops::Of(&[Op::PutObject, Op::CopyObject, Op::CreateMultipartUpload]);
/// Operations that may set an ACL.
const SETS_ACL: Ops = Ops::Of(&[
    Op::PutObject,
    Op::CopyObject,
    Op::CreateMultipartUpload,
    Op::CreateBucket,
    Op::PutBucketAcl,
    Op::PutObjectAcl,
]);
/// Operations whose body is object data.
const BODY: Ops = Ops::Of(&[Op::PutObject, Op::UploadPart]);
/// Operations with any body.
const ANY_BODY: Ops = Ops::If(|op| op.takes_object_body() || op.takes_document());
/// Operations that take a checksum of a body, or (Complete) of the object.
pub(crate) const CHECKSUM: Ops = ANY_BODY;
/// Operations that read from another object.
const COPIES: Ops = Ops::Of(&[Op::CopyObject, Op::UploadPartCopy]);
/// The operation that renames.
const RENAMES: Ops = Ops::Of(&[Op::RenameObject]);
/// Operations that read one object.
const READS: Ops = Ops::Of(&[Op::GetObject, Op::HeadObject]);
/// Operations that a customer's encryption key belongs to.
const CUSTOMER_KEY: Ops = Ops::Of(&[
    Op::PutObject,
    Op::CopyObject,
    Op::CreateMultipartUpload,
    Op::UploadPart,
    Op::UploadPartCopy,
    Op::CompleteMultipartUpload,
    Op::ListParts,
    Op::GetObject,
    Op::HeadObject,
    Op::GetObjectAttributes,
]);
/// Operations that are told how to encrypt, and reads, which refuse to be told in AWS's words.
const ENCRYPTS: Ops =
    Ops::Of(&[Op::PutObject, Op::CopyObject, Op::CreateMultipartUpload, Op::GetObject, Op::HeadObject, Op::UploadPart]);
/// Listings of objects.
const LISTS: Ops = Ops::Of(&[Op::ListObjects, Op::ListObjectsV2, Op::ListObjectVersions]);

/// Operations that plans are for.
const PLANS: Ops = Ops::Of(&[Op::GetObject, Op::PutObject, Op::UploadPart]);
/// Those, and the one that a client asks first whether we give any.
const NATIVE: Ops = Ops::Of(&[Op::GetObject, Op::PutObject, Op::UploadPart, Op::HeadBucket]);

/// Every `x-amz-*` header that is known, but for `x-amz-meta-*` and checksums ([`is_checksum`]).
pub(crate) const HEADERS: &[Header] = &[
    // Authentication reads these.
    header("x-amz-date", Ops::All, Rule::Read),
    header("x-amz-content-sha256", Ops::All, Rule::Read),
    header("x-amz-decoded-content-length", ANY_BODY, Rule::Read),
    header("x-amz-trailer", ANY_BODY, Rule::Read),
    // Who sends it: for logs. The same as `User-Agent`.
    header("x-amz-user-agent", Ops::All, Rule::Ignored),
    // Which edition of the API the client was built for (the AWS C++ SDK says so): there has only ever been this one.
    header("x-amz-api-version", Ops::All, Rule::OneOf(&["2006-03-01"])),
    // "I accept the charges of a requester-pays bucket." There are neither charges nor such buckets.
    header("x-amz-request-payer", Ops::All, Rule::OneOf(&["requester"])),
    header("x-amz-expected-bucket-owner", Ops::All, Rule::Read),
    header("x-amz-security-token", Ops::All, Rule::Read),
    header("x-amz-source-expected-bucket-owner", COPIES, Rule::Read),
    // Checksums themselves are in `is_checksum`.
    header("x-amz-sdk-checksum-algorithm", ANY_BODY, Rule::Read),
    header(
        "x-amz-checksum-algorithm",
        Ops::Of(&[Op::PutObject, Op::UploadPart, Op::CopyObject, Op::CreateMultipartUpload, Op::DeleteObjects]),
        Rule::Read,
    ),
    header("x-amz-checksum-type", Ops::Of(&[Op::CreateMultipartUpload, Op::CompleteMultipartUpload]), Rule::Read),
    header("x-amz-checksum-mode", READS, Rule::OneOf(&["ENABLED"])),
    header("x-amz-mp-object-size", Ops::Of(&[Op::CompleteMultipartUpload]), Rule::Read),
    // ACLs are off in every bucket (BucketOwnerEnforced): `ops::acl` says what AWS says to those who set one.
    header("x-amz-acl", SETS_ACL, Rule::Read),
    header("x-amz-grant-full-control", SETS_ACL, Rule::Read),
    header("x-amz-grant-read", SETS_ACL, Rule::Read),
    header("x-amz-grant-read-acp", SETS_ACL, Rule::Read),
    header("x-amz-grant-write", SETS_ACL, Rule::Read),
    header("x-amz-grant-write-acp", SETS_ACL, Rule::Read),
    // "I know that this policy may lock me out": the account's root can always replace it.
    header("x-amz-confirm-remove-self-bucket-access", Ops::Of(&[Op::PutBucketPolicy]), Rule::OneOf(&["true", "false"])),
    header("x-amz-object-ownership", Ops::Of(&[Op::CreateBucket]), Rule::OneOf(&["BucketOwnerEnforced"])),
    header("x-amz-bucket-object-lock-enabled", Ops::Of(&[Op::CreateBucket]), Rule::OneOf(&["true", "false"])),
    header("x-amz-object-lock-mode", MAKES, Rule::Read),
    header("x-amz-object-lock-retain-until-date", MAKES, Rule::Read),
    header("x-amz-object-lock-legal-hold", MAKES, Rule::Read),
    header(
        "x-amz-bypass-governance-retention",
        Ops::Of(&[Op::DeleteObject, Op::DeleteObjects, Op::PutObjectRetention]),
        Rule::OneOf(&["true", "false"]),
    ),
    // The gateway refuses classes that it does not have.
    header("x-amz-storage-class", MAKES, Rule::Read),
    // Nothing is ever archived, so there is no restore status to list.
    header("x-amz-optional-object-attributes", LISTS, Rule::OneOf(&["RestoreStatus"])),
    header("x-amz-copy-source", COPIES, Rule::Read),
    header("x-amz-copy-source-if-match", COPIES, Rule::Read),
    header("x-amz-copy-source-if-none-match", COPIES, Rule::Read),
    header("x-amz-copy-source-if-modified-since", COPIES, Rule::Read),
    header("x-amz-copy-source-if-unmodified-since", COPIES, Rule::Read),
    header("x-amz-copy-source-range", Ops::Of(&[Op::UploadPartCopy]), Rule::Read),
    header("x-amz-rename-source", RENAMES, Rule::Read),
    header("x-amz-rename-source-if-match", RENAMES, Rule::Read),
    header("x-amz-rename-source-if-none-match", RENAMES, Rule::Read),
    header("x-amz-rename-source-if-modified-since", RENAMES, Rule::Read),
    header("x-amz-rename-source-if-unmodified-since", RENAMES, Rule::Read),
    header("x-amz-client-token", RENAMES, Rule::Read),
    header("x-amz-metadata-directive", Ops::Of(&[Op::CopyObject]), Rule::OneOf(&["COPY", "REPLACE"])),
    header("x-amz-tagging", MAKES, Rule::Read),
    // Nothing is ever moved to another class, whatever its size.
    header(
        "x-amz-transition-default-minimum-object-size",
        Ops::Of(&[Op::PutBucketLifecycleConfiguration]),
        Rule::OneOf(&["all_storage_classes_128K", "varies_by_storage_class"]),
    ),
    header("x-amz-object-attributes", Ops::Of(&[Op::GetObjectAttributes]), Rule::Read),
    header("x-amz-max-parts", Ops::Of(&[Op::GetObjectAttributes]), Rule::Read),
    header("x-amz-part-number-marker", Ops::Of(&[Op::GetObjectAttributes]), Rule::Read),
    header("x-amz-tagging-directive", Ops::Of(&[Op::CopyObject]), Rule::OneOf(&["COPY", "REPLACE"])),
    // Targets are those that the administrator has set up, whether or not they can be reached now.
    header(
        "x-amz-skip-destination-validation",
        Ops::Of(&[Op::PutBucketNotificationConfiguration]),
        Rule::OneOf(&["true", "false"]),
    ),
    // Encryption. On parts it changes nothing: they are encrypted as their upload is.
    header("x-amz-server-side-encryption", ENCRYPTS, Rule::Read),
    header("x-amz-server-side-encryption-aws-kms-key-id", ENCRYPTS, Rule::Read),
    header("x-amz-server-side-encryption-context", MAKES, Rule::Read),
    header("x-amz-server-side-encryption-bucket-key-enabled", MAKES, Rule::OneOf(&["true", "false"])),
    header("x-amz-server-side-encryption-customer-algorithm", CUSTOMER_KEY, Rule::Read),
    header("x-amz-server-side-encryption-customer-key", CUSTOMER_KEY, Rule::Read),
    header("x-amz-server-side-encryption-customer-key-md5", CUSTOMER_KEY, Rule::Read),
    header("x-amz-copy-source-server-side-encryption-customer-algorithm", COPIES, Rule::Read),
    header("x-amz-copy-source-server-side-encryption-customer-key", COPIES, Rule::Read),
    header("x-amz-copy-source-server-side-encryption-customer-key-md5", COPIES, Rule::Read),
    // The native dialect (docs/protocol/native.md).
    header("x-amz-rdma-protocol", NATIVE, Rule::OneOf(&["penstock-native-1"])),
    header("x-amz-rdma-plan", PLANS, Rule::OneOf(&["get", "put", "commit"])),
    header("x-amz-rdma-object-bytes", BODY, Rule::Read),
    header("x-amz-if-match-size", Ops::Of(&[Op::DeleteObject]), Rule::Read),
    header("x-amz-if-match-last-modified-time", Ops::Of(&[Op::DeleteObject]), Rule::Read),
];

/// Whether `name` is the header of a checksum that we know. An algorithm that we don't know is refused by name.
pub(crate) fn is_checksum(name: &str) -> bool {
    ChecksumAlgorithm::ALL.into_iter().any(|algorithm| wire::checksum_header(algorithm).eq_ignore_ascii_case(name))
}

/// Whether `key` is a header that SDKs move into the query of presigned URLs and whose meaning we keep there: the operations
/// look for these in both places.
pub(crate) fn hoistable(op: Op, key: &str) -> bool {
    let is = |name: &str| key.eq_ignore_ascii_case(name);
    is("x-amz-user-agent")
        || (is("x-amz-checksum-mode") && READS.has(op))
        || ((is("x-amz-sdk-checksum-algorithm") || is_checksum(key)) && BODY.has(op))
}

/// A header by which a vendor's client says that the body moves over RDMA, of a dialect that nobody here speaks: to store the empty
/// HTTP body in its place would lose the object.
pub(crate) fn foreign_rdma(op: Op, headers: &http::HeaderMap) -> Option<&'static str> {
    if !op.takes_object_body() {
        return None;
    }
    let empty = headers.get("content-length").is_none_or(|length| length.as_bytes() == b"0");
    // The last is also a fine name for somebody's metadata.
    let said = |name: &&&str| headers.contains_key(**name) && (empty || **name != "x-amz-meta-rdma-token");
    ["x-rdma-info", "x-scal-rdma", "x-amz-meta-rdma-token"].iter().find(said).copied()
}

/// Whether `name` is a condition of HTTP's that `op` would have to heed and does not.
pub(crate) fn conditional_not_known(op: Op, name: &str) -> bool {
    match name {
        "if-match" => {
            !(op.only_reads()
                || matches!(op, Op::PutObject | Op::CopyObject | Op::CompleteMultipartUpload | Op::DeleteObject)
                || op == Op::RenameObject)
        }
        "if-none-match" => {
            !(op.only_reads()
                || matches!(op, Op::PutObject | Op::CopyObject | Op::CompleteMultipartUpload | Op::RenameObject))
        }
        "if-modified-since" | "if-unmodified-since" => !(op.only_reads() || op == Op::RenameObject),
        _ => false,
    }
}
