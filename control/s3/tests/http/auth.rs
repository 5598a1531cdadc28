//! Signatures: what is good is let in, all else is refused, in AWS's words and before anything else is said.

use penstock_s3::FrontOptions;
use time::Duration;

use crate::client::{Request, sha256_hex};
use crate::house::{BUCKET, House, NOTHING};

/// One request per operation, and some that are none.
fn one_of_each() -> Vec<Request> {
    let key = "/bucket/key";
    let copy = "bucket/key";
    vec![
        Request::new("GET", "/"),
        Request::new("PUT", "/other-bucket"),
        Request::new("HEAD", "/bucket"),
        Request::new("DELETE", "/bucket"),
        Request::new("GET", "/bucket").query("location", ""),
        Request::new("GET", "/bucket").query("versioning", ""),
        Request::new("GET", "/bucket"),
        Request::new("GET", "/bucket").query("list-type", "2"),
        Request::new("POST", "/bucket").query("delete", "").body("<Delete><Object><Key>key</Key></Object></Delete>"),
        Request::new("GET", "/bucket").query("uploads", ""),
        Request::put(key, "overwritten"),
        Request::new("PUT", "/bucket/copy").header("x-amz-copy-source", copy),
        Request::new("GET", key),
        Request::new("HEAD", key),
        Request::new("DELETE", key),
        Request::new("POST", key).query("uploads", ""),
        Request::put(key, "part").query("partNumber", "1").query("uploadId", "u"),
        Request::new("PUT", key).query("partNumber", "1").query("uploadId", "u").header("x-amz-copy-source", copy),
        Request::new("POST", key).query("uploadId", "u").body("<CompleteMultipartUpload/>"),
        Request::new("DELETE", key).query("uploadId", "u"),
        Request::new("GET", key).query("uploadId", "u"),
        Request::new("PUT", key).query("renameObject", ""),
        Request::new("GET", "/bucket").query("session", ""),
        Request::new("GET", "/bucket").query("policy", ""),
        Request::new("DELETE", "/no-such-bucket"),
        Request::new("GET", "/bucket/no-such-key"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_learn_and_change_nothing() {
    let house = House::new().await;
    house.expect(Request::put("/bucket/key", "precious"), 200).await;
    for request in one_of_each() {
        let forged = request.clone().signer(|signer| signer.secret_key = "guess".to_owned());
        let unknown = request.clone().signer(|signer| signer.access_key = "AKIDNOBODY".to_owned());
        let presigned = request.clone().signer(|signer| signer.secret_key = "guess".to_owned()).presigned(60);
        for (bytes, code) in [
            (request.anonymous(), if request.path == "/no-such-bucket" { "NoSuchBucket" } else { "AccessDenied" }),
            (forged.signed(), "SignatureDoesNotMatch"),
            (unknown.signed(), "InvalidAccessKeyId"),
            (presigned, "SignatureDoesNotMatch"),
        ] {
            let mut connection = house.connect().await;
            connection.write(&bytes).await;
            let reply = connection.reply(&request.method).await;
            let what = format!("{} {} {:?}: {}", request.method, request.path, request.query, reply.text());
            assert_eq!(reply.status, if code == "NoSuchBucket" { 404 } else { 403 }, "{what}");
            assert!(reply.header("x-amz-request-id").is_some(), "{what}");
            if request.method == "HEAD" {
                assert!(reply.body.is_empty());
            } else {
                assert_eq!(reply.code(), code, "{what}");
                assert_eq!(reply.element("RequestId").as_deref(), reply.header("x-amz-request-id"));
                assert_eq!(reply.element("Resource"), Some(request.path.clone()));
            }
        }
    }
    assert_eq!(house.expect(Request::new("GET", "/bucket/key"), 200).await.body, b"precious");
    let buckets = house.expect(Request::new("GET", "/"), 200).await;
    assert_eq!(buckets.elements("Name"), [BUCKET]);
    house.expect(Request::new("DELETE", "/bucket/key"), 204).await;
    house.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_requests_for_what_is_not_built_are_told_so() {
    let house = House::new().await;
    let refused = [
        (Request::new("POST", "/bucket/key").query("select", "").query("select-type", "2"), "select"),
        (Request::new("PUT", "/bucket/key").query("annotation", ""), "annotation"),
        (Request::new("PUT", "/bucket").query("abac", ""), "abac"),
        (Request::new("POST", "/bucket").query("metadataTable", ""), "metadataTable"),
        (Request::new("GET", "/bucket").query("session", ""), "session"),
        (Request::new("GET", "/bucket").query("website", ""), "website"),
        (Request::put("/bucket/key", vec![7; 3 << 20]).query("torrent", ""), "torrent"),
        (Request::put("/bucket/key", "x").header("x-amz-write-offset-bytes", "1"), "x-amz-write-offset-bytes"),
        (Request::put("/bucket/key", "x").header("x-amz-server-side-encryption", "aws:kms:dsse"), "aws:kms:dsse"),
    ];
    for (request, named) in refused {
        let reply = house.refused(request, 501, "NotImplemented").await;
        assert!(reply.text().contains(named), "{}", reply.text());
    }
    house.refused(Request::new("PATCH", "/bucket/key"), 405, "MethodNotAllowed").await;
    house.refused(Request::new("PUT", "/"), 405, "MethodNotAllowed").await;
    house.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_signatures() {
    let house = House::new().await;
    let put = || Request::put("/bucket/key", "x");
    house.refused(put().signer(|s| s.at -= Duration::minutes(16)), 403, "RequestTimeTooSkewed").await;
    house.refused(put().signer(|s| s.at += Duration::minutes(16)), 403, "RequestTimeTooSkewed").await;
    house.refused(put().signer(|s| s.service = "ec2".to_owned()), 400, "AuthorizationHeaderMalformed").await;
    house.refused(put().payload("not-a-hash"), 400, "InvalidArgument").await;
    // A header that decides and that nobody signed.
    house.refused(put().unsigned("x-amz-meta-a", "b"), 403, "AccessDenied").await;
    let cases = [
        ("authorization: AWS4-HMAC-SHA256 nonsense\r\n", 400, "AuthorizationHeaderMalformed"),
        ("authorization: AWS4-HMAC-SHA256\r\n", 400, "AuthorizationHeaderMalformed"),
        ("authorization: AWS AKID:c2lnbmF0dXJl\r\ndate: Tue, 15 Nov 1994 08:12:31 GMT\r\n", 400, "InvalidRequest"),
        ("authorization: \r\n", 400, "AuthorizationHeaderMalformed"),
    ];
    for (header, status, code) in cases {
        let mut connection = house.connect().await;
        connection.write(format!("GET /bucket/key HTTP/1.1\r\nhost: localhost\r\n{header}\r\n").as_bytes()).await;
        let reply = connection.reply("GET").await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{header}{}", reply.text());
    }
    // The signed head, changed in one place.
    let head = String::from_utf8(put().signed()).unwrap();
    let without =
        |name: &str| -> String { head.split_inclusive("\r\n").filter(|line| !line.starts_with(name)).collect() };
    let cases = [
        (head.replace("PUT /bucket/key", "PUT /bucket/yek"), 403, "SignatureDoesNotMatch"),
        (head.replace("PUT /bucket/key", "PUT /bucket/key?prefix=a"), 403, "SignatureDoesNotMatch"),
        (head.replace("host: localhost", "host: elsewhere"), 403, "SignatureDoesNotMatch"),
        (without("x-amz-date"), 403, "AccessDenied"),
        (without("x-amz-content-sha256"), 400, "InvalidRequest"),
        (head.replace("Signature=", "Signature=zz"), 403, "SignatureDoesNotMatch"),
    ];
    for (bytes, status, code) in cases {
        let mut connection = house.connect().await;
        connection.write(bytes.as_bytes()).await;
        let reply = connection.reply("PUT").await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{bytes}{}", reply.text());
    }
    house.assert_empty().await;
}

#[tokio::test]
async fn regions_are_any_or_one() {
    let house = House::new().await;
    let elsewhere = || Request::new("GET", "/bucket").signer(|s| s.region = "eu-west-3".to_owned());
    house.expect(elsewhere(), 200).await;
    let strict = House::with(FrontOptions { enforce_region: true, ..FrontOptions::default() }).await;
    strict.refused(elsewhere(), 400, "AuthorizationHeaderMalformed").await;
    strict.expect(Request::new("GET", "/bucket"), 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presigned_urls() {
    let house = House::new().await;
    let ask = async |bytes: Vec<u8>, method: &'static str| {
        let mut connection = house.connect().await;
        connection.write(&bytes).await;
        connection.reply(method).await
    };
    // Browsers and urllib add a Content-Type that nobody signed: it is the object's, and no reason to refuse.
    let put =
        Request::put("/bucket/a b+c", "hello").unsigned("content-type", "text/x-unsigned").unsigned("accept", "*/*");
    let reply = ask(put.presigned(60), "PUT").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let get = Request::new("GET", "/bucket/a b+c").query("response-content-type", "text/html");
    let reply = ask(get.presigned(60), "GET").await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, b"hello".as_slice()), "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("text/html"));
    let head = ask(Request::new("HEAD", "/bucket/a b+c").presigned(60), "HEAD").await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/x-unsigned")));

    let old = Request::new("GET", "/bucket/a b+c").signer(|s| s.at -= Duration::minutes(30));
    assert_eq!(ask(old.presigned(3600), "GET").await.status, 200);
    let reply = ask(old.presigned(60), "GET").await;
    assert_eq!((reply.status, reply.code().as_str()), (403, "AccessDenied"));
    assert_eq!(reply.element("Message").as_deref(), Some("Request has expired"));
    let reply = ask(Request::new("GET", "/bucket/a b+c").presigned(8 * 24 * 3600), "GET").await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "AuthorizationQueryParametersError"));
    let tampered = String::from_utf8(get.presigned(60)).unwrap().replace("text%2Fhtml", "text%2Fplain");
    assert_eq!(ask(tampered.into_bytes(), "GET").await.code(), "SignatureDoesNotMatch");
    // An unsigned header that would make a copy of a PUT.
    let copy = Request::new("PUT", "/bucket/copy").unsigned("x-amz-copy-source", "bucket/a%20b%2Bc");
    assert_eq!(ask(copy.presigned(60), "PUT").await.code(), "AccessDenied");
    // A checksum that an SDK moved into the URL is still one.
    let put = |crc: &str| Request::put("/bucket/crc", "hello").query("x-amz-checksum-crc32", crc);
    assert_eq!(ask(put("AAAAAA==").presigned(60), "PUT").await.code(), "BadDigest");
    assert_eq!(ask(put("NhCmhg==").presigned(60), "PUT").await.status, 200);
    // A hash of the body, though the URL was signed without.
    let hashed = |of: &[u8]| Request::put("/bucket/hash", "hello").unsigned("x-amz-content-sha256", &sha256_hex(of));
    assert_eq!(ask(hashed(b"other").presigned(60), "PUT").await.code(), "XAmzContentSHA256Mismatch");
    assert_eq!(ask(hashed(b"hello").presigned(60), "PUT").await.status, 200);
    for key in ["a b+c", "crc", "hash"] {
        house.expect(Request::new("DELETE", &format!("/bucket/{key}")), 204).await;
    }
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test]
async fn virtual_hosts() {
    let base_domains = vec!["localhost".to_owned(), "s3.localhost".to_owned()];
    let house = House::with(FrontOptions { base_domains, ..FrontOptions::default() }).await;
    let at = |host: &str, request: Request| Request { host: host.to_owned(), ..request };
    house.expect(at("bucket.localhost:9000", Request::put("/key", "x")), 200).await;
    house.expect(at("bucket.s3.localhost", Request::new("GET", "/key")), 200).await;
    house.expect(at("127.0.0.1:1", Request::new("GET", "/bucket/key")), 200).await;
    house.expect(at("s3.localhost", Request::new("GET", "/bucket/key")), 200).await;
    let listing = house.expect(at("bucket.localhost", Request::new("GET", "/")), 200).await;
    assert_eq!(listing.elements("Key"), ["key"]);
    let buckets = house.expect(at("localhost", Request::new("GET", "/")), 200).await;
    assert_eq!(buckets.elements("Name"), [BUCKET]);
}
