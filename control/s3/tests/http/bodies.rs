//! Bodies in all their forms, and all the ways in which they are wrong: the right error, and nothing stored.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use penstock_digest::{ChecksumAlgorithm, ChecksumHasher, Md5Hasher};

use crate::client::{Request, sha256_hex};
use crate::house::{House, MIB};

const SIGNED: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const SIGNED_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
const UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn checksum(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> String {
    let mut hasher = ChecksumHasher::new(algorithm);
    hasher.update(bytes);
    STANDARD.encode(hasher.finish().as_bytes())
}

fn header_of(algorithm: ChecksumAlgorithm) -> String {
    format!("x-amz-checksum-{}", algorithm.name().to_lowercase())
}

/// `aws-chunked` framing, signed from `seed` on where there is one; trailers behind it.
fn chunked(
    request: &Request,
    data: &[u8],
    seed: Option<&str>,
    trailers: &[(&str, &str)],
    break_chunk: Option<usize>,
) -> Vec<u8> {
    let signer = &request.signer;
    let mut previous = seed.map(str::to_owned);
    let mut sign = |of: &[u8], kind: &str| -> Option<String> {
        let last = previous.clone()?;
        let of = sha256_hex(of);
        let empty = if kind == "TRAILER" { String::new() } else { format!("{}\n", sha256_hex(b"")) };
        let text = format!("AWS4-HMAC-SHA256-{kind}\n{}\n{}\n{last}\n{empty}{of}", signer.timestamp(), signer.scope());
        previous = Some(signer.sign(&text));
        previous.clone()
    };
    let mut framed = Vec::new();
    let chunks = data.chunks(64 << 10).chain(std::iter::once(&[][..]));
    for (number, chunk) in chunks.enumerate() {
        let mut line = format!("{:x}", chunk.len());
        if let Some(mut signature) = sign(chunk, "PAYLOAD") {
            if break_chunk == Some(number) {
                signature = signature.replace(|c: char| c != '0', "0");
            }
            write!(line, ";chunk-signature={signature}").unwrap();
        }
        framed.extend_from_slice(line.as_bytes());
        framed.extend_from_slice(b"\r\n");
        framed.extend_from_slice(chunk);
        if !chunk.is_empty() || trailers.is_empty() {
            framed.extend_from_slice(b"\r\n");
        }
    }
    let canonical: String = trailers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    for (name, value) in trailers {
        framed.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
    }
    if !trailers.is_empty() {
        if let Some(signature) = sign(canonical.as_bytes(), "TRAILER") {
            framed.extend_from_slice(format!("x-amz-trailer-signature:{signature}\r\n").as_bytes());
        }
        framed.extend_from_slice(b"\r\n");
    }
    framed
}

struct Streaming<'a> {
    mode: &'a str,
    data: &'a [u8],
    declared: usize,
    announced: Option<&'a str>,
    trailers: Vec<(&'a str, &'a str)>,
    break_chunk: Option<usize>,
    /// Frames as HTTP chunks instead of under a Content-Length.
    http_chunks: bool,
}

impl<'a> Streaming<'a> {
    fn new(mode: &'a str, data: &'a [u8]) -> Self {
        let trailers = Vec::new();
        Self { mode, data, declared: data.len(), announced: None, trailers, break_chunk: None, http_chunks: false }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut request = Request::new("PUT", "/bucket/key")
            .payload(self.mode)
            .header("content-encoding", "aws-chunked,gzip")
            .header("x-amz-decoded-content-length", &self.declared.to_string());
        if let Some(names) = self.announced {
            request = request.header("x-amz-trailer", names);
        }
        let signed = self.mode != UNSIGNED_TRAILER;
        // The framing is as long whatever the signatures are.
        let zeros = "0".repeat(64);
        let length = chunked(&request, self.data, signed.then_some(&zeros), &self.trailers, self.break_chunk).len();
        request = match self.http_chunks {
            true => request.unsigned("transfer-encoding", "chunked"),
            false => request.unsigned("content-length", &length.to_string()),
        };
        let (head, seed) = request.signed_head();
        let framed = chunked(&request, self.data, signed.then_some(&seed), &self.trailers, self.break_chunk);
        let mut bytes = head.into_bytes();
        if self.http_chunks {
            for piece in framed.chunks(10_007) {
                bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(&framed);
        }
        bytes
    }
}

async fn put_raw(house: &House, bytes: &[u8]) -> crate::client::Reply {
    let mut connection = house.connect().await;
    connection.write(bytes).await;
    connection.reply("PUT").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_send_a_body() {
    let house = House::new().await;
    for size in [0, 1, 65_536, 5 * MIB + 3] {
        let data = pattern(size);
        let crc = checksum(ChecksumAlgorithm::Crc64Nvme, &data);
        let trailers = vec![("x-amz-checksum-crc64nvme", crc.as_str())];
        let announced = Some("x-amz-checksum-crc64nvme");
        let forms = [
            Streaming::new(SIGNED, &data),
            Streaming { announced, trailers: trailers.clone(), ..Streaming::new(SIGNED_TRAILER, &data) },
            Streaming { announced, trailers: trailers.clone(), ..Streaming::new(UNSIGNED_TRAILER, &data) },
            // The AWS C++ SDK.
            Streaming { announced, trailers, http_chunks: true, ..Streaming::new(UNSIGNED_TRAILER, &data) },
        ];
        for form in forms {
            let reply = put_raw(&house, &form.bytes()).await;
            assert_eq!(reply.status, 200, "{} {size}: {}", form.mode, reply.text());
            assert_eq!(reply.header("x-amz-checksum-crc64nvme"), Some(crc.as_str()));
            let read = house.expect(Request::new("GET", "/bucket/key"), 200).await;
            assert!(read.body == data, "{} {size}", form.mode);
            assert_eq!(read.header("content-encoding"), Some("gzip"));
        }
        for request in [
            Request::put("/bucket/key", data.clone()),
            Request::put("/bucket/key", data.clone()).payload("UNSIGNED-PAYLOAD"),
        ] {
            house.expect(request, 200).await;
            assert!(house.expect(Request::new("GET", "/bucket/key"), 200).await.body == data);
        }
    }
    house.expect(Request::new("DELETE", "/bucket/key"), 204).await;
    house.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_wrong_store_nothing() {
    let house = House::new().await;
    for size in [10, 200_000, 5 * MIB] {
        let data = pattern(size);
        let crc = checksum(ChecksumAlgorithm::Crc32, &data);
        let wrong = checksum(ChecksumAlgorithm::Crc32, b"other");
        let announced = Some("x-amz-checksum-crc32");
        let good = vec![("x-amz-checksum-crc32", crc.as_str())];
        let unsigned = || Streaming { announced, trailers: good.clone(), ..Streaming::new(UNSIGNED_TRAILER, &data) };
        let signed = || Streaming { announced, trailers: good.clone(), ..Streaming::new(SIGNED_TRAILER, &data) };
        let cases = [
            (Streaming { break_chunk: Some(0), ..Streaming::new(SIGNED, &data) }, "SignatureDoesNotMatch"),
            (Streaming { break_chunk: Some(0), ..signed() }, "SignatureDoesNotMatch"),
            (Streaming { break_chunk: Some(data.chunks(64 << 10).count()), ..signed() }, "SignatureDoesNotMatch"),
            (Streaming { declared: size + 1, ..Streaming::new(SIGNED, &data) }, "IncompleteBody"),
            (Streaming { declared: size - 1, ..Streaming::new(SIGNED, &data) }, "IncompleteBody"),
            (Streaming { declared: size + 1, ..unsigned() }, "IncompleteBody"),
            (Streaming { declared: size - 1, ..unsigned() }, "IncompleteBody"),
            (Streaming { trailers: vec![("x-amz-checksum-crc32", &wrong)], ..unsigned() }, "BadDigest"),
            (Streaming { trailers: vec![("x-amz-checksum-crc32", &wrong)], ..signed() }, "BadDigest"),
            (Streaming { trailers: vec![("x-amz-checksum-crc32", "???")], ..unsigned() }, "InvalidRequest"),
            (Streaming { trailers: vec![], ..unsigned() }, "MalformedTrailerError"),
            (Streaming { trailers: vec![("x-amz-checksum-sha1", &crc)], ..unsigned() }, "MalformedTrailerError"),
            (Streaming { announced: Some("x-amz-checksum-crc16"), ..unsigned() }, "InvalidRequest"),
            (Streaming { announced: Some("x-amz-meta-late"), ..unsigned() }, "NotImplemented"),
        ];
        for (number, (form, code)) in cases.into_iter().enumerate() {
            let reply = put_raw(&house, &form.bytes()).await;
            assert_eq!(reply.code(), code, "case {number}, {size} bytes: {} {}", reply.status, reply.text());
        }
    }
    house.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digests_that_are_wrong_store_nothing() {
    let house = House::new().await;
    for size in [0, 10, 5 * MIB] {
        let data = pattern(size);
        let put = || Request::put("/bucket/key", data.clone());
        house.refused(put().payload(&sha256_hex(b"other")), 400, "XAmzContentSHA256Mismatch").await;
        house.refused(put().header("content-md5", &STANDARD.encode(Md5Hasher::of(b"x"))), 400, "BadDigest").await;
        for algorithm in ChecksumAlgorithm::ALL {
            let header = header_of(algorithm);
            house.refused(put().header(&header, &checksum(algorithm, b"x")), 400, "BadDigest").await;
        }
    }
    let put = || Request::put("/bucket/key", "hello");
    house.refused(put().header("content-md5", "short"), 400, "InvalidDigest").await;
    house.refused(put().header("content-md5", ""), 400, "InvalidDigest").await;
    house.refused(put().header("content-md5", "YWJj"), 400, "InvalidDigest").await;
    house.refused(put().header("x-amz-checksum-crc32", "YWJj"), 400, "InvalidRequest").await;
    house.refused(put().header("x-amz-checksum-crc32", ""), 400, "InvalidRequest").await;
    let two = put()
        .header("x-amz-checksum-crc32", &checksum(ChecksumAlgorithm::Crc32, b"hello"))
        .header("x-amz-checksum-sha1", &checksum(ChecksumAlgorithm::Sha1, b"hello"));
    house.refused(two, 400, "InvalidRequest").await;
    let other = put()
        .header("x-amz-checksum-crc32", &checksum(ChecksumAlgorithm::Crc32, b"hello"))
        .header("x-amz-sdk-checksum-algorithm", "SHA256");
    house.refused(other, 400, "InvalidRequest").await;
    house.refused(put().header("x-amz-sdk-checksum-algorithm", "ROT13"), 400, "InvalidRequest").await;
    house.assert_empty().await;

    for algorithm in ChecksumAlgorithm::ALL {
        let (header, value) = (header_of(algorithm), checksum(algorithm, b"hello"));
        let stated = house.expect(put().header(&header, &value), 200).await;
        let computed = house.expect(put().header("x-amz-sdk-checksum-algorithm", algorithm.name()), 200).await;
        for reply in [stated, computed] {
            assert_eq!(reply.header(&header), Some(value.as_str()));
            assert_eq!(reply.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
        }
        for method in ["HEAD", "GET"] {
            let read = Request::new(method, "/bucket/key");
            let silent = house.expect(read.clone(), 200).await;
            assert_eq!(silent.header(&header), None);
            let told = house.expect(read.clone().header("x-amz-checksum-mode", "ENABLED"), 200).await;
            assert_eq!(told.header(&header), Some(value.as_str()));
            // An SDK would hold a range against the checksum of the whole.
            let part = read.header("x-amz-checksum-mode", "ENABLED").header("range", "bytes=0-1");
            assert_eq!(house.expect(part, 206).await.header(&header), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_that_are_wrong_store_nothing() {
    let house = House::new().await;
    let data = pattern(5 * MIB);
    // Shorter than declared, and the client is gone.
    for payload in [None, Some("UNSIGNED-PAYLOAD")] {
        let mut request = Request::new("PUT", "/bucket/key").unsigned("content-length", &(data.len() + 1).to_string());
        request.payload = payload.map(str::to_owned);
        let mut bytes = request.signed();
        bytes.extend_from_slice(&data);
        let mut connection = house.connect().await;
        connection.write(&bytes).await;
        connection.end().await;
        if let Some(reply) = connection.head().await {
            assert_eq!(reply.status, 400);
        }
    }
    // Shorter, and the client breaks off in the middle.
    let request =
        Request::new("PUT", "/bucket/key").payload("UNSIGNED-PAYLOAD").unsigned("content-length", "100000000");
    let mut bytes = request.signed();
    bytes.extend_from_slice(&data);
    let mut connection = house.connect().await;
    connection.write(&bytes).await;
    drop(connection);
    // No length at all, more than can be, and what is none.
    let bare =
        |name: &str, value: &str| Request::new("PUT", "/bucket/key").payload("UNSIGNED-PAYLOAD").unsigned(name, value);
    let mut connection = house.connect().await;
    connection.write(&bare("transfer-encoding", "chunked").signed()).await;
    connection.write(b"5\r\nhello\r\n0\r\n\r\n").await;
    let reply = connection.reply("PUT").await;
    assert_eq!((reply.status, reply.code().as_str()), (411, "MissingContentLength"));
    let mut connection = house.connect().await;
    connection.write(&bare("content-length", &((5_u64 << 30) + 1).to_string()).signed()).await;
    let reply = connection.reply("PUT").await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "EntityTooLarge"));
    for nonsense in ["-1", "1e3", "x"] {
        let mut connection = house.connect().await;
        connection.write(&bare("content-length", nonsense).signed()).await;
        assert_eq!(connection.reply("PUT").await.status, 400);
    }
    // More than declared is the next request, and no good one.
    let mut connection = house.connect().await;
    let mut bytes = Request::put("/bucket/good", "hello").signed();
    bytes.extend_from_slice(b" and more\r\n\r\n");
    connection.write(&bytes).await;
    assert_eq!(connection.reply("PUT").await.status, 200);
    assert_eq!(connection.reply("PUT").await.status, 400);
    assert_eq!(house.expect(Request::new("GET", "/bucket/good"), 200).await.body, b"hello");
    house.expect(Request::new("DELETE", "/bucket/good"), 204).await;
    house.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_are_wrong() {
    let house = House::new().await;
    house.expect(Request::put("/bucket/key", "x"), 200).await;
    let delete = |body: &str| Request::new("POST", "/bucket").query("delete", "").body(body);
    for document in [
        "",
        "not xml",
        "<Delete>",
        "<Delete></Delete>",
        "<Delete><Object><Key>key</Key></Object>",
        "<Delete><Object><Key><![CDATA[key]]></Key></Object></Delete>",
        "<!DOCTYPE d [<!ENTITY k \"key\">]><Delete><Object><Key>&k;</Key></Object></Delete>",
        "<Other><Object><Key>key</Key></Object></Other>",
    ] {
        house.refused(delete(document), 400, "MalformedXML").await;
    }
    let many = format!("<Delete>{}</Delete>", "<Object><Key>key</Key></Object>".repeat(1001));
    house.refused(delete(&many), 400, "MalformedXML").await;
    let good = "<Delete><Object><Key>key</Key></Object></Delete>";
    house.refused(delete(good).payload(&sha256_hex(b"other")), 400, "XAmzContentSHA256Mismatch").await;
    house.refused(delete(good).header("content-md5", &STANDARD.encode(Md5Hasher::of(b"x"))), 400, "BadDigest").await;
    let crc = checksum(ChecksumAlgorithm::Crc32, b"x");
    house.refused(delete(good).header("x-amz-checksum-crc32", &crc), 400, "BadDigest").await;
    house.refused(delete(&format!("<Delete>{}</Delete>", " ".repeat(5 << 20))), 400, "MaxMessageLengthExceeded").await;
    let location = |body: &str| Request::put("/new-bucket", body);
    house.refused(location("<CreateBucketConfiguration>"), 400, "MalformedXML").await;
    let tagged = "<CreateBucketConfiguration><Tags><Tag><Key>aws:a</Key><Value>b</Value></Tag></Tags></CreateBucketConfiguration>";
    house.refused(location(tagged), 400, "InvalidTag").await;
    house.refused(Request::new("HEAD", "/new-bucket"), 404, "").await;
    house.expect(Request::new("GET", "/bucket/key"), 200).await;
    let right = STANDARD.encode(Md5Hasher::of(good.as_bytes()));
    house.expect(delete(good).header("content-md5", &right), 200).await;
    house.assert_empty().await;
}
