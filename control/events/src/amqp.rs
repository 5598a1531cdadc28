//! AMQP 0.9.1 (RabbitMQ): persistent messages, mandatory, with publisher confirms. A message that no queue takes comes back and
//! counts as refused.

use async_trait::async_trait;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::sync::Mutex;

use crate::config::AmqpConfig;
use crate::target::{Message, SendError, Target};

/// AMQP's number for messages that are kept on disk.
const PERSISTENT: u8 = 2;

pub(crate) struct Amqp {
    url: AMQPUri,
    exchange: String,
    routing_key: String,
    /// The connection and a channel of it, made when one is needed.
    open: Mutex<Option<(Connection, Channel)>>,
}

impl Amqp {
    pub(crate) fn new(config: &AmqpConfig) -> Result<Self, String> {
        let url = config.url.parse().map_err(|error| format!("this is no URL of amqp: {error}"))?;
        if config.url.starts_with("amqps:") {
            return Err(
                "amqps is not built: put a TLS proxy such as stunnel before the server, and name that".to_owned()
            );
        }
        if config.routing_key.len() > 255 || config.exchange.len() > 255 {
            return Err("exchange and routing_key have at most 255 bytes".to_owned());
        }
        let (exchange, routing_key) = (config.exchange.clone(), config.routing_key.clone());
        Ok(Self { url, exchange, routing_key, open: Mutex::new(None) })
    }

    async fn channel(&self) -> Result<Channel, lapin::Error> {
        let mut open = self.open.lock().await;
        if let Some((_, channel)) =
            open.as_ref().filter(|(link, channel)| link.status().connected() && channel.status().connected())
        {
            return Ok(channel.clone());
        }
        *open = None;
        let properties = ConnectionProperties::default().with_connection_name("penstock".into());
        let connection = Connection::connect_uri(self.url.clone(), properties).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        *open = Some((connection, channel.clone()));
        Ok(channel)
    }

    async fn publish(&self, message: &Message) -> Result<Confirmation, lapin::Error> {
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_message_id(message.id.as_str().into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, key) = (self.exchange.as_str().into(), self.routing_key.as_str().into());
        self.channel().await?.basic_publish(exchange, key, options, &message.body, properties).await?.await
    }
}

#[async_trait]
impl Target for Amqp {
    async fn send(&self, message: &Message) -> Result<(), SendError> {
        match self.publish(message).await {
            Ok(Confirmation::Ack(None)) => Ok(()),
            Ok(Confirmation::Ack(Some(_))) => {
                let why = format!("no queue takes routing key {:?} of exchange {:?}", self.routing_key, self.exchange);
                Err(SendError::Refused(why))
            }
            Ok(Confirmation::Nack(_)) => Err(SendError::Refused("a negative acknowledgement".to_owned())),
            Ok(Confirmation::NotRequested) => Err(SendError::Refused("the channel confirms nothing".to_owned())),
            Err(error) => {
                // A channel is of no use after an error: the next event has another.
                *self.open.lock().await = None;
                Err(SendError::Unreachable(error.to_string()))
            }
        }
    }
}
