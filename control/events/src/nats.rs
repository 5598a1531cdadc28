//! NATS: to a subject, confirmed by the stream of JetStream that has it, or else by the server that has taken it.

use async_nats::{Client, ConnectOptions, HeaderMap, ServerAddr};
use async_trait::async_trait;
use tokio::sync::OnceCell;

use crate::config::NatsConfig;
use crate::target::{Message, SEND_TIMEOUT, SendError, Target};

pub(crate) struct Nats {
    server: ServerAddr,
    subject: String,
    jetstream: bool,
    /// Made at the first event; it connects again by itself.
    client: OnceCell<Client>,
}

impl Nats {
    pub(crate) fn new(config: &NatsConfig) -> Result<Self, String> {
        let server = config.url.parse().map_err(|error| format!("{:?} is no URL of NATS: {error}", config.url))?;
        if config.subject.is_empty() || config.subject.contains([' ', '\t', '\r', '\n', '*', '>']) {
            return Err(format!("{:?} is no subject to publish to", config.subject));
        }
        Ok(Self { server, subject: config.subject.clone(), jetstream: config.jetstream, client: OnceCell::new() })
    }

    async fn client(&self) -> Result<&Client, SendError> {
        let connect = || async {
            let options = ConnectOptions::new().name("penstock").connection_timeout(SEND_TIMEOUT);
            options.connect(self.server.clone()).await.map_err(|error| SendError::Unreachable(error.to_string()))
        };
        self.client.get_or_try_init(connect).await
    }
}

#[async_trait]
impl Target for Nats {
    async fn send(&self, message: &Message) -> Result<(), SendError> {
        let client = self.client().await?;
        let mut headers = HeaderMap::new();
        // JetStream drops what it has seen under this name within its window.
        headers.insert("Nats-Msg-Id", message.id.as_str());
        let (subject, body) = (self.subject.clone(), message.body.clone());
        if self.jetstream {
            let stream = async_nats::jetstream::new(client.clone());
            let refused = |error: async_nats::jetstream::context::PublishError| SendError::Refused(error.to_string());
            let sent = stream.publish_with_headers(subject, headers, body).await.map_err(refused)?;
            sent.await.map_err(refused)?;
            return Ok(());
        }
        let unreachable = |error: &dyn std::error::Error| SendError::Unreachable(error.to_string());
        client.publish_with_headers(subject, headers, body).await.map_err(|error| unreachable(&error))?;
        client.flush().await.map_err(|error| unreachable(&error))
    }
}
