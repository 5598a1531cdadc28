//! The command line of a run, for whoever makes a program of it (`penstock-bench s3`).

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::{Keys, Load, LoadError, Mix, Pace, Report, Sizes, Spec};

/// Load on an S3 endpoint. Keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
#[derive(Args, Clone, Debug)]
pub struct LoadArguments {
    /// Where the store is: http://HOST:PORT
    #[arg(long)]
    pub endpoint: String,
    /// The access key; without it nothing is signed, as to a web server.
    #[arg(long, env = "AWS_ACCESS_KEY_ID")]
    pub access_key: Option<String>,
    /// Its secret.
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    pub secret_key: Option<String>,
    /// The region that signatures name.
    #[arg(long, env = "AWS_DEFAULT_REGION", default_value = "us-east-1")]
    pub region: String,
    /// The bucket; made if it is not there.
    #[arg(long, default_value = "penstock-bench")]
    pub bucket: String,
    /// What keys begin with; listings expect nothing else below it.
    #[arg(long, default_value = "load/")]
    pub prefix: String,
    /// put, get, head, list or delete; or a mix of them, as in put=20,get=80
    #[arg(long)]
    pub mix: Option<String>,
    /// Bytes of an object.
    #[arg(long, default_value_t = 4096)]
    pub size: u64,
    /// With this, 80 of 100 objects have --size bytes and the others this many.
    #[arg(long)]
    pub large_size: Option<u64>,
    /// Objects that are put first and read then.
    #[arg(long, default_value_t = 1000)]
    pub objects: u64,
    /// Connections, each with one request in flight: 1 to 1024.
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    /// Requests per second (an open loop: latency counts from when a request was due); without it, a closed loop.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Seconds of the run.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds before it that don't count.
    #[arg(long, default_value_t = 1.0)]
    pub warm_up: f64,
    /// Don't let signatures cover what is put.
    #[arg(long)]
    pub unsigned_payloads: bool,
    /// Put larger objects in parts of this many bytes.
    #[arg(long)]
    pub part_size: Option<u64>,
    /// GET this many bytes at a random offset.
    #[arg(long)]
    pub range: Option<u64>,
    /// Keys of one listing.
    #[arg(long, default_value_t = 1000)]
    pub list_keys: u32,
    /// Seconds without a byte after which an answer counts as stalled.
    #[arg(long, default_value_t = 10.0)]
    pub stall_timeout: f64,
    /// The server's processes on this machine, for its CPU time.
    #[arg(long, value_delimiter = ',')]
    pub server_pid: Vec<u32>,
    /// Makes the order of operations and keys repeatable.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Don't put anything first: a run before has.
    #[arg(long)]
    pub prepared: bool,
    /// Write the objects below this folder instead of putting them: for a server of static files.
    #[arg(long)]
    pub write_files: Option<PathBuf>,
}

impl LoadArguments {
    /// What they say.
    ///
    /// # Errors
    /// [`LoadError::Spec`].
    pub fn spec(&self) -> Result<Spec, LoadError> {
        let seconds = |name: &str, value: f64| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| LoadError::Spec(format!("--{name} {value} is no time: give seconds")))
        };
        let keys = match (&self.access_key, &self.secret_key) {
            (Some(access), Some(secret)) => Some(Keys { access: access.clone(), secret: secret.clone() }),
            (None, None) => None,
            _ => {
                return Err(LoadError::Spec(
                    "an access key and its secret come together: set both or neither".to_owned(),
                ));
            }
        };
        let sizes = match self.large_size {
            Some(large) => Sizes::Bimodal { small: self.size, large, small_percent: 80 },
            None => Sizes::Fixed(self.size),
        };
        Ok(Spec {
            region: self.region.clone(),
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            mix: self.mix.as_deref().unwrap_or("get").parse::<Mix>()?,
            sizes,
            objects: self.objects,
            connections: self.connections,
            pace: self.rate.map_or(Pace::Closed, |per_second| Pace::Open { per_second }),
            duration: seconds("seconds", self.seconds)?,
            warm_up: seconds("warm-up", self.warm_up)?,
            signed_payloads: !self.unsigned_payloads,
            part_bytes: self.part_size,
            range_bytes: self.range,
            list_keys: self.list_keys,
            stall_timeout: seconds("stall-timeout", self.stall_timeout)?,
            server_pids: self.server_pid.clone(),
            seed: self.seed,
            ..Spec::new(self.endpoint.parse()?, keys)
        })
    }

    /// Prepares and runs; Ctrl-C ends it early, with what was done until then.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn run(&self) -> Result<Report, LoadError> {
        let load = Load::new(self.spec()?)?;
        if let Some(folder) = &self.write_files {
            load.write_files(folder)
                .map_err(|error| LoadError::Spec(format!("writing below {}: {error}", folder.display())))?;
        } else if !self.prepared {
            load.prepare().await?;
        }
        let stop = tokio_util::sync::CancellationToken::new();
        let told = stop.clone();
        let listening = tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                told.cancel();
            }
        });
        let report = load.run(&stop).await;
        listening.abort();
        report
    }
}
