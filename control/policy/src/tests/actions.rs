use crate::{Facts, Need, On, needs, operations};

/// Every operation that botocore knows has its needs: the front refuses to do what it can't ask about.
#[test]
fn every_operation_of_s3_is_in_the_table() {
    let list = include_str!("../../../s3/src/gate/botocore_operations.txt");
    let known: Vec<&str> = operations().collect();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(' ').next().unwrap();
        assert!(known.contains(&name), "{name}");
    }
    assert_eq!(needs("NoSuchOperation", Facts::default()), None);
}

#[test]
fn headers_and_versions_change_what_is_needed() {
    let none = Facts::default();
    let need = |action, on| Need { action, on };
    let put = need("s3:PutObject", On::Object);
    let table = [
        ("GetObject", none, vec![need("s3:GetObject", On::Object)]),
        ("GetObject", Facts { version: true, ..none }, vec![need("s3:GetObjectVersion", On::Object)]),
        ("PutObject", none, vec![put]),
        ("PutObject", Facts { acl: true, ..none }, vec![put, need("s3:PutObjectAcl", On::Object)]),
        ("PutObject", Facts { tagging: true, ..none }, vec![put, need("s3:PutObjectTagging", On::Object)]),
        ("CopyObject", none, vec![put, need("s3:GetObject", On::Source)]),
        ("UploadPartCopy", Facts { source_version: true, ..none }, vec![put, need("s3:GetObjectVersion", On::Source)]),
        ("HeadBucket", none, vec![need("s3:ListBucket", On::Bucket)]),
        ("DeleteObjects", none, vec![]),
        (
            "DeleteObject",
            Facts { version: true, bypass_governance: true, ..none },
            vec![need("s3:DeleteObjectVersion", On::Object), need("s3:BypassGovernanceRetention", On::Object)],
        ),
        ("DeleteBucketCors", none, vec![need("s3:PutBucketCORS", On::Bucket)]),
        ("ListBuckets", none, vec![need("s3:ListAllMyBuckets", On::Service)]),
    ];
    for (operation, facts, want) in table {
        assert_eq!(needs(operation, facts), Some(want), "{operation} {facts:?}");
    }
}
