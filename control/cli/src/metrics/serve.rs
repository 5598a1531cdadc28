//! The listener: `GET /metrics`, plain HTTP/1.1, one answer a request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::{Metrics, text};
use crate::Fatal;

/// Connections at a time; others wait.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may last: a scrape takes milliseconds.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after `accept` failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is dropped.
pub(crate) struct Serving {
    #[cfg_attr(not(test), allow(dead_code, reason = "tests ask where it listens"))]
    pub(crate) address: Option<SocketAddr>,
    _task: Option<AbortOnDropHandle<()>>,
}

impl Metrics {
    /// Serves metrics at `address`, if there is one.
    ///
    /// # Errors
    /// An address that can't be had.
    pub(crate) async fn serve(self, address: Option<SocketAddr>) -> Result<Serving, Fatal> {
        let Some(address) = address else { return Ok(Serving { address: None, _task: None }) };
        let doing = format!("listening on {address} for metrics");
        let listener = TcpListener::bind(address).await.map_err(|error| Fatal::doing(&doing, error))?;
        let address = listener.local_addr().map_err(|error| Fatal::doing(&doing, error))?;
        tracing::info!(%address, "metrics are served at /metrics");
        let task = AbortOnDropHandle::new(tokio::spawn(accept(Arc::new(self), listener)));
        Ok(Serving { address: Some(address), _task: Some(task) })
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let plain = |status: StatusCode, body: String| {
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = status;
            response
        };
        if request.uri().path() != "/metrics" {
            return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n".to_owned());
        }
        if request.method() != Method::GET {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "GET, please\n".to_owned());
        }
        match text(&self.collect()) {
            Ok(body) => {
                let mut response = plain(StatusCode::OK, body);
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
                response
            }
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

async fn accept(metrics: Arc<Metrics>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics can't be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = metrics.answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let serving =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            // Whoever goes away or takes too long has had what there was.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serving).await;
            drop(place);
        });
    }
}
