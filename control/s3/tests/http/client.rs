//! A client that signs for itself and says exactly the bytes it is told to.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const ACCESS_KEY: &str = "AKIDPENSTOCKTEST";
/// Another key, with the same secret.
pub(crate) const OTHER_ACCESS_KEY: &str = "AKIDSOMEBODYELSE";
pub(crate) const SECRET_KEY: &str = "secret/of+the/test";
/// A test that waits for an answer longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

pub(crate) fn encode(text: &str, keep_slash: bool) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            b'/' if keep_slash => encoded.push('/'),
            _ => write!(encoded, "%{byte:02X}").unwrap(),
        }
    }
    encoded
}

/// Who signs, when and for what.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) region: String,
    pub(crate) service: String,
    pub(crate) at: OffsetDateTime,
}

impl Signer {
    pub(crate) fn now() -> Self {
        Self {
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            region: "us-east-1".to_owned(),
            service: "s3".to_owned(),
            at: SystemTime::now().into(),
        }
    }

    pub(crate) fn timestamp(&self) -> String {
        self.at.format(format_description!("[year][month][day]T[hour][minute][second]Z")).unwrap()
    }

    pub(crate) fn scope(&self) -> String {
        format!("{}/{}/{}/aws4_request", &self.timestamp()[..8], self.region, self.service)
    }

    pub(crate) fn sign(&self, string_to_sign: &str) -> String {
        let mut key = hmac(format!("AWS4{}", self.secret_key).as_bytes(), &self.timestamp()[..8]);
        for part in [self.region.as_str(), self.service.as_str(), "aws4_request"] {
            key = hmac(&key, part);
        }
        hex::encode(hmac(&key, string_to_sign))
    }
}

/// A request to be signed.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Encoded.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(String, String)>,
    /// Sent, but not signed.
    pub(crate) unsigned: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// `x-amz-content-sha256`, when it is not the body's.
    pub(crate) payload: Option<String>,
    pub(crate) host: String,
    pub(crate) signer: Signer,
}

impl Request {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: encode(path, true),
            query: Vec::new(),
            headers: Vec::new(),
            unsigned: Vec::new(),
            body: Vec::new(),
            payload: None,
            host: "localhost".to_owned(),
            signer: Signer::now(),
        }
    }

    pub(crate) fn put(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("PUT", path).body(body)
    }

    pub(crate) fn query(mut self, key: &str, value: &str) -> Self {
        self.query.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn unsigned(mut self, name: &str, value: &str) -> Self {
        self.unsigned.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn payload(mut self, payload: &str) -> Self {
        self.payload = Some(payload.to_owned());
        self
    }

    pub(crate) fn signer(mut self, change: impl FnOnce(&mut Signer)) -> Self {
        change(&mut self.signer);
        self
    }

    fn target(&self) -> String {
        match self.query.is_empty() {
            true => self.path.clone(),
            false => format!("{}?{}", self.path, self.canonical_query()),
        }
    }

    fn canonical_query(&self) -> String {
        // Sorted by name, then value: "select" stands before "select-type", though '-' sorts before '='.
        let mut pairs: Vec<(String, String)> =
            self.query.iter().map(|(key, value)| (encode(key, false), encode(value, false))).collect();
        pairs.sort();
        pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&")
    }

    /// The signature of the request with these headers.
    fn signature(&self, headers: &[(String, String)], payload: &str) -> (String, String) {
        let mut lower: Vec<(String, String)> =
            headers.iter().map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
        lower.sort();
        let names: Vec<&str> = lower.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let canonical: String = lower.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let request =
            format!("{}\n{}\n{}\n{canonical}\n{names}\n{payload}", self.method, self.path, self.canonical_query());
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{}\n{}\n{}",
            self.signer.timestamp(),
            self.signer.scope(),
            sha256_hex(request.as_bytes())
        );
        (names, self.signer.sign(&to_sign))
    }

    /// Its head, and the signature that chunks of the body go on from.
    pub(crate) fn signed_head(&self) -> (String, String) {
        let payload = self.payload.clone().unwrap_or_else(|| sha256_hex(&self.body));
        let mut headers = self.headers.clone();
        headers.push(("host".to_owned(), self.host.clone()));
        headers.push(("x-amz-date".to_owned(), self.signer.timestamp()));
        headers.push(("x-amz-content-sha256".to_owned(), payload.clone()));
        let (names, signature) = self.signature(&headers, &payload);
        let credential = format!("{}/{}", self.signer.access_key, self.signer.scope());
        headers.push((
            "authorization".to_owned(),
            format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"),
        ));
        headers.extend(self.unsigned.iter().cloned());
        (self.head(&headers), signature)
    }

    fn head(&self, headers: &[(String, String)]) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target());
        let says_length = |(name, _): &(String, String)| {
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
        };
        if !headers.iter().any(says_length)
            && (!self.body.is_empty() || ["PUT", "POST"].contains(&self.method.as_str()))
        {
            write!(head, "content-length: {}\r\n", self.body.len()).unwrap();
        }
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        head + "\r\n"
    }

    /// All of it, signed in headers.
    pub(crate) fn signed(&self) -> Vec<u8> {
        let mut bytes = self.signed_head().0.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// All of it, unsigned.
    pub(crate) fn anonymous(&self) -> Vec<u8> {
        let mut headers = self.headers.clone();
        headers.push(("host".to_owned(), self.host.clone()));
        headers.extend(self.unsigned.iter().cloned());
        let mut bytes = self.head(&headers).into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// All of it, signed in the query.
    pub(crate) fn presigned(&self, expires_s: u64) -> Vec<u8> {
        let mut request = self.clone();
        let mut headers = self.headers.clone();
        headers.push(("host".to_owned(), self.host.clone()));
        let mut names: Vec<String> = headers.iter().map(|(name, _)| name.to_lowercase()).collect();
        names.sort();
        request.query.extend(
            [
                ("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()),
                ("X-Amz-Credential", format!("{}/{}", self.signer.access_key, self.signer.scope())),
                ("X-Amz-Date", self.signer.timestamp()),
                ("X-Amz-Expires", expires_s.to_string()),
                ("X-Amz-SignedHeaders", names.join(";")),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        let (_, signature) = request.signature(&headers, "UNSIGNED-PAYLOAD");
        request.query.push(("X-Amz-Signature".to_owned(), signature));
        headers.extend(self.unsigned.iter().cloned());
        let mut bytes = request.head(&headers).into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The text of the first element of this name, as it stands there.
    pub(crate) fn element(&self, name: &str) -> Option<String> {
        let text = self.text();
        let start = text.find(&format!("<{name}>"))? + name.len() + 2;
        let length = text[start..].find(&format!("</{name}>"))?;
        Some(text[start..start + length].to_owned())
    }

    /// The texts of all elements of this name.
    pub(crate) fn elements(&self, name: &str) -> Vec<String> {
        let text = self.text();
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        text.split(&open).skip(1).filter_map(|rest| rest.split_once(&close)).map(|(text, _)| text.to_owned()).collect()
    }

    pub(crate) fn code(&self) -> String {
        self.element("Code").unwrap_or_default()
    }
}

/// A connection that is read and written by hand.
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Writes what the other side will take; what it does not is its answer's matter.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Says that nothing more will come.
    pub(crate) async fn end(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    async fn more(&mut self) -> bool {
        let mut buffer = vec![0; 64 << 10];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("an answer in time");
        match read {
            Ok(0) | Err(_) => false,
            Ok(bytes) => {
                self.read.extend_from_slice(&buffer[..bytes]);
                true
            }
        }
    }

    /// The head of the next answer, `100 Continue` included.
    pub(crate) async fn head(&mut self) -> Option<Reply> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Reply { status, headers, body: Vec::new() })
    }

    /// The next answer to a request of this method.
    pub(crate) async fn reply(&mut self, method: &str) -> Reply {
        let mut reply = loop {
            let head = self.head().await.expect("an answer before the connection ends");
            if head.status != 100 {
                break head;
            }
        };
        if method == "HEAD" || reply.status == 304 || reply.status == 204 {
            return reply;
        }
        if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                while !self.read.windows(2).any(|window| window == b"\r\n") {
                    assert!(self.more().await, "the answer ends");
                }
                let end = self.read.windows(2).position(|window| window == b"\r\n").unwrap();
                let size = String::from_utf8(self.read.drain(..end + 2).collect()).unwrap();
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                while self.read.len() < size + 2 {
                    assert!(self.more().await, "the answer ends");
                }
                reply.body.extend(self.read.drain(..size));
                self.read.drain(..2);
                if size == 0 {
                    return reply;
                }
            }
        }
        let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            if !self.more().await {
                break;
            }
        }
        reply.body = self.read.drain(..length.min(self.read.len())).collect();
        reply
    }

    /// Whether the other side has closed the connection. Waits for that.
    pub(crate) async fn is_closed(&mut self) -> bool {
        while self.more().await {}
        self.read.is_empty()
    }
}
