//! TLS for the front: certificates from PEM files, taken up again when the files change.
//!
//! **What.** [`ReloadingTls`] hands out a rustls configuration; a task looks at the files every
//! [`RELOAD_INTERVAL`] and takes a changed pair into use for new connections. TLS 1.2 and 1.3, with rustls's defaults
//! for suites; the only protocol offered by ALPN is HTTP/1.1.
//!
//! **How it fails.** A pair that can't be used at the start is an error that names the file. Later, a pair that can't be
//! used (half written, key of another certificate) is logged, once for each content, and the one in use stays in use.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::RwLock;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Where the certificate chain and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's certificate first, then those that lead to a root.
    pub certificate: PathBuf,
    /// PEM: the key (PKCS#8, PKCS#1 or SEC1), not encrypted.
    pub key: PathBuf,
}

/// A certificate that follows its files.
#[derive(Clone)]
pub struct ReloadingTls {
    files: TlsFiles,
    current: Arc<Current>,
    config: Arc<rustls::ServerConfig>,
}

struct Current(RwLock<Arc<CertifiedKey>>);

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Current(..)")
    }
}

impl Current {
    fn get(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn set(&self, pair: CertifiedKey) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(pair);
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

/// What tells one state of the files from the next.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl ReloadingTls {
    /// Reads the files.
    ///
    /// # Errors
    /// `InvalidInput` that names the file and says what is wrong with it.
    pub fn open(files: TlsFiles) -> io::Result<Self> {
        let current = Arc::new(Current(RwLock::new(Arc::new(read_pair(&files)?))));
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?
                .with_no_client_auth()
                .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { files, current, config: Arc::new(config) })
    }

    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        self.config.clone().into()
    }

    /// Takes changed files into use until `stop` is cancelled.
    pub(crate) async fn follow(self, stop: CancellationToken) {
        let mut seen = self.stamp();
        loop {
            tokio::select! {
                () = tokio::time::sleep(RELOAD_INTERVAL) => {}
                () = stop.cancelled() => return,
            }
            let now = self.stamp();
            if now != seen {
                seen = now;
                match self.reload() {
                    Ok(()) => {
                        tracing::info!(certificate = %self.files.certificate.display(), "a new certificate is in use")
                    }
                    Err(error) => {
                        tracing::error!(%error, "the changed certificate can't be used; the one before stays in use")
                    }
                }
            }
        }
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// As [`ReloadingTls::open`]; what is in use stays so.
    pub fn reload(&self) -> io::Result<()> {
        self.current.set(read_pair(&self.files)?);
        Ok(())
    }

    fn stamp(&self) -> Stamp {
        [&self.files.certificate, &self.files.key].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }
}

fn read_pair(files: &TlsFiles) -> io::Result<CertifiedKey> {
    let wrong = |path: &Path, what: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {what}", path.display()))
    };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(&files.certificate, &format!("no certificate chain in PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(wrong(
            &files.certificate,
            &"there is no certificate in it: give the chain in PEM, the server's first",
        ));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| wrong(&files.key, &format!("no private key in PEM: {error}")))?;
    let pair = CertifiedKey::from_der(certificates, key, &rustls::crypto::ring::default_provider())
        .map_err(|error| wrong(&files.key, &format!("it does not go with {}: {error}", files.certificate.display())))?;
    Ok(pair)
}
