//! TLS, the logs of requests, and limits on how many there may be.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use penstock_s3::{FrontOptions, ReloadingTls, TlsFiles};
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{ACCESS_KEY, Request};
use crate::house::{BUCKET, House};

/// A certificate for `localhost` in two files, and its DER.
fn write_certificate(folder: &Path) -> (TlsFiles, CertificateDer<'static>) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.certificate, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    (files, cert.der().clone())
}

/// What `bytes` is answered with, by a server that must show this certificate.
async fn over_tls(
    house: &House,
    trusted: CertificateDer<'static>,
    bytes: &[u8],
) -> Result<String, Box<dyn std::error::Error>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted)?;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(house.address).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn tls_is_served_and_plain_http_is_not_and_a_new_certificate_is_taken_up() {
    let folder = TempDir::new().unwrap();
    let (files, first) = write_certificate(folder.path());
    let house = House::with(FrontOptions { tls: Some(files.clone()), ..FrontOptions::default() }).await;
    let list = || Request::new("GET", &format!("/{BUCKET}")).header("connection", "close").signed();

    let answer = over_tls(&house, first.clone(), &list()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut plain = TcpStream::connect(house.address).await.unwrap();
    plain.write_all(&list()).await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "plain HTTP was answered");

    // Damage first: the certificate in use must stay so. Then a good pair, which the server finds by itself.
    std::fs::write(&files.key, "no key").unwrap();
    let tls = ReloadingTls::open(files.clone()).err().unwrap();
    assert!(tls.to_string().contains("key.pem"), "{tls}");
    let (_, second) = write_certificate(folder.path());
    for attempt in 0.. {
        match over_tls(&house, second.clone(), &list()).await {
            Ok(answer) => {
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                break;
            }
            Err(error) => assert!(attempt < 600, "the new certificate is not taken up: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(over_tls(&house, first, &list()).await.is_err(), "the old certificate is still shown");
}

#[tokio::test]
async fn both_logs_say_what_happened_and_nothing_secret() {
    let folder = TempDir::new().unwrap();
    let (access, audit) = (folder.path().join("access.log"), folder.path().join("audit.log"));
    let options =
        FrontOptions { access_log: Some(access.clone()), audit_log: Some(audit.clone()), ..FrontOptions::default() };
    let house = House::with(options).await;
    house.expect(Request::put(&format!("/{BUCKET}/a key"), b"abc".to_vec()), 200).await;
    house.expect(Request::new("GET", &format!("/{BUCKET}/a key")), 200).await;
    let mut connection = house.connect().await;
    let presigned = Request::new("GET", &format!("/{BUCKET}/a key")).presigned(60);
    connection.write(&presigned).await;
    assert_eq!(connection.reply("GET").await.status, 200);
    let mut forged = Request::new("GET", &format!("/{BUCKET}/a key"));
    forged.signer.secret_key.push('x');
    house.expect(forged, 403).await;
    drop(connection);
    house.shutdown.cancel();
    house.serving.await.unwrap().unwrap();

    let lines = std::fs::read_to_string(&access).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    assert!(
        lines[0].contains(&format!(" {BUCKET} [")) && lines[0].contains(" REST.PUT.OBJECT a%20key "),
        "{}",
        lines[0]
    );
    assert!(lines[1].contains(" REST.GET.OBJECT a%20key ") && lines[1].contains("\" 200 - 3 - "), "{}", lines[1]);
    assert!(lines[2].contains("QueryString") && lines[2].contains("X-Amz-Signature=REDACTED"), "{}", lines[2]);
    assert!(lines[3].contains(" 403 SignatureDoesNotMatch "), "{}", lines[3]);
    let audited = std::fs::read_to_string(&audit).unwrap();
    let audited: Vec<&str> = audited.lines().collect();
    assert_eq!(audited.len(), 2, "the PUT and the refusal: {audited:#?}");
    assert!(audited[0].contains("\"PutObject\"") && audited[0].contains(ACCESS_KEY), "{}", audited[0]);
    assert!(audited[1].contains("SignatureDoesNotMatch"), "{}", audited[1]);
}

#[tokio::test]
async fn an_access_key_that_asks_too_often_is_slowed_down() {
    let options = FrontOptions { requests_per_second_max: NonZeroU32::new(1), ..FrontOptions::default() };
    let house = House::with(options).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(house.send(Request::new("GET", &format!("/{BUCKET}"))).await);
    }
    assert_eq!(statuses[0].status, 200);
    let slowed = statuses.iter().find(|reply| reply.status == 503).expect("one of four at once is refused");
    assert_eq!(slowed.code(), "SlowDown");
    assert!(slowed.header("retry-after").is_some());
}
