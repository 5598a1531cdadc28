//! What a client is told at its start: whom to ask and how long to wait.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use penstock_transport::Dialer;

use crate::checks::Verify;
use crate::credentials::profile_setting;
use crate::error::ClientError;
use crate::hedge::HedgeOptions;

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) virtual_host: bool,
}

impl Endpoint {
    /// `http://host[:port]` or `https://host[:port]`. Buckets are addressed path-style.
    ///
    /// # Errors
    /// [`ClientError::Configuration`].
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        let wrong = |why: &str| ClientError::Configuration(format!("the endpoint {url:?}: {why}"));
        let (tls, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(wrong("write http://host:port or https://host:port")),
        };
        let rest = rest.trim_end_matches('/');
        if rest.is_empty() || rest.contains(['/', '?', '#', '@', ' ']) {
            return Err(wrong("write http://host:port, without a path"));
        }
        let bracket = rest.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match rest[bracket..].rfind(':') {
            Some(at) => {
                let port = rest[bracket + at + 1..].parse().map_err(|_| wrong("the port is no number below 65536"))?;
                (&rest[..bracket + at], port)
            }
            None => (rest, if tls { 443 } else { 80 }),
        };
        if host.is_empty() || (host.contains(':') && !host.starts_with('[')) {
            return Err(wrong("an IPv6 address stands in brackets, and a host is needed"));
        }
        Ok(Self { tls, host: host.to_owned(), port, virtual_host: false })
    }

    /// Addresses buckets as `bucket.host` from now on, as AWS has it.
    #[must_use]
    pub fn with_virtual_hosts(self) -> Self {
        Self { virtual_host: true, ..self }
    }

    /// AWS's own of a region.
    pub fn aws(region: &str) -> Self {
        let host = format!("s3.{region}.amazonaws.com");
        Self { tls: true, host, port: 443, virtual_host: true }
    }

    /// What the environment says: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, `endpoint_url` of the profile in ~/.aws/config, or AWS's own
    /// of `region`.
    ///
    /// # Errors
    /// [`ClientError::Configuration`].
    pub fn from_environment(region: &str) -> Result<Self, ClientError> {
        Self::from_variables(&environment, region)
    }

    /// As [`Endpoint::from_environment`], over these variables instead of the environment's.
    ///
    /// # Errors
    /// [`ClientError::Configuration`].
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>, region: &str) -> Result<Self, ClientError> {
        let said = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
        match said.or_else(|| profile_setting(variable, "endpoint_url")) {
            Some(url) => Self::parse(&url),
            None => Ok(Self::aws(region)),
        }
    }

    /// As a URL.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.host_header(""))
    }

    /// The host for a bucket.
    pub(crate) fn host_for(&self, bucket: &str) -> String {
        match self.virtual_host && !bucket.is_empty() {
            true => format!("{bucket}.{}", self.host),
            false => self.host.clone(),
        }
    }

    /// As it stands in `Host`.
    pub(crate) fn host_header(&self, bucket: &str) -> String {
        let host = self.host_for(bucket);
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }
}

/// What the environment says: AWS_REGION, AWS_DEFAULT_REGION, `region` of the profile in ~/.aws/config, or us-east-1.
pub fn region_from_environment() -> String {
    region_from(&environment)
}

/// As [`region_from_environment`], over these variables instead of the environment's.
pub fn region_from(variable: &dyn Fn(&str) -> Option<String>) -> String {
    let said = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
    said.or_else(|| profile_setting(variable, "region")).unwrap_or_else(|| "us-east-1".to_owned())
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// How payload moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// By plan where the server gives one, else over HTTP.
    #[default]
    Auto,
    /// Over HTTP.
    Http,
}

/// How a client behaves.
#[derive(Clone)]
pub struct ClientOptions {
    /// The region that signatures are for.
    pub region: String,
    /// How payload moves.
    pub mode: Mode,
    /// Whether a fallback to HTTP is an error. Answers that the dialect itself sends inline, small ones, are none.
    pub require_plan: bool,
    /// Whether plans that can't move their payload by RDMA alone are an error. Implies `require_plan`.
    pub require_rdma: bool,
    /// How nodes are reached, best first; TCP is always there, last.
    pub dialers: Vec<Arc<dyn Dialer>>,
    /// Connections to the server, idle and busy; further requests wait for one.
    pub connections_max: usize,
    /// How long to connect may take, TLS included.
    pub connect_timeout: Duration,
    /// How long the server may be silent before and in the middle of an answer.
    pub silence_timeout: Duration,
    /// How long an operation may take altogether, retries included.
    pub operation_timeout: Duration,
    /// Tries of one request.
    pub tries_max: u32,
    /// Memory for payload on its way.
    pub pool_bytes: usize,
    /// Bodies from this length on are put in parts of this length or more, in parallel.
    pub part_bytes: u64,
    /// Parts, ranges, stripes and keys under way at a time.
    pub parallel_max: usize,
    /// Bodies up to this long are sent with the request even where a plan could be had: it costs another round trip.
    pub inline_bytes_max: u64,
    /// How long a read waits for a shard before it asks for another one, until it knows how long shards take; `None`: as the
    /// executor has it.
    pub hedge_delay: Option<Duration>,
    /// Certificate authorities for https, as a PEM file; the system's by default.
    pub ca_file: Option<PathBuf>,
    /// When a read is asked for a second time; `None`: never.
    pub hedge: Option<HedgeOptions>,
    /// Which checksums of whole objects are verified.
    pub verify: Verify,
    /// Over HTTP, an object of twice this length or more is read in parallel shares of at least this length, when connections
    /// are idle.
    pub split_bytes_min: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            mode: Mode::Auto,
            require_plan: false,
            require_rdma: false,
            dialers: Vec::new(),
            connections_max: 64,
            connect_timeout: Duration::from_secs(3),
            silence_timeout: Duration::from_secs(20),
            operation_timeout: Duration::from_secs(15 * 60),
            tries_max: 5,
            pool_bytes: 256 << 20,
            part_bytes: 64 << 20,
            parallel_max: 4,
            inline_bytes_max: 128 << 10,
            hedge_delay: None,
            ca_file: None,
            hedge: Some(HedgeOptions::default()),
            verify: Verify::Fast,
            split_bytes_min: 16 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_nonsense_is_refused() {
        let endpoint = Endpoint::parse("http://127.0.0.1:9000/").unwrap();
        assert_eq!((endpoint.host_header("b"), endpoint.tls), ("127.0.0.1:9000".to_owned(), false));
        let endpoint = Endpoint::parse("https://[::1]").unwrap();
        assert_eq!((endpoint.host_header(""), endpoint.port), ("[::1]".to_owned(), 443));
        assert_eq!(Endpoint::aws("eu-west-1").host_header("b"), "b.s3.eu-west-1.amazonaws.com");
        let config = tempfile::NamedTempFile::new().unwrap();
        let text = "[default]\nregion = eu-west-1\n[profile lab]\nendpoint_url = http://lab:9000\nregion=lab-1\n";
        std::fs::write(config.path(), text).unwrap();
        let variables = |name: &str| match name {
            "AWS_CONFIG_FILE" => Some(config.path().display().to_string()),
            "AWS_PROFILE" => Some("lab".to_owned()),
            _ => None,
        };
        assert_eq!(region_from(&variables), "lab-1");
        assert_eq!(Endpoint::from_variables(&variables, "x").unwrap().url(), "http://lab:9000");
        assert_eq!(Endpoint::from_variables(&|_| None, "x").unwrap(), Endpoint::aws("x"));
        let said =
            |name: &str| if name == "AWS_ENDPOINT_URL" { Some("http://there".to_owned()) } else { variables(name) };
        assert_eq!(Endpoint::from_variables(&said, "x").unwrap().url(), "http://there");
        for bad in
            ["localhost:9000", "ftp://x", "http://", "http://x:99999", "http://x/path", "http://::1", "http://a b"]
        {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
