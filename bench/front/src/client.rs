//! A client that costs little: requests are signed once, sent over kept connections, and every answer is checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use penstock_client::Credentials;
use penstock_client::sign::{Signer, ToSign, payload_hash};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Failure, OBJECT_BYTES};

/// Whom to ask, as whom.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) keys: (String, String),
}

const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The bytes of a signed request (AWS Signature Version 4, payload hash in the header).
fn signed(target: &Target, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let Target { address, keys: (access, secret) } = target;
    let hash = payload_hash(body);
    let to_sign = ToSign { method, host: address, path, query: "", headers: &[], payload_hash: &hash };
    let keys = Credentials::new(access.as_str(), secret.as_str());
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n");
    for (name, value) in Signer::new("us-east-1", "s3").sign(&to_sign, &keys, OffsetDateTime::now_utc()) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

/// Reads one answer with a Content-Length; gives its status and its body's length.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(u16, usize), Failure> {
    buffer.clear();
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = std::str::from_utf8(&buffer[..end])?.to_ascii_lowercase();
            let status = head.split(' ').nth(1).ok_or("a status line")?.parse()?;
            let length: usize = match head.split("\r\n").find_map(|line| line.strip_prefix("content-length:")) {
                Some(text) => text.trim().parse()?,
                None => 0,
            };
            let mut missing = (end + 4 + length).saturating_sub(buffer.len());
            while missing > 0 {
                let got = stream.read_buf(buffer).await?;
                if got == 0 {
                    return Err("the connection ended in the middle of an answer".into());
                }
                missing = missing.saturating_sub(got);
            }
            return Ok((status, length));
        }
        if buffer.len() > ANSWER_BYTES_MAX || stream.read_buf(buffer).await? == 0 {
            return Err("no answer came".into());
        }
    }
}

/// One request that must succeed.
pub(crate) async fn once(target: &Target, method: &str, path: &str, body: &[u8]) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(&target.address).await?;
    stream.write_all(&signed(target, method, path, body)).await?;
    match answer(&mut stream, &mut Vec::new()).await? {
        (200, _) => Ok(()),
        (status, _) => Err(format!("{method} {path} answers {status}").into()),
    }
}

/// `requests` GETs of the object over `connections` connections.
pub(crate) async fn load(target: &Target, requests: usize, connections: usize) -> Result<(), Failure> {
    let request = Arc::new(signed(target, "GET", "/bench/object", b""));
    let left = Arc::new(AtomicUsize::new(requests));
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let (request, left, address) = (request.clone(), left.clone(), target.address.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                let mut buffer = Vec::with_capacity(2 * OBJECT_BYTES);
                while left.try_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                    stream.write_all(&request).await?;
                    match answer(&mut stream, &mut buffer).await? {
                        (200, OBJECT_BYTES) => {}
                        (status, length) => return Err(format!("GET answers {status} with {length} bytes").into()),
                    }
                }
                Ok::<(), Failure>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    Ok(())
}
