//! The command line. What it says in `--help` is what it does.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use penstock_proto::Code;

use crate::config::Size;

/// An S3-compatible object store: control over HTTP, payload straight between storage nodes and the program that
/// wants it.
#[derive(Debug, Parser)]
#[command(
    name = "penstock",
    version,
    propagate_version = true,
    after_help = "\
Try it:\n  penstock serve --data ./penstock-data\n\nand paste the AWS CLI line that it prints; or:\n  penstock ls --endpoint-url http://127.0.0.1:9000\n\nLogs go to standard error; PENSTOCK_LOG=debug says more."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Gateway and storage nodes in one process: the whole store on one machine.
    Serve(Box<Serve>),
    /// The gateway alone; storage nodes are other processes, named in the configuration file.
    Gateway(GatewayArguments),
    /// One storage node, as the configuration file has it.
    Node(NodeArguments),
    /// See to a running store: its nodes, repairs and scrubs, its users, access keys, policies and accounts.
    Admin(crate::admin::AdminArguments),
    /// Make the key that gateway and nodes share.
    ClusterKey(ClusterKeyArguments),
    /// PUT and GET through a running store every way there is (RDMA, TCP, HTTP), and compare.
    Exercise(crate::exercise::Exercise),
    /// Look at this machine and say what is well, what is not, and what to do about it.
    Doctor(crate::doctor::Doctor),
    #[command(flatten)]
    Objects(crate::objects::Objects),
    /// Benchmarks against peers and against what the machine can do at all (`penstock bench --help`).
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Bench(BenchArguments),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where everything is kept: metadata, keys, and one directory a node (node-00, node-01, ...).
    #[arg(long, value_name = "DIR", default_value = "./penstock-data", env = "PENSTOCK_DATA")]
    pub(crate) data: PathBuf,
    /// Storage nodes. 1 keeps one checksummed copy; 3 or more RS(2,1), 6 or more RS(4,2), 14 or more RS(10,4).
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), env = "PENSTOCK_NODES")]
    pub(crate) nodes: u16,
    /// Where S3 clients connect.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000", env = "PENSTOCK_LISTEN")]
    pub(crate) listen: SocketAddr,
    /// Whether clients of ours may reach the storage nodes themselves, so that payload need not pass through the gateway:
    /// the nodes listen beside the S3 address, and serve whoever brings a capability that the gateway has signed.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, env = "PENSTOCK_DIRECT")]
    pub(crate) direct: bool,
    /// The first of the ports where the nodes listen, one each. 0: any that are free.
    #[arg(long, value_name = "PORT", default_value_t = 0, env = "PENSTOCK_NODE_PORT")]
    pub(crate) node_port: u16,
    /// Another code than the default for so many nodes, for example "RS(4,2)".
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<Code>,
    /// How much each node may hold, for example 20GiB. Default: the file system's size divided by the nodes. Fixed
    /// when a node is first made.
    #[arg(long, value_name = "SIZE")]
    pub(crate) node_capacity: Option<Size>,
    /// The file that names where events of buckets can be sent: webhooks, NATS, AMQP (docs/EVENTS.md).
    #[arg(long, value_name = "FILE", env = "PENSTOCK_EVENTS")]
    pub(crate) events: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) front: Front,
    #[command(flatten)]
    pub(crate) tuning: Tuning,
    #[command(flatten)]
    pub(crate) keep: crate::keep::Keep,
    /// Where Prometheus reads metrics: /metrics over plain HTTP, for whoever reaches it. Default: nowhere.
    #[arg(long, value_name = "ADDR", env = "PENSTOCK_METRICS")]
    pub(crate) metrics: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct Front {
    /// Domains under which BUCKET.DOMAIN addresses a bucket (virtual-host style). May be given several times.
    #[arg(long = "domain", value_name = "DOMAIN", default_values_t = ["localhost".to_owned(), "s3.localhost".to_owned()])]
    pub(crate) domains: Vec<String>,
    #[command(flatten)]
    pub(crate) guard: Guard,
    #[command(flatten)]
    pub(crate) rdma: crate::rdma_limits::RdmaLimits,
}

/// What stands between the network and S3: the same for `serve` and, from its file, for `gateway`.
#[derive(Clone, Debug, Default, Args, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Guard {
    /// Serve HTTPS with this certificate chain (PEM, the server's first). A changed file is taken up while running.
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "PENSTOCK_TLS_CERTIFICATE")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM, not encrypted).
    #[arg(long, value_name = "FILE", requires = "tls_certificate", env = "PENSTOCK_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Append a line for each request, in the format of S3's server access logs.
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,
    /// Append a JSON object for each change and each refusal.
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log: Option<PathBuf>,
    /// The file of the key under which encrypted objects' keys are sealed (64 hex digits). Default: encryption.key beside the
    /// metadata. It is made when it is not there. Without it what is encrypted is lost: keep a copy elsewhere.
    #[arg(long, value_name = "FILE", env = "PENSTOCK_ENCRYPTION_KEY_FILE")]
    pub(crate) encryption_key_file: Option<PathBuf>,
    /// How often buckets' access logs are delivered to the buckets that PutBucketLogging names. Default: 300.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) log_delivery_seconds: Option<std::num::NonZeroU32>,
    /// Take customers' encryption keys (SSE-C) over plain HTTP from other machines too, as behind a proxy that ends TLS.
    #[arg(long)]
    pub(crate) sse_c_without_tls: bool,
    /// Most requests a second of one access key; past it, 503 SlowDown. Default: no limit.
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_second: Option<std::num::NonZeroU32>,
}

#[derive(Debug, Args)]
pub(crate) struct Tuning {
    /// Memory for payload on its way through the gateway.
    #[arg(long, value_name = "SIZE", default_value = "96MiB")]
    pub(crate) gateway_buffers: Size,
    /// Memory for payload on its way through this process's storage nodes, all together.
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub(crate) node_buffers: Size,
    /// How a node reads and writes its device: auto, io_uring or pread.
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    pub(crate) engine: String,
    /// How long deleted data stays on the nodes, for reads that other gateways may have begun.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) garbage_grace_seconds: u64,
    /// Payload up to this long travels with the request, through the gateway, where a client asks for a plan: a plan costs
    /// another round trip. 0: none does.
    #[arg(long, value_name = "SIZE", default_value = "128KiB", env = "PENSTOCK_PLAN_INLINE")]
    pub(crate) plan_inline: crate::config::SizeOrNone,
    #[command(flatten)]
    pub(crate) packing: crate::packing::Packing,
    /// How long a day of lifecycle rules is. For tests: with 10, what expires after a day is gone within half a minute.
    #[arg(long, value_name = "SECONDS", default_value_t = crate::config::DAY_SECONDS, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) lifecycle_day_seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct GatewayArguments {
    /// The cluster's configuration file (docs/CONFIGURATION.md).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct NodeArguments {
    /// The cluster's configuration file (docs/CONFIGURATION.md).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Which of the file's nodes this is.
    #[arg(long, value_name = "ID")]
    pub(crate) id: u16,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterKeyArguments {
    /// Where to write it. Refuses to replace a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// What penstock-bench is told: all of it is handed on.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) arguments: Vec<OsString>,
}
