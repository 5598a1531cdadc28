//! What the one who starts the front decides.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use penstock_offload::DialectSet;
use penstock_proto::limits;

use crate::counts::RequestCounts;
use crate::tls::TlsFiles;

/// How the front behaves. [`FrontOptions::default`] suits a server that is reached by address, path style.
#[derive(Clone, Debug)]
pub struct FrontOptions {
    /// Virtual-host style: `bucket.DOMAIN` names a bucket for each of these. A `Host` that is an address, one of these
    /// itself, or anything else is path style. Compared without case and port.
    pub base_domains: Vec<String>,
    /// What buckets without a LocationConstraint answer as their region.
    pub region: String,
    /// Whether signatures must be for `region` (else AuthorizationHeaderMalformed). Off: any region's signature is good.
    pub enforce_region: bool,
    /// Most connections at a time; those past it are told 503 SlowDown.
    pub connections_max: usize,
    /// How long a client may take to send a request's head, and how long it may keep an idle connection.
    pub head_read_timeout: Duration,
    /// How long a client may be silent in a body (or send less than [`FrontOptions::BODY_WINDOW_BYTES_MIN`] bytes).
    pub body_idle_timeout: Duration,
    /// How long a client may take nothing of an answer that is ready.
    pub write_stall_timeout: Duration,
    /// How long requests in flight may go on after shutdown was asked for.
    pub drain_timeout: Duration,
    /// Serve TLS, and nothing else, with this certificate.
    pub tls: Option<TlsFiles>,
    /// Append S3's server access log to this file.
    pub access_log: Option<PathBuf>,
    /// Append a JSON line for each change and each refusal to this file.
    pub audit_log: Option<PathBuf>,
    /// How often buckets' access logs are delivered to their target buckets.
    pub log_delivery_interval: Duration,
    /// Most requests a second of one access key, on average; bursts of as many are let through. Past it, 503 SlowDown.
    pub requests_per_second_max: Option<NonZeroU32>,
    /// Whether customers' encryption keys (SSE-C) may come over plain HTTP from other machines, as when a proxy ends TLS before
    /// us. Off: they are refused, unless the connection is TLS or from this machine.
    pub customer_keys_without_tls: bool,
    /// Who speaks S3 over RDMA. None: every request with `x-amz-rdma-*` headers is told 501.
    pub dialects: DialectSet,
    /// Where answered requests are counted; keep a clone to read them.
    pub requests: Arc<RequestCounts>,
}

impl FrontOptions {
    /// A client that sends less than this in a whole [`FrontOptions::body_idle_timeout`] counts as silent.
    pub const BODY_WINDOW_BYTES_MIN: u64 = 4096;
}

impl Default for FrontOptions {
    fn default() -> Self {
        Self {
            base_domains: Vec::new(),
            region: "us-east-1".to_owned(),
            enforce_region: false,
            connections_max: limits::S3_CONNECTIONS_MAX,
            head_read_timeout: limits::HEAD_READ_TIMEOUT,
            body_idle_timeout: limits::BODY_IDLE_TIMEOUT,
            write_stall_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
            tls: None,
            access_log: None,
            audit_log: None,
            log_delivery_interval: Duration::from_secs(300),
            requests_per_second_max: None,
            customer_keys_without_tls: false,
            dialects: DialectSet::default(),
            requests: Arc::default(),
        }
    }
}
