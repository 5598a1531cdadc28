//! A webhook: each event is a POST, any 2xx confirms it. Redirects are not followed.

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::config::WebhookConfig;
use crate::target::{Message, SendError, Target};

/// Bytes of an answer that are read, so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 << 10;

pub(crate) struct Webhook {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    authorization: Option<HeaderValue>,
}

impl Webhook {
    pub(crate) fn new(config: &WebhookConfig) -> Result<Self, String> {
        let url: Uri = config.url.parse().map_err(|error| format!("{:?} is no URL: {error}", config.url))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() {
            return Err(format!("{:?} is no URL of a webhook: write http:// or https://", config.url));
        }
        let authorization = config.authorization.as_deref().map(|text| {
            let mut value =
                HeaderValue::from_str(text).map_err(|_| "authorization is no value of a header".to_owned())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        let provider = rustls::crypto::ring::default_provider();
        let tls = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_native_roots()
            .map_err(|error| format!("the system's certificates can't be read: {error}"))?
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            url,
            authorization: authorization.transpose()?,
        })
    }
}

#[async_trait]
impl Target for Webhook {
    async fn send(&self, message: &Message) -> Result<(), SendError> {
        let mut request = Request::new(Full::new(message.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("penstock/", env!("CARGO_PKG_VERSION"))));
        if let Ok(id) = HeaderValue::from_str(&message.id) {
            headers.insert("x-penstock-event-id", id);
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let unreachable = |error: &dyn std::error::Error| SendError::Unreachable(with_causes(error));
        let answer = self.client.request(request).await.map_err(|error| unreachable(&error))?;
        let status = answer.status();
        // What it says does not matter; that it has been said frees the connection.
        let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        if status.is_success() { Ok(()) } else { Err(SendError::Refused(format!("status {status}"))) }
    }
}

/// An error with all that caused it: hyper's own says little.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
