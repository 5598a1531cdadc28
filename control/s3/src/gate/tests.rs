mod semantics;

use std::collections::BTreeSet;

use http::StatusCode;

use super::*;

const OPERATIONS: &str = include_str!("botocore_operations.txt");
const AMZ_HEADERS: &str = include_str!("botocore_headers.txt");
const METHODS: [&str; 5] = ["GET", "HEAD", "PUT", "POST", "DELETE"];
const TARGETS: [&str; 3] = ["/", "/bucket", "/bucket/key"];

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut builder = http::Request::builder().method(method).uri(uri).header("host", "localhost:9000");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn options() -> FrontOptions {
    FrontOptions { base_domains: vec!["localhost".to_owned(), "s3.localhost".to_owned()], ..FrontOptions::default() }
}

fn judge(method: &str, uri: &str, headers: &[(&str, &str)]) -> Verdict {
    decide(&parts(method, uri, headers), &options()).verdict
}

/// The operation served, or the status and code of the refusal.
fn outcome(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Serve(op) => op.name().to_owned(),
        Verdict::Refuse(failure) => format!("{} {}", failure.status.as_u16(), failure.code),
        Verdict::Preflight => "preflight".to_owned(),
        Verdict::Early(failure) => format!("early {} {}", failure.status.as_u16(), failure.code),
        Verdict::Form => "form".to_owned(),
    }
}

fn assert_outcome(method: &str, uri: &str, headers: &[(&str, &str)], want: &str) {
    assert_eq!(outcome(&judge(method, uri, headers)), want, "{method} {uri} {headers:?}");
}

/// A request by which a client asks for `op` and nothing else.
fn plainest(op: Op) -> (&'static str, &'static str, Vec<(&'static str, &'static str)>) {
    let copy = vec![("x-amz-copy-source", "bucket/other")];
    match op {
        Op::ListBuckets => ("GET", "/", vec![]),
        Op::CreateBucket => ("PUT", "/bucket", vec![]),
        Op::HeadBucket => ("HEAD", "/bucket", vec![]),
        Op::DeleteBucket => ("DELETE", "/bucket", vec![]),
        Op::ListObjects => ("GET", "/bucket", vec![]),
        Op::ListObjectsV2 => ("GET", "/bucket?list-type=2", vec![]),
        Op::PutObject => ("PUT", "/bucket/key", vec![]),
        Op::CopyObject => ("PUT", "/bucket/key", copy),
        Op::GetObject => ("GET", "/bucket/key", vec![]),
        Op::HeadObject => ("HEAD", "/bucket/key", vec![]),
        Op::DeleteObject => ("DELETE", "/bucket/key", vec![]),
        Op::UploadPart => ("PUT", "/bucket/key?partNumber=1&uploadId=u", vec![]),
        Op::UploadPartCopy => ("PUT", "/bucket/key?partNumber=1&uploadId=u", copy),
        Op::CompleteMultipartUpload => ("POST", "/bucket/key?uploadId=u", vec![]),
        Op::AbortMultipartUpload => ("DELETE", "/bucket/key?uploadId=u", vec![]),
        Op::ListParts => ("GET", "/bucket/key?uploadId=u", vec![]),
        _ => {
            let (on, method, key, _) = SUB_RESOURCES.iter().find(|(.., named)| *named == op).unwrap();
            let path = if *on == On::Bucket { "/bucket" } else { "/bucket/key" };
            (method, format!("{path}?{key}").leak(), vec![])
        }
    }
}

fn with_query(uri: &str, more: &str) -> String {
    format!("{uri}{}{more}", if uri.contains('?') { '&' } else { '?' })
}

#[test]
fn every_operation_of_ours_is_recognised() {
    for &op in Op::ALL {
        let (method, uri, headers) = plainest(op);
        assert_outcome(method, uri, &headers, op.name());
        assert_outcome(method, &with_query(uri, &format!("x-id={}", op.name())), &headers, op.name());
        assert_outcome(method, &with_query(uri, "x-id=CreateSession"), &headers, "501 NotImplemented");
    }
}

/// All operations that AWS has: those with a sub-resource of their own are ours or 501, none is taken for another.
#[test]
fn no_operation_of_aws_is_taken_for_another() {
    let ours: BTreeSet<&str> = Op::ALL.iter().map(|op| op.name()).collect();
    let mut with_a_sub_resource = 0;
    let mut seen = 0;
    for line in lines(OPERATIONS) {
        let mut words = line.split(' ');
        let (name, method, path) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        seen += 1;
        // Without one they look like the plain operation of their method, and the SDKs name them by `x-id` if at all.
        if !path.contains('?') {
            if !ours.contains(name) {
                assert_outcome(
                    method,
                    &format!("{path}?x-id={name}"),
                    &[],
                    match name {
                        "WriteGetObjectResponse" => "405 MethodNotAllowed",
                        _ => "501 NotImplemented",
                    },
                );
            }
            continue;
        }
        with_a_sub_resource += 1;
        let verdict = judge(method, path, &[]);
        // The old and the new operation are one request.
        let old = ["GetBucketLifecycle", "PutBucketLifecycle", "GetBucketNotification", "PutBucketNotification"];
        let is_old_name = old.contains(&name);
        if ours.contains(name) || is_old_name {
            let name = if is_old_name { format!("{name}Configuration") } else { name.to_owned() };
            assert_eq!(outcome(&verdict), name);
            continue;
        }
        let Verdict::Refuse(failure) = verdict else { panic!("{line}: {}", outcome(&verdict)) };
        assert_eq!(failure.status, StatusCode::NOT_IMPLEMENTED, "{line}");
        let key = path.split_once('?').unwrap().1.split('&').next().unwrap();
        assert!(failure.message.contains(key), "{line}: {} does not name {key}", failure.message);
    }
    assert_eq!((seen, with_a_sub_resource), (116, 99));
}

/// Every sub-resource that AWS has, and some that nobody has, on every method and target, alone and behind a good query.
#[test]
fn no_sub_resource_falls_through() {
    let mut keys: BTreeSet<String> = lines(OPERATIONS)
        .filter_map(|line| line.split_once('?'))
        .flat_map(|(_, query)| query.split('&'))
        .map(|pair| pair.split('=').next().unwrap().to_owned())
        .collect();
    for strange in [
        "append",
        "capacity",
        "versions",
        "sub",
        "ACL",
        "Uploads",
        "uploadid",
        "LIST-TYPE",
        "%61cl",
        "x-amz-acl",
        "x-amz-rename-source",
        "x-amz-copy-source",
        "x-amz-meta-a",
        "X-Amz-Tagging",
        "fan-out",
        "lambdaArn",
        "rename",
        "zzqx7",
    ] {
        keys.insert(strange.to_owned());
    }
    for key in &keys {
        let name = decoded(key).unwrap();
        for pair in [key.clone(), format!("{key}="), format!("{key}=2"), format!("{key}&X-Amz-Signature=s")] {
            for method in METHODS {
                for target in TARGETS {
                    let uri = format!("{target}?{pair}");
                    match judge(method, &uri, &[]) {
                        Verdict::Serve(op) => {
                            assert!(
                                op.query_keys().contains(&name.as_str()),
                                "{method} {uri} is done as {}",
                                op.name()
                            );
                        }
                        Verdict::Refuse(failure) => assert!(failure.status.is_client_error() || failure.status == 501),
                        other @ (Verdict::Early(_) | Verdict::Form | Verdict::Preflight) => {
                            panic!("{method} {uri}: {other:?}")
                        }
                    }
                }
            }
            for &op in Op::ALL {
                let (method, uri, headers) = plainest(op);
                if let Verdict::Serve(served) = judge(method, &with_query(uri, &pair), &headers) {
                    assert!(served.query_keys().contains(&name.as_str()), "{method} {uri} with {pair} is {served:?}");
                }
            }
        }
    }
}

#[test]
fn what_destroyed_data_elsewhere() {
    assert_outcome("PUT", "/bucket/key?renameObject", &[], "RenameObject");
    assert_outcome("PUT", "/bucket?renameObject", &[], "501 NotImplemented");
    assert_outcome("POST", "/bucket/key?renameObject", &[], "501 NotImplemented");
    assert_outcome("PUT", "/bucket/key?renameObject&uploadId=u&partNumber=1", &[], "501 NotImplemented");
    assert_outcome("PUT", "/bucket/key?x-id=RenameObject", &[], "501 NotImplemented");
    assert_outcome("POST", "/bucket/key?select&select-type=2", &[], "501 NotImplemented");
    assert_outcome("PUT", "/bucket/key?encryption", &[], "UpdateObjectEncryption");
    assert_outcome("GET", "/bucket/key?encryption", &[], "501 NotImplemented");
    assert_outcome("PUT", "/bucket/key?annotation", &[], "501 NotImplemented");
    assert_outcome("PUT", "/bucket?abac", &[], "501 NotImplemented");
    assert_outcome("POST", "/bucket?metadataTable", &[], "501 NotImplemented");
    assert_outcome("PUT", "/bucket/key", &[("x-amz-rename-source", "bucket/a")], "501 NotImplemented");
    assert_outcome("PUT", "/bucket/key", &[("x-amz-write-offset-bytes", "3")], "501 NotImplemented");
    assert_outcome("GET", "/bucket?session", &[], "501 NotImplemented");
    assert_outcome("PUT", "/bucket/key?append&position=3", &[], "501 NotImplemented");
    assert_outcome("PUT", "/bucket/key", &[("content-range", "bytes 3-4/9")], "501 NotImplemented");
    assert_outcome(
        "PUT",
        "/bucket/key",
        &[("if-unmodified-since", "Tue, 15 Nov 1994 08:12:31 GMT")],
        "501 NotImplemented",
    );
    assert_outcome("POST", "/bucket/key?uploads", &[("if-none-match", "*")], "501 NotImplemented");
    assert_outcome("DELETE", "/bucket/key?versionId=v1", &[], "DeleteObject");
    assert_outcome("DELETE", "/bucket/key?versionId=null", &[], "DeleteObject");
    assert_outcome("DELETE", "/bucket?acl", &[], "501 NotImplemented");
    assert_outcome("POST", "/bucket?policy", &[], "501 NotImplemented");
    assert_outcome("PUT", "/bucket?website", &[], "501 NotImplemented");
    assert_outcome("DELETE", "/bucket/key?tagging", &[], "DeleteObjectTagging");
    assert_outcome("PUT", "/bucket/key?uploadId=u", &[], "400 InvalidArgument");
    assert_outcome("PUT", "/bucket/key?partNumber=1", &[], "400 InvalidArgument");
}

/// Every header of AWS's on the operations where a wrong answer costs most: only those named here are let in.
#[test]
fn headers_are_let_in_by_name_only() {
    let common = ["x-amz-expected-bucket-owner", "x-amz-request-payer"];
    let grants = [
        "x-amz-grant-full-control",
        "x-amz-grant-read",
        "x-amz-grant-read-acp",
        "x-amz-grant-write",
        "x-amz-grant-write-acp",
    ];
    let mut body: Vec<&str> = penstock_digest::ChecksumAlgorithm::ALL.into_iter().map(wire::checksum_header).collect();
    body.push("x-amz-sdk-checksum-algorithm");
    let customer = [
        "x-amz-server-side-encryption-customer-algorithm",
        "x-amz-server-side-encryption-customer-key",
        "x-amz-server-side-encryption-customer-key-md5",
    ];
    // Let in to be refused in AWS's words, or to change nothing.
    let encryption = ["x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"];
    let cases: [(Op, Vec<&str>); 7] = [
        (
            Op::PutObject,
            [
                &common[..],
                &body,
                &grants,
                &customer,
                &[
                    "x-amz-acl",
                    "x-amz-checksum-algorithm",
                    "x-amz-object-lock-legal-hold",
                    "x-amz-object-lock-mode",
                    "x-amz-object-lock-retain-until-date",
                    "x-amz-server-side-encryption",
                    "x-amz-server-side-encryption-aws-kms-key-id",
                    "x-amz-server-side-encryption-bucket-key-enabled",
                    "x-amz-server-side-encryption-context",
                    "x-amz-storage-class",
                    "x-amz-tagging",
                ],
            ]
            .concat(),
        ),
        (Op::UploadPart, [&common[..], &body, &customer, &encryption, &["x-amz-checksum-algorithm"]].concat()),
        (Op::GetObject, [&common[..], &customer, &encryption, &["x-amz-checksum-mode"]].concat()),
        (Op::ListObjectsV2, [&common[..], &["x-amz-optional-object-attributes"]].concat()),
        (
            Op::DeleteObject,
            [
                &common[..],
                &["x-amz-bypass-governance-retention", "x-amz-if-match-last-modified-time", "x-amz-if-match-size"],
            ]
            .concat(),
        ),
        (Op::DeleteBucket, common.to_vec()),
        (Op::AbortMultipartUpload, common.to_vec()),
    ];
    for (op, known) in cases {
        let (method, uri, _) = plainest(op);
        let mut let_in = BTreeSet::new();
        // `x-amz-copy-source` makes another operation of a PUT, and is tested as that.
        for name in lines(AMZ_HEADERS).filter(|name| *name != "x-amz-copy-source").chain(["x-amz-zzqx7", "x-amz-te"]) {
            let good = match name {
                "x-amz-request-payer" => "requester",
                "x-amz-acl" => "private",
                "x-amz-checksum-mode" => "enabled",
                "x-amz-optional-object-attributes" => "RestoreStatus",
                _ => "true",
            };
            match judge(method, uri, &[(name, good)]) {
                Verdict::Serve(served) => {
                    assert_eq!(served, op);
                    let_in.insert(name);
                }
                Verdict::Refuse(failure) => {
                    assert_eq!(failure.status, StatusCode::NOT_IMPLEMENTED, "{op:?} {name}");
                    assert!(failure.message.contains(name), "{op:?}: {} does not name {name}", failure.message);
                }
                other @ (Verdict::Early(_) | Verdict::Form | Verdict::Preflight) => panic!("{op:?} {name}: {other:?}"),
            }
        }
        assert_eq!(let_in, known.into_iter().collect(), "{op:?}");
    }
}

#[test]
fn headers_whose_value_matters() {
    let put = |name: &str, value: &str, want: &str| assert_outcome("PUT", "/bucket/key", &[(name, value)], want);
    put("x-amz-acl", "bucket-owner-full-control", "PutObject");
    put("x-amz-expected-bucket-owner", "000000000000", "PutObject");
    put("x-amz-security-token", "t", "PutObject");
    put("x-amz-checksum-sha512", "eA==", "PutObject");
    put("x-amz-server-side-encryption", "AES256", "PutObject");
    put("x-amz-copy-source-server-side-encryption-customer-key", "x", "501 NotImplemented");
    put("x-amz-tagging", "a=b", "PutObject");
    put("x-amz-object-lock-mode", "COMPLIANCE", "PutObject");
    put("x-amz-website-redirect-location", "/", "501 NotImplemented");
    put("x-amz-grant-read", "id=x", "PutObject");
    put("x-amz-meta-anything", "goes", "PutObject");
    assert_outcome("GET", "/bucket/key", &[("x-amz-meta-a", "b")], "501 NotImplemented");
    let create = |value: &str, want: &str| {
        assert_outcome("PUT", "/bucket", &[("x-amz-bucket-object-lock-enabled", value)], want);
    };
    create("false", "CreateBucket");
    create("true", "CreateBucket");
    create("maybe", "501 NotImplemented");
    // The second of two is looked at as well.
    assert_outcome(
        "PUT",
        "/bucket/key",
        &[("x-amz-request-payer", "requester"), ("x-amz-request-payer", "nobody")],
        "501 NotImplemented",
    );
}

#[test]
fn values_that_no_object_could_satisfy() {
    for (uri, want) in [
        ("/bucket?max-keys=-1", "400 InvalidArgument"),
        ("/bucket?max-keys=x", "400 InvalidArgument"),
        ("/bucket?max-keys=2147483648", "400 InvalidArgument"),
        ("/bucket?max-keys=2147483647", "ListObjects"),
        ("/bucket?max-keys=0", "ListObjects"),
        ("/bucket?encoding-type=base64", "400 InvalidArgument"),
        ("/bucket?list-type=3", "400 InvalidArgument"),
        ("/bucket?prefix=a&prefix=b", "early 400 InvalidArgument"),
        ("/bucket?prefix=%ff", "early 400 InvalidURI"),
        ("/bucket/key?partNumber=0", "400 InvalidArgument"),
        ("/bucket/key?partNumber=10001", "400 InvalidArgument"),
        ("/bucket/key?partNumber=10000", "GetObject"),
        ("/bucket/key?versionId=x", "GetObject"),
        ("/bucket/%ff", "early 400 InvalidURI"),
        ("/?max-buckets=0", "400 InvalidArgument"),
    ] {
        assert_outcome("GET", uri, &[], want);
    }
    for number in ["0", "10001", "-1", "", "+1", "1e3", "99999999999999999999"] {
        assert_outcome("PUT", &format!("/bucket/key?uploadId=u&partNumber={number}"), &[], "400 InvalidArgument");
    }
    let (longest, longer) = ("k".repeat(1024), "k".repeat(1025));
    assert_outcome("PUT", &format!("/bucket/{longest}"), &[], "PutObject");
    assert_outcome("PUT", &format!("/bucket/{longer}"), &[], "400 KeyTooLongError");
}

#[test]
fn methods_and_forms_and_heads() {
    assert_outcome("PATCH", "/bucket/key", &[], "early 405 MethodNotAllowed");
    assert_outcome("PROPFIND", "/bucket", &[], "early 405 MethodNotAllowed");
    assert_outcome("OPTIONS", "/bucket/key", &[("origin", "http://x")], "preflight");
    assert_outcome("PUT", "/", &[], "405 MethodNotAllowed");
    assert_outcome("DELETE", "/", &[], "405 MethodNotAllowed");
    assert_outcome("HEAD", "/", &[], "405 MethodNotAllowed");
    assert_outcome("POST", "/bucket", &[], "405 MethodNotAllowed");
    assert_outcome("POST", "/bucket/key", &[], "405 MethodNotAllowed");
    assert_outcome("POST", "/bucket/key?restore", &[], "501 NotImplemented");
    assert_outcome("POST", "/bucket", &[("content-type", "multipart/form-data; boundary=x")], "form");
    assert_outcome("POST", "/bucket?delete", &[("content-type", "Multipart/Form-Data")], "DeleteObjects");
    assert_outcome("POST", "/bucket/key", &[("content-type", "Multipart/Form-Data")], "405 MethodNotAllowed");
    let long = "v".repeat(limits::REQUEST_HEAD_BYTES_MAX);
    assert_outcome("GET", "/bucket/key", &[("x-amz-meta-a", &long)], "early 400 RequestHeaderSectionTooLarge");
    let many: Vec<String> = (0..=QUERY_PARAMETERS_MAX).map(|number| format!("k{number}")).collect();
    assert_outcome("GET", &format!("/bucket?{}", many.join("&")), &[], "early 400 InvalidRequest");
}

#[test]
fn presigned_urls() {
    let auth =
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=c&X-Amz-Date=d&X-Amz-Expires=60&X-Amz-SignedHeaders=host";
    let get = |more: &str| outcome(&judge("GET", &format!("/bucket/key?{auth}&X-Amz-Signature=s{more}"), &[]));
    let put = |more: &str| outcome(&judge("PUT", &format!("/bucket/key?{auth}&X-Amz-Signature=s{more}"), &[]));
    assert_eq!(get(""), "GetObject");
    assert_eq!(get("&x-id=GetObject"), "GetObject");
    assert_eq!(get("&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD"), "GetObject");
    assert_eq!(get("&X-Amz-Content-Sha256=0123"), "501 NotImplemented");
    assert_eq!(get("&x-amz-checksum-mode=ENABLED"), "GetObject");
    assert_eq!(get("&X-Amz-Security-Token=t"), "GetObject");
    assert_eq!(get("&x-amz-acl=private"), "501 NotImplemented");
    assert_eq!(put("&x-amz-sdk-checksum-algorithm=CRC32&x-amz-checksum-crc32=AAAAAA%3D%3D"), "PutObject");
    assert_eq!(put("&x-amz-meta-a=b"), "501 NotImplemented");
    assert_eq!(put("&x-amz-tagging=a"), "501 NotImplemented");
    // What signs is understood in signed URLs only.
    assert_outcome("GET", &format!("/bucket/key?{auth}"), &[], "501 NotImplemented");
    // Headers that nobody signed and that are not S3's change nothing.
    let url = format!("/bucket/key?{auth}&X-Amz-Signature=s");
    assert_outcome("PUT", &url, &[("content-type", "text/plain"), ("accept", "*/*")], "PutObject");
}

#[test]
fn hosts() {
    let domains = options().base_domains;
    let cases = [
        ("localhost:9000", None),
        ("LOCALHOST", None),
        ("s3.localhost", None),
        ("b.localhost:9000", Some("b")),
        ("B.S3.Localhost:80", Some("b")),
        ("a.b.s3.localhost.", Some("a.b")),
        ("127.0.0.1:9000", None),
        ("[::1]:9000", None),
        ("[::1]", None),
        ("example.com", None),
        ("xlocalhost", None),
        (".localhost", None),
        ("", None),
    ];
    for (host, want) in cases {
        assert_eq!(bucket_of_host(host, &domains).as_deref(), want, "{host}");
    }
    assert_eq!(bucket_of_host("b.s3.example:1", &["s3.example:9000".to_owned()]).as_deref(), Some("b"));
    assert_eq!(bucket_of_host("b.localhost", &[]), None);
    assert_eq!(bucket_of_host("b.", &[String::new()]), None);
}

#[test]
fn targets() {
    let target = |host: &str, uri: &str| {
        let mut parts = parts("GET", uri, &[]);
        parts.headers.insert("host", host.parse().unwrap());
        decide(&parts, &options()).target
    };
    let object = |bucket: &str, key: &str| Target::Object(bucket.to_owned(), key.to_owned());
    assert_eq!(target("localhost", "/"), Target::Root);
    assert_eq!(target("localhost", "/b"), Target::Bucket("b".to_owned()));
    assert_eq!(target("localhost", "/b/"), Target::Bucket("b".to_owned()));
    assert_eq!(target("localhost", "/b//"), object("b", "/"));
    assert_eq!(target("localhost", "/b/a%2Fb%20c+d%01"), object("b", "a/b c+d\u{1}"));
    assert_eq!(target("localhost", "/b/../c"), object("b", "../c"));
    assert_eq!(target("b.localhost", "/"), Target::Bucket("b".to_owned()));
    assert_eq!(target("b.localhost", "/c/d"), object("b", "c/d"));
    assert_eq!(target("b.localhost", "//"), object("b", "/"));
}
