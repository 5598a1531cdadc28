//! Connections to the server: kept when idle, bounded in number.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::{Broken, Connection};
use crate::error::ClientError;
use crate::options::{ClientOptions, Endpoint};

/// An idle connection older than this is not used again: less than any server's idle timeout.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Where systems keep their certificate authorities.
const CA_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The connections of one client.
pub(crate) struct Pool {
    endpoint: Endpoint,
    tls: Option<TlsConnector>,
    connect_timeout: Duration,
    silence_timeout: Duration,
    places: Arc<Semaphore>,
    idle: Mutex<HashMap<String, Vec<(Connection, Instant)>>>,
}

/// A connection and its place among the bounded number.
pub(crate) struct Pooled {
    pub(crate) connection: Connection,
    host: String,
    /// Whether it was used before: it may have died meanwhile.
    pub(crate) kept: bool,
    _place: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(endpoint: Endpoint, options: &ClientOptions) -> Result<Self, ClientError> {
        let tls = if endpoint.tls { Some(connector(options.ca_file.as_deref())?) } else { None };
        Ok(Self {
            endpoint,
            tls,
            connect_timeout: options.connect_timeout,
            silence_timeout: options.silence_timeout,
            places: Arc::new(Semaphore::new(options.connections_max.max(1))),
            idle: Mutex::default(),
        })
    }

    /// A connection to `host`: a kept one, or (always with `fresh`) a new one.
    pub(crate) async fn take(&self, host: &str, fresh: bool) -> Result<Pooled, Broken> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(Broken::gone)?;
        let host = host.to_owned();
        if !fresh {
            let mut idle = self.idle.lock();
            if let Some(kept) = idle.get_mut(&host) {
                kept.retain(|(_, since)| since.elapsed() < IDLE_MAX);
                if let Some((connection, _)) = kept.pop() {
                    return Ok(Pooled { connection, host, kept: true, _place: place });
                }
            }
        }
        let connection = match timeout(self.connect_timeout, self.connect(&host)).await {
            Ok(connection) => connection?,
            Err(_elapsed) => {
                let reason = format!("no connection within {} s", self.connect_timeout.as_secs_f64());
                return Err(Broken::gone(reason));
            }
        };
        Ok(Pooled { connection, host, kept: false, _place: place })
    }

    /// Connections to `host` that wait for something to do.
    pub(crate) fn idle(&self, host: &str) -> usize {
        let mut idle = self.idle.lock();
        idle.get_mut(host).map_or(0, |kept| {
            kept.retain(|(_, since)| since.elapsed() < IDLE_MAX);
            kept.len()
        })
    }

    /// Whether another connection may be taken without waiting for one.
    pub(crate) fn has_room(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// Takes a connection back, when another exchange may follow on it.
    pub(crate) fn give_back(&self, pooled: Pooled) {
        if pooled.connection.is_reusable() {
            self.idle.lock().entry(pooled.host).or_default().push((pooled.connection, Instant::now()));
        }
    }

    async fn connect(&self, host: &str) -> Result<Connection, Broken> {
        let bare = host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((bare, self.endpoint.port)).await.map_err(Broken::gone)?;
        stream.set_nodelay(true).map_err(Broken::gone)?;
        let Some(tls) = &self.tls else { return Ok(Connection::plain(stream, self.silence_timeout)) };
        let name = ServerName::try_from(bare.to_owned()).map_err(Broken::protocol)?;
        let stream = tls.connect(name, stream).await.map_err(Broken::gone)?;
        Ok(Connection::tls(stream, self.silence_timeout))
    }
}

fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, ClientError> {
    let wrong = |what: String| ClientError::Configuration(format!("certificate authorities: {what}"));
    let path = match ca_file {
        Some(path) => path,
        None => CA_FILES
            .iter()
            .map(Path::new)
            .find(|path| path.exists())
            .ok_or_else(|| wrong("the system has none where they are looked for; name a PEM file".to_owned()))?,
    };
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    let mut roots = rustls::RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    if added == 0 {
        return Err(wrong(format!("{} has no certificate", path.display())));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
