//! Multipart uploads.

use crate::client::{Reply, Request};
use crate::house::{House, MIB};

const KEY: &str = "/bucket/key";

async fn begin(house: &House, request: Request) -> String {
    house.expect(request.query("uploads", ""), 200).await.element("UploadId").unwrap()
}

fn part(upload: &str, number: u32, body: Vec<u8>) -> Request {
    Request::put(KEY, body).query("uploadId", upload).query("partNumber", &number.to_string())
}

fn complete(upload: &str, parts: &[(u32, &str)]) -> Request {
    let parts: String = parts
        .iter()
        .map(|(number, etag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"))
        .collect();
    let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    Request::new("POST", KEY).query("uploadId", upload).body(body)
}

fn etag(reply: &Reply) -> String {
    reply.header("etag").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_become_an_object() {
    let house = House::new().await;
    let begin_request = Request::new("POST", KEY)
        .header("content-type", "x/y")
        .header("x-amz-meta-m", "1")
        .header("x-amz-checksum-algorithm", "CRC32");
    let begun = house.expect(begin_request.query("uploads", ""), 200).await;
    assert_eq!(begun.header("x-amz-checksum-type"), Some("COMPOSITE"));
    let upload = begun.element("UploadId").unwrap();
    let listed = house.expect(Request::new("GET", "/bucket").query("uploads", ""), 200).await;
    assert_eq!(listed.elements("UploadId"), std::slice::from_ref(&upload));
    let body = |number: u32| vec![number as u8; if number == 3 { 7 } else { 5 * MIB }];
    let mut etags = Vec::new();
    for number in [3, 1, 2] {
        let request = part(&upload, number, body(number)).header("x-amz-sdk-checksum-algorithm", "CRC32");
        let reply = house.expect(request, 200).await;
        assert!(reply.header("x-amz-checksum-crc32").is_some());
        etags.push((number, etag(&reply)));
    }
    etags.sort();
    let page = Request::new("GET", KEY).query("uploadId", &upload).query("max-parts", "2");
    let page = house.expect(page, 200).await;
    assert_eq!(page.elements("PartNumber"), ["1", "2"]);
    assert_eq!(
        (page.element("IsTruncated").as_deref(), page.element("NextPartNumberMarker").as_deref()),
        (Some("true"), Some("2"))
    );
    assert_eq!(page.elements("ChecksumCRC32").len(), 2);
    let parts: Vec<(u32, &str)> = etags.iter().map(|(number, etag)| (*number, etag.as_str())).collect();
    let done = house.expect(complete(&upload, &parts), 200).await;
    assert_eq!(done.element("Location").as_deref(), Some("http://localhost/bucket/key"));
    assert!(done.element("ETag").unwrap().ends_with("-3&quot;"));
    assert!(done.element("ChecksumCRC32").unwrap().ends_with("-3"));
    // Once more, as clients do that lost the answer.
    let again = house.expect(complete(&upload, &parts), 200).await;
    assert_eq!(again.element("ETag"), done.element("ETag"));
    let read = house.expect(Request::new("GET", KEY), 200).await;
    assert!(read.body == [body(1), body(2), body(3)].concat());
    assert_eq!((read.header("content-type"), read.header("x-amz-meta-m")), (Some("x/y"), Some("1")));
    let second = house.expect(Request::new("GET", KEY).query("partNumber", "2"), 206).await;
    assert!(second.body == body(2));
    assert_eq!(second.header("x-amz-mp-parts-count"), Some("3"));
    house.refused(Request::new("GET", KEY).query("partNumber", "4"), 416, "InvalidPartNumber").await;
    let both = Request::new("GET", KEY).query("partNumber", "1").header("range", "bytes=0-1");
    house.refused(both, 400, "InvalidRequest").await;
    house.expect(Request::new("DELETE", KEY), 204).await;
    house.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn part_lists_that_are_wrong() {
    let house = House::new().await;
    let upload = begin(&house, Request::new("POST", KEY)).await;
    let one = etag(&house.expect(part(&upload, 1, vec![1; 5 * MIB]), 200).await);
    let two = etag(&house.expect(part(&upload, 2, vec![2; 9]), 200).await);
    let three = etag(&house.expect(part(&upload, 3, vec![3; 9]), 200).await);
    house.refused(complete(&upload, &[]), 400, "MalformedXML").await;
    house.refused(Request::new("POST", KEY).query("uploadId", &upload), 400, "MalformedXML").await;
    house.refused(complete(&upload, &[(2, &two), (1, &one)]), 400, "InvalidPartOrder").await;
    house.refused(complete(&upload, &[(1, &one), (1, &one)]), 400, "InvalidPartOrder").await;
    house.refused(complete(&upload, &[(0, &one)]), 400, "InvalidArgument").await;
    house.refused(complete(&upload, &[(10_001, &one)]), 400, "InvalidArgument").await;
    house.refused(complete(&upload, &[(1, &one), (4, &two)]), 400, "InvalidPart").await;
    house.refused(complete(&upload, &[(1, &two)]), 400, "InvalidPart").await;
    house.refused(complete(&upload, &[(1, &one), (2, &two), (3, &three)]), 400, "EntityTooSmall").await;
    let size = complete(&upload, &[(1, &one), (3, &three)]).header("x-amz-mp-object-size", "7");
    house.refused(size, 400, "InvalidRequest").await;
    let kind = complete(&upload, &[(1, &one)]).header("x-amz-checksum-type", "COMPOSITE");
    house.refused(kind, 400, "InvalidRequest").await;
    house.refused(Request::new("HEAD", KEY), 404, "").await;
    for (number, body) in [("0", "x"), ("10001", "x"), ("-1", "x")] {
        let request = Request::put(KEY, body).query("uploadId", &upload).query("partNumber", number);
        house.refused(request, 400, "InvalidArgument").await;
    }
    let unknown = "nosuchupload";
    house.refused(part(unknown, 1, vec![1]), 404, "NoSuchUpload").await;
    house.refused(complete(unknown, &[(1, &one)]), 404, "NoSuchUpload").await;
    house.refused(Request::new("GET", KEY).query("uploadId", unknown), 404, "NoSuchUpload").await;
    house.refused(Request::new("DELETE", KEY).query("uploadId", unknown), 404, "NoSuchUpload").await;
    house.refused(Request::new("DELETE", "/bucket"), 409, "BucketNotEmpty").await;
    house.expect(Request::new("DELETE", KEY).query("uploadId", &upload), 204).await;
    house.refused(part(&upload, 1, vec![1]), 404, "NoSuchUpload").await;
    for (algorithm, kind) in [("SHA256", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE"), ("CRC32", "OTHER")] {
        let request = Request::new("POST", KEY)
            .header("x-amz-checksum-algorithm", algorithm)
            .header("x-amz-checksum-type", kind)
            .query("uploads", "");
        house.refused(request, 400, "InvalidRequest").await;
    }
    house.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_copied() {
    let house = House::new().await;
    let data: Vec<u8> = (0..6 * MIB).map(|at| (at % 253) as u8).collect();
    house.expect(Request::put("/bucket/source", data.clone()), 200).await;
    let upload = begin(&house, Request::new("POST", KEY)).await;
    let copy = |number: &str| {
        Request::new("PUT", KEY)
            .query("uploadId", &upload)
            .query("partNumber", number)
            .header("x-amz-copy-source", "bucket/source")
    };
    let whole = house.expect(copy("1"), 200).await.element("ETag").unwrap();
    let some = copy("2").header("x-amz-copy-source-range", "bytes=5-9");
    let some = house.expect(some, 200).await.element("ETag").unwrap();
    for range in ["bytes=5-", "bytes=-5", "5-9", "bytes=9-5"] {
        house.refused(copy("3").header("x-amz-copy-source-range", range), 400, "InvalidArgument").await;
    }
    house.refused(copy("3").header("x-amz-copy-source-if-match", "\"x\""), 412, "PreconditionFailed").await;
    house.expect(complete(&upload, &[(1, &whole), (2, &some)]), 200).await;
    let read = house.expect(Request::new("GET", KEY), 200).await;
    assert!(read.body == [&data[..], &data[5..10]].concat());
}
