//! Which targets there are: a TOML file of the administrator's (docs/EVENTS.md). Nonsense is refused, not ignored.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use penstock_meta::tables::TARGET_BYTES_MAX;
use serde::Deserialize;

use crate::amqp::Amqp;
use crate::nats::Nats;
use crate::target::Target;
use crate::webhook::Webhook;

/// Most targets of one store.
pub const TARGETS_MAX: usize = 100;
const MAX_AGE_HOURS_DEFAULT: u64 = 72;

/// What is wrong with a file of targets.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It can't be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// It makes no sense.
    #[error("{path}: {why}")]
    Nonsense {
        /// Which file.
        path: String,
        /// What of it, and what to write instead.
        why: String,
    },
}

impl ConfigError {
    /// Whether the same file may be good a little later: never.
    pub const fn is_retryable(&self) -> bool {
        false
    }
}

/// The file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsConfig {
    /// `[[target]]`.
    #[serde(default, rename = "target")]
    pub targets: Vec<TargetConfig>,
}

/// `[[target]]`: one of `webhook`, `nats`, `amqp`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// What buckets' configurations call it: `arn:aws:sqs:REGION:ACCOUNT:NAME`, or of `sns` or `lambda`.
    pub arn: String,
    /// An HTTP server.
    pub webhook: Option<WebhookConfig>,
    /// A NATS server.
    pub nats: Option<NatsConfig>,
    /// A server of AMQP 0.9.1, such as RabbitMQ.
    pub amqp: Option<AmqpConfig>,
    /// How old an event that can't be delivered gets before it is given up.
    #[serde(default = "max_age_hours_default")]
    pub max_age_hours: u64,
}

fn max_age_hours_default() -> u64 {
    MAX_AGE_HOURS_DEFAULT
}

/// `webhook = { ... }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// `http://` or `https://`. Each event is a POST; any 2xx confirms it.
    pub url: String,
    /// Sent as `Authorization`.
    pub authorization: Option<String>,
}

/// `nats = { ... }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsConfig {
    /// `nats://[user:password@]host:port`, or `tls://`.
    pub url: String,
    /// The subject.
    pub subject: String,
    /// Whether a stream of JetStream has the subject: it then confirms each event. Without, an event is confirmed when the
    /// server has it, who may have nobody to give it to.
    #[serde(default = "yes")]
    pub jetstream: bool,
}

fn yes() -> bool {
    true
}

/// `amqp = { ... }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmqpConfig {
    /// `amqp://user:password@host:port/vhost`. TLS (`amqps`) is not built.
    pub url: String,
    /// The exchange; empty for the default one, whose routing keys are queues' names.
    #[serde(default)]
    pub exchange: String,
    /// The routing key. An event that no queue takes is not delivered, and tried again.
    pub routing_key: String,
}

impl EventsConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], in words that name the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: shown.clone(), error })?;
        Self::parse(&text).map_err(|why| ConfigError::Nonsense { path: shown, why })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if config.targets.len() > TARGETS_MAX {
            return Err(format!("there are {} targets, and may be {TARGETS_MAX}", config.targets.len()));
        }
        let mut arns = HashSet::new();
        for target in &config.targets {
            check_arn(&target.arn)?;
            if !arns.insert(&target.arn) {
                return Err(format!("two targets are called {}", target.arn));
            }
            if target.max_age_hours == 0 {
                return Err(format!("{}: max_age_hours is 1 at least", target.arn));
            }
            target.open().map_err(|why| format!("{}: {why}", target.arn))?;
        }
        Ok(config)
    }

    /// What the targets are called.
    pub fn arns(&self) -> Vec<String> {
        self.targets.iter().map(|target| target.arn.clone()).collect()
    }
}

impl TargetConfig {
    /// What sends to it. Connects to nothing yet.
    ///
    /// # Errors
    /// What of the configuration makes no sense.
    pub(crate) fn open(&self) -> Result<Arc<dyn Target>, String> {
        match (&self.webhook, &self.nats, &self.amqp) {
            (Some(webhook), None, None) => Ok(Arc::new(Webhook::new(webhook)?)),
            (None, Some(nats), None) => Ok(Arc::new(Nats::new(nats)?)),
            (None, None, Some(amqp)) => Ok(Arc::new(Amqp::new(amqp)?)),
            _ => Err("write one of webhook, nats and amqp".to_owned()),
        }
    }

    pub(crate) fn age_max(&self) -> Duration {
        Duration::from_secs(self.max_age_hours.saturating_mul(3600))
    }
}

/// `arn:aws:SERVICE:REGION:ACCOUNT:NAME`, of a service that S3 sends events to.
fn check_arn(arn: &str) -> Result<(), String> {
    let fields: Vec<&str> = arn.splitn(6, ':').collect();
    match fields.as_slice() {
        ["arn", partition, "sqs" | "sns" | "lambda", _region, _account, name]
            if partition.starts_with("aws")
                && !name.is_empty()
                && arn.len() <= TARGET_BYTES_MAX
                && arn.chars().all(|c| c.is_ascii_graphic()) =>
        {
            Ok(())
        }
        _ => Err(format!("{arn:?} is no ARN of a target: write arn:aws:sqs:REGION:ACCOUNT:NAME (or sns, lambda)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[[target]]
arn = "arn:aws:sqs:us-east-1:000000000000:hook"
webhook = { url = "http://127.0.0.1:1/events", authorization = "Bearer x" }
[[target]]
arn = "arn:aws:sns:us-east-1::nats"
nats = { url = "nats://127.0.0.1:4222", subject = "events" }
max_age_hours = 1
[[target]]
arn = "arn:aws:lambda:::function:amqp"
amqp = { url = "amqp://guest:guest@127.0.0.1:5672/%2f", routing_key = "events" }
"#;

    #[test]
    fn one_of_each() {
        let config = EventsConfig::parse(GOOD).unwrap();
        assert_eq!(config.arns().len(), 3);
        assert_eq!(config.targets[1].age_max(), Duration::from_secs(3600));
        assert!(config.targets[1].nats.as_ref().unwrap().jetstream);
        assert!(EventsConfig::parse("").unwrap().targets.is_empty());
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (from, to, says) in [
            ("arn:aws:sqs:us-east-1:000000000000:hook", "hook", "\"hook\""),
            (":hook", ":", "no ARN"),
            ("aws:sqs:us-east-1", "aws:s3:us-east-1", "no ARN"),
            ("arn:aws:sns:us-east-1::nats", "arn:aws:sqs:us-east-1:000000000000:hook", "two targets"),
            ("webhook = {", "web = {", "web"),
            ("http://127.0.0.1:1/events", "ftp://127.0.0.1", "ftp"),
            ("http://127.0.0.1:1/events", "/events", "/events"),
            ("Bearer x", "Bearer\\n", "authorization"),
            ("subject = \"events\"", "subject = \"\"", "subject"),
            ("amqp://guest", "http://guest", "amqp"),
            ("max_age_hours = 1", "max_age_hours = 0", "max_age_hours"),
            ("max_age_hours = 1", "webhook = { url = \"http://a\" }", "one of"),
        ] {
            let error = EventsConfig::parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(says), "{says:?} is not in {error}");
        }
    }
}
