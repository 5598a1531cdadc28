//! What each S3 operation asks for: actions, and on what. From the S3 User Guide's "Required permissions for Amazon S3 API
//! operations" and the Service Authorization Reference.

/// What a need is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum On {
    /// No resource: `*`.
    Service,
    /// The bucket: `arn:aws:s3:::bucket`.
    Bucket,
    /// The object: `arn:aws:s3:::bucket/key`.
    Object,
    /// The object that is copied (or renamed) from.
    Source,
}

/// An action that an operation needs on something. All of an operation's needs must be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Need {
    /// `s3:GetObject`.
    pub action: &'static str,
    /// On what.
    pub on: On,
}

/// What of a request changes its needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// It names a version of the object.
    pub version: bool,
    /// It names a version of the copy's source.
    pub source_version: bool,
    /// It sets an ACL (`x-amz-acl`, `x-amz-grant-*`).
    pub acl: bool,
    /// It sets tags (`x-amz-tagging`).
    pub tagging: bool,
    /// It sets a retention (`x-amz-object-lock-mode`).
    pub retention: bool,
    /// It sets a legal hold.
    pub legal_hold: bool,
    /// It asks to get around a governance lock.
    pub bypass_governance: bool,
    /// CreateBucket: it enables object lock.
    pub object_lock: bool,
    /// CreateBucket: it sets the ownership.
    pub ownership: bool,
}

type Row = (&'static str, &'static str, Option<&'static str>, On);

/// Operation, action, action when a version is named, resource. An operation may have several rows.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("AbortMultipartUpload", "s3:AbortMultipartUpload", None, On::Object),
    ("CompleteMultipartUpload", "s3:PutObject", None, On::Object),
    ("CopyObject", "s3:PutObject", None, On::Object),
    ("CreateBucket", "s3:CreateBucket", None, On::Bucket),
    ("CreateBucketMetadataConfiguration", "s3:CreateBucketMetadataTableConfiguration", None, On::Bucket),
    ("CreateBucketMetadataTableConfiguration", "s3:CreateBucketMetadataTableConfiguration", None, On::Bucket),
    ("CreateMultipartUpload", "s3:PutObject", None, On::Object),
    ("CreateSession", "s3:CreateSession", None, On::Bucket),
    ("DeleteBucket", "s3:DeleteBucket", None, On::Bucket),
    ("DeleteBucketAnalyticsConfiguration", "s3:PutAnalyticsConfiguration", None, On::Bucket),
    ("DeleteBucketCors", "s3:PutBucketCORS", None, On::Bucket),
    ("DeleteBucketEncryption", "s3:PutEncryptionConfiguration", None, On::Bucket),
    ("DeleteBucketIntelligentTieringConfiguration", "s3:PutIntelligentTieringConfiguration", None, On::Bucket),
    ("DeleteBucketInventoryConfiguration", "s3:PutInventoryConfiguration", None, On::Bucket),
    ("DeleteBucketLifecycle", "s3:PutLifecycleConfiguration", None, On::Bucket),
    ("DeleteBucketMetadataConfiguration", "s3:DeleteBucketMetadataTableConfiguration", None, On::Bucket),
    ("DeleteBucketMetadataTableConfiguration", "s3:DeleteBucketMetadataTableConfiguration", None, On::Bucket),
    ("DeleteBucketMetricsConfiguration", "s3:PutMetricsConfiguration", None, On::Bucket),
    ("DeleteBucketOwnershipControls", "s3:PutBucketOwnershipControls", None, On::Bucket),
    ("DeleteBucketPolicy", "s3:DeleteBucketPolicy", None, On::Bucket),
    ("DeleteBucketReplication", "s3:PutReplicationConfiguration", None, On::Bucket),
    ("DeleteBucketTagging", "s3:PutBucketTagging", None, On::Bucket),
    ("DeleteBucketWebsite", "s3:DeleteBucketWebsite", None, On::Bucket),
    ("DeleteObject", "s3:DeleteObject", Some("s3:DeleteObjectVersion"), On::Object),
    ("DeleteObjectAnnotation", "s3:DeleteObjectAnnotation", Some("s3:DeleteObjectVersionAnnotation"), On::Object),
    ("DeleteObjectTagging", "s3:DeleteObjectTagging", Some("s3:DeleteObjectVersionTagging"), On::Object),
    // Each of its objects is asked for by itself, as DeleteObject.
    ("DeleteObjects", "", None, On::Bucket),
    ("DeletePublicAccessBlock", "s3:PutBucketPublicAccessBlock", None, On::Bucket),
    ("GetBucketAbac", "s3:GetBucketAbac", None, On::Bucket),
    ("GetBucketAccelerateConfiguration", "s3:GetAccelerateConfiguration", None, On::Bucket),
    ("GetBucketAcl", "s3:GetBucketAcl", None, On::Bucket),
    ("GetBucketAnalyticsConfiguration", "s3:GetAnalyticsConfiguration", None, On::Bucket),
    ("GetBucketCors", "s3:GetBucketCORS", None, On::Bucket),
    ("GetBucketEncryption", "s3:GetEncryptionConfiguration", None, On::Bucket),
    ("GetBucketIntelligentTieringConfiguration", "s3:GetIntelligentTieringConfiguration", None, On::Bucket),
    ("GetBucketInventoryConfiguration", "s3:GetInventoryConfiguration", None, On::Bucket),
    ("GetBucketLifecycle", "s3:GetLifecycleConfiguration", None, On::Bucket),
    ("GetBucketLifecycleConfiguration", "s3:GetLifecycleConfiguration", None, On::Bucket),
    ("GetBucketLocation", "s3:GetBucketLocation", None, On::Bucket),
    ("GetBucketLogging", "s3:GetBucketLogging", None, On::Bucket),
    ("GetBucketMetadataConfiguration", "s3:GetBucketMetadataTableConfiguration", None, On::Bucket),
    ("GetBucketMetadataTableConfiguration", "s3:GetBucketMetadataTableConfiguration", None, On::Bucket),
    ("GetBucketMetricsConfiguration", "s3:GetMetricsConfiguration", None, On::Bucket),
    ("GetBucketNotification", "s3:GetBucketNotification", None, On::Bucket),
    ("GetBucketNotificationConfiguration", "s3:GetBucketNotification", None, On::Bucket),
    ("GetBucketOwnershipControls", "s3:GetBucketOwnershipControls", None, On::Bucket),
    ("GetBucketPolicy", "s3:GetBucketPolicy", None, On::Bucket),
    ("GetBucketPolicyStatus", "s3:GetBucketPolicyStatus", None, On::Bucket),
    ("GetBucketReplication", "s3:GetReplicationConfiguration", None, On::Bucket),
    ("GetBucketRequestPayment", "s3:GetBucketRequestPayment", None, On::Bucket),
    ("GetBucketTagging", "s3:GetBucketTagging", None, On::Bucket),
    ("GetBucketVersioning", "s3:GetBucketVersioning", None, On::Bucket),
    ("GetBucketWebsite", "s3:GetBucketWebsite", None, On::Bucket),
    ("GetObject", "s3:GetObject", Some("s3:GetObjectVersion"), On::Object),
    ("GetObjectAcl", "s3:GetObjectAcl", Some("s3:GetObjectVersionAcl"), On::Object),
    ("GetObjectAnnotation", "s3:GetObjectAnnotation", Some("s3:GetObjectVersionAnnotation"), On::Object),
    ("GetObjectAttributes", "s3:GetObject", Some("s3:GetObjectVersion"), On::Object),
    ("GetObjectAttributes", "s3:GetObjectAttributes", Some("s3:GetObjectVersionAttributes"), On::Object),
    ("GetObjectLegalHold", "s3:GetObjectLegalHold", None, On::Object),
    ("GetObjectLockConfiguration", "s3:GetBucketObjectLockConfiguration", None, On::Bucket),
    ("GetObjectRetention", "s3:GetObjectRetention", None, On::Object),
    ("GetObjectTagging", "s3:GetObjectTagging", Some("s3:GetObjectVersionTagging"), On::Object),
    ("GetObjectTorrent", "s3:GetObjectTorrent", Some("s3:GetObjectVersionTorrent"), On::Object),
    ("GetPublicAccessBlock", "s3:GetBucketPublicAccessBlock", None, On::Bucket),
    ("HeadBucket", "s3:ListBucket", None, On::Bucket),
    ("HeadObject", "s3:GetObject", Some("s3:GetObjectVersion"), On::Object),
    ("ListBucketAnalyticsConfigurations", "s3:GetAnalyticsConfiguration", None, On::Bucket),
    ("ListBucketIntelligentTieringConfigurations", "s3:GetIntelligentTieringConfiguration", None, On::Bucket),
    ("ListBucketInventoryConfigurations", "s3:GetInventoryConfiguration", None, On::Bucket),
    ("ListBucketMetricsConfigurations", "s3:GetMetricsConfiguration", None, On::Bucket),
    ("ListBuckets", "s3:ListAllMyBuckets", None, On::Service),
    ("ListDirectoryBuckets", "s3:ListAllMyBuckets", None, On::Service),
    ("ListMultipartUploads", "s3:ListBucketMultipartUploads", None, On::Bucket),
    ("ListObjectAnnotations", "s3:ListObjectAnnotations", None, On::Object),
    ("ListObjectVersions", "s3:ListBucketVersions", None, On::Bucket),
    ("ListObjects", "s3:ListBucket", None, On::Bucket),
    ("ListObjectsV2", "s3:ListBucket", None, On::Bucket),
    ("ListParts", "s3:ListMultipartUploadParts", None, On::Object),
    ("PostObject", "s3:PutObject", None, On::Object),
    ("PutBucketAbac", "s3:PutBucketAbac", None, On::Bucket),
    ("PutBucketAccelerateConfiguration", "s3:PutAccelerateConfiguration", None, On::Bucket),
    ("PutBucketAcl", "s3:PutBucketAcl", None, On::Bucket),
    ("PutBucketAnalyticsConfiguration", "s3:PutAnalyticsConfiguration", None, On::Bucket),
    ("PutBucketCors", "s3:PutBucketCORS", None, On::Bucket),
    ("PutBucketEncryption", "s3:PutEncryptionConfiguration", None, On::Bucket),
    ("PutBucketIntelligentTieringConfiguration", "s3:PutIntelligentTieringConfiguration", None, On::Bucket),
    ("PutBucketInventoryConfiguration", "s3:PutInventoryConfiguration", None, On::Bucket),
    ("PutBucketLifecycle", "s3:PutLifecycleConfiguration", None, On::Bucket),
    ("PutBucketLifecycleConfiguration", "s3:PutLifecycleConfiguration", None, On::Bucket),
    ("PutBucketLogging", "s3:PutBucketLogging", None, On::Bucket),
    ("PutBucketMetricsConfiguration", "s3:PutMetricsConfiguration", None, On::Bucket),
    ("PutBucketNotification", "s3:PutBucketNotification", None, On::Bucket),
    ("PutBucketNotificationConfiguration", "s3:PutBucketNotification", None, On::Bucket),
    ("PutBucketOwnershipControls", "s3:PutBucketOwnershipControls", None, On::Bucket),
    ("PutBucketPolicy", "s3:PutBucketPolicy", None, On::Bucket),
    ("PutBucketReplication", "s3:PutReplicationConfiguration", None, On::Bucket),
    ("PutBucketRequestPayment", "s3:PutBucketRequestPayment", None, On::Bucket),
    ("PutBucketTagging", "s3:PutBucketTagging", None, On::Bucket),
    ("PutBucketVersioning", "s3:PutBucketVersioning", None, On::Bucket),
    ("PutBucketWebsite", "s3:PutBucketWebsite", None, On::Bucket),
    ("PutObject", "s3:PutObject", None, On::Object),
    ("PutObjectAcl", "s3:PutObjectAcl", Some("s3:PutObjectVersionAcl"), On::Object),
    ("PutObjectAnnotation", "s3:PutObjectAnnotation", Some("s3:PutObjectVersionAnnotation"), On::Object),
    ("PutObjectLegalHold", "s3:PutObjectLegalHold", None, On::Object),
    ("PutObjectLockConfiguration", "s3:PutBucketObjectLockConfiguration", None, On::Bucket),
    ("PutObjectRetention", "s3:PutObjectRetention", None, On::Object),
    ("PutObjectTagging", "s3:PutObjectTagging", Some("s3:PutObjectVersionTagging"), On::Object),
    ("PutPublicAccessBlock", "s3:PutBucketPublicAccessBlock", None, On::Bucket),
    ("RenameObject", "s3:PutObject", None, On::Object),
    ("RenameObject", "s3:GetObject", None, On::Source),
    ("RenameObject", "s3:DeleteObject", None, On::Source),
    ("RestoreObject", "s3:RestoreObject", None, On::Object),
    ("SelectObjectContent", "s3:GetObject", None, On::Object),
    ("UpdateBucketMetadataAnnotationTableConfiguration", "s3:UpdateBucketMetadataAnnotationTableConfiguration", None, On::Bucket),
    ("UpdateBucketMetadataInventoryTableConfiguration", "s3:UpdateBucketMetadataInventoryTableConfiguration", None, On::Bucket),
    ("UpdateBucketMetadataJournalTableConfiguration", "s3:UpdateBucketMetadataJournalTableConfiguration", None, On::Bucket),
    ("UpdateObjectEncryption", "s3:UpdateObjectEncryption", None, On::Object),
    ("UploadPart", "s3:PutObject", None, On::Object),
    ("UploadPartCopy", "s3:PutObject", None, On::Object),
    ("WriteGetObjectResponse", "s3-object-lambda:WriteGetObjectResponse", None, On::Object),
];

/// Actions of S3's that no operation above needs by itself, and on what they are.
const MORE_ACTIONS: &[(&str, On)] = &[
    ("s3:BypassGovernanceRetention", On::Object),
    ("s3:ReplicateObject", On::Object),
    ("s3:ReplicateDelete", On::Object),
    ("s3:ReplicateTags", On::Object),
    ("s3:ObjectOwnerOverrideToBucketOwner", On::Object),
    ("s3:GetObjectVersionForReplication", On::Object),
    ("s3:InitiateReplication", On::Object),
    ("s3:DeleteObjectVersion", On::Object),
    ("s3:PutBucketOwnershipControls", On::Bucket),
];

/// What `operation` (AWS's name) needs; `None` for an operation that is not in the table, which nobody may do.
#[must_use]
pub fn needs(operation: &str, facts: Facts) -> Option<Vec<Need>> {
    let mut known = false;
    let mut needs = Vec::with_capacity(2);
    for (_, action, versioned, on) in ROWS.iter().filter(|(name, ..)| *name == operation) {
        known = true;
        let action = if facts.version { versioned.unwrap_or(action) } else { action };
        if !action.is_empty() {
            needs.push(Need { action, on: *on });
        }
    }
    if !known {
        return None;
    }
    let mut also = |wanted: bool, action: &'static str, on| {
        if wanted {
            needs.push(Need { action, on });
        }
    };
    match operation {
        "CopyObject" | "UploadPartCopy" => {
            also(true, if facts.source_version { "s3:GetObjectVersion" } else { "s3:GetObject" }, On::Source);
        }
        "CreateBucket" => {
            also(facts.acl, "s3:PutBucketAcl", On::Bucket);
            also(facts.object_lock, "s3:PutBucketObjectLockConfiguration", On::Bucket);
            also(facts.object_lock, "s3:PutBucketVersioning", On::Bucket);
            also(facts.ownership, "s3:PutBucketOwnershipControls", On::Bucket);
        }
        _ => {}
    }
    if matches!(operation, "PutObject" | "CopyObject" | "CreateMultipartUpload" | "PostObject") {
        also(facts.acl, "s3:PutObjectAcl", On::Object);
        also(facts.tagging, "s3:PutObjectTagging", On::Object);
        also(facts.retention, "s3:PutObjectRetention", On::Object);
        also(facts.legal_hold, "s3:PutObjectLegalHold", On::Object);
    }
    if matches!(operation, "DeleteObject" | "PutObjectRetention") {
        also(facts.bypass_governance, "s3:BypassGovernanceRetention", On::Object);
    }
    Some(needs)
}

/// The operations that [`needs`] knows, each once, in order.
pub fn operations() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    ROWS.iter().map(|(name, ..)| *name).filter(move |name| {
        let new = *name != last;
        last = name;
        new
    })
}

/// Every action with what it is about.
pub(crate) fn actions() -> impl Iterator<Item = (&'static str, On)> {
    let rows =
        ROWS.iter().flat_map(|(_, action, versioned, on)| [Some(*action), *versioned].map(|a| a.map(|a| (a, *on))));
    rows.flatten().filter(|(action, _)| !action.is_empty()).chain(MORE_ACTIONS.iter().copied())
}

/// Whether S3 has an action of this name (without regard to case).
#[must_use]
pub fn is_known_action(action: &str) -> bool {
    actions().any(|(known, _)| known.eq_ignore_ascii_case(action))
}
