//! `penstock cp|mv|sync|ls|cat|head|rm|mb|rb|presign`: the client on the command line, against any S3 server.
//!
//! **What.** Files and objects are copied in parallel, by plan where the server gives one; what breaks off is gone on with by
//! running the command again. One line is printed for each thing done (a JSON object with `--json`); the code that the
//! program ends with says what kind of failure there was.
//!
//! **How it fails.** What can't be copied is said and the others go on; nothing is ever left under its name half-written.

mod commands;
mod download;
mod filter;
mod list;
mod place;
mod report;
mod transfer;
mod upload;
mod walk;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use penstock_client::{Client, ClientError, ClientOptions, CredentialsProvider, Endpoint, ErrorKind, Mode, PutOptions};
use tokio::sync::Semaphore;

use crate::config::Size;
use filter::Filters;
use report::Report;

/// Something else.
pub(crate) const CODE_OTHER: u8 = 1;
/// A command line that makes no sense; clap's code too.
pub(crate) const CODE_USAGE: u8 = 2;
/// Not there.
pub(crate) const CODE_NOT_FOUND: u8 = 3;
/// Not allowed, or no or wrong keys.
pub(crate) const CODE_DENIED: u8 = 4;
/// No connection, too slow, overloaded: later it may work.
pub(crate) const CODE_LATER: u8 = 5;
/// Bytes that are wrong, too few, or were changed meanwhile.
pub(crate) const CODE_WRONG_BYTES: u8 = 6;
/// A condition that does not hold.
pub(crate) const CODE_CONDITION: u8 = 7;

/// Long files and objects under way at a time: each has several parts in memory.
const LARGE_MAX: usize = 2;

/// Why something could not be done, and the code to end with.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) message: String,
    pub(crate) code: u8,
}

impl Failed {
    pub(crate) fn other(message: String) -> Self {
        Self { message, code: CODE_OTHER }
    }

    pub(crate) fn usage(message: String) -> Self {
        Self { message, code: CODE_USAGE }
    }

    pub(crate) fn io(what: impl std::fmt::Display, error: std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => CODE_NOT_FOUND,
            std::io::ErrorKind::PermissionDenied => CODE_DENIED,
            _ => CODE_OTHER,
        };
        Self { message: format!("{what}: {error}"), code }
    }

    pub(crate) fn client(error: ClientError) -> Self {
        let code = match error.kind() {
            ErrorKind::Configuration => CODE_USAGE,
            ErrorKind::NotFound => CODE_NOT_FOUND,
            ErrorKind::AccessDenied | ErrorKind::Credentials | ErrorKind::ExpiredCredentials => CODE_DENIED,
            ErrorKind::Endpoint | ErrorKind::Timeout | ErrorKind::Throttled | ErrorKind::Nodes => CODE_LATER,
            ErrorKind::Corrupt | ErrorKind::Truncated | ErrorKind::Changed => CODE_WRONG_BYTES,
            ErrorKind::Precondition => CODE_CONDITION,
            _ => CODE_OTHER,
        };
        Self { message: error.to_string(), code }
    }
}

/// Whom to ask, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct Server {
    /// The server. Default: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, endpoint_url of the profile in ~/.aws/config, AWS itself.
    #[arg(long, visible_alias = "endpoint", value_name = "URL")]
    endpoint_url: Option<String>,
    /// The region that signatures are for. Default: AWS_REGION, AWS_DEFAULT_REGION, the profile's, us-east-1.
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// The profile in ~/.aws/config and ~/.aws/credentials. Default: AWS_PROFILE. Keys come from the AWS chain:
    /// environment, profile, container, instance.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Certificate authorities for https, a PEM file. Default: the system's.
    #[arg(long, value_name = "FILE", env = "AWS_CA_BUNDLE")]
    ca_file: Option<PathBuf>,
    /// Move everything over HTTP, even where the server gives plans.
    #[arg(long)]
    http: bool,
    /// Fail where the server gives no plan.
    #[arg(long, conflicts_with = "http")]
    require_plan: bool,
    /// Requests under way at a time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// JSON objects instead of text, one a line.
    #[arg(long)]
    json: bool,
    /// Say nothing but what goes wrong.
    #[arg(long, short)]
    quiet: bool,
    /// No bar.
    #[arg(long)]
    no_progress: bool,
    /// Say at the end, on standard error, what was moved and how.
    #[arg(long)]
    stats: bool,
}

/// What is copied, and what the copies have.
#[derive(Clone, Debug, Args)]
pub(crate) struct Copying {
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Content-Type of what is uploaded.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// User metadata of what is uploaded. May be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Storage class of what is uploaded.
    #[arg(long, value_name = "CLASS")]
    storage_class: Option<String>,
    /// Bytes of the parts of long uploads, for example 64MiB; 5MiB at least.
    #[arg(long, value_name = "SIZE")]
    part_size: Option<Size>,
    /// Begin anew instead of going on with what an earlier run has left.
    #[arg(long)]
    no_resume: bool,
    /// Leave what is there already as it is: an object is then no longer written over by an upload.
    #[arg(long)]
    no_clobber: bool,
    #[command(flatten)]
    filters: Filters,
}

/// What is done with objects. `s3://BUCKET/KEY` names one.
#[derive(Debug, Subcommand)]
pub(crate) enum Objects {
    /// Copy files and objects: FROM and TO are s3://BUCKET/KEY, a path, or - for standard input or output.
    Cp {
        /// From.
        from: String,
        /// To. What ends in a slash, or is a folder, keeps the name.
        to: String,
        /// All that is in a folder, or under s3://BUCKET/PREFIX/.
        #[arg(long, short)]
        recursive: bool,
        #[command(flatten)]
        copying: Copying,
        #[command(flatten)]
        server: Server,
    },
    /// As cp; what was copied is then removed.
    Mv {
        /// From.
        from: String,
        /// To.
        to: String,
        /// All that is in a folder, or under s3://BUCKET/PREFIX/.
        #[arg(long, short)]
        recursive: bool,
        #[command(flatten)]
        copying: Copying,
        #[command(flatten)]
        server: Server,
    },
    /// Copy what is missing, of another length, or newer, from one folder or prefix to another.
    Sync {
        /// From: a folder or s3://BUCKET/PREFIX.
        from: String,
        /// To: a folder or s3://BUCKET/PREFIX.
        to: String,
        /// Remove what is at TO and not at FROM.
        #[arg(long)]
        delete: bool,
        /// Look at lengths alone.
        #[arg(long)]
        size_only: bool,
        #[command(flatten)]
        copying: Copying,
        #[command(flatten)]
        server: Server,
    },
    /// List buckets, or the objects of s3://BUCKET/PREFIX.
    Ls {
        /// s3://BUCKET or s3://BUCKET/PREFIX; without it, the buckets.
        place: Option<String>,
        /// All keys, not rolled up at slashes.
        #[arg(long, short)]
        recursive: bool,
        /// Sizes in KiB, MiB and so on.
        #[arg(long)]
        human_readable: bool,
        /// How many, and how long together, at the end.
        #[arg(long)]
        summarize: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Write an object to standard output.
    Cat {
        /// s3://BUCKET/KEY.
        object: String,
        /// These bytes alone: FIRST-LAST, FIRST- or -LENGTH.
        #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
        range: Option<String>,
        /// This version.
        #[arg(long, value_name = "ID")]
        version_id: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Say what the server knows of an object.
    Head {
        /// s3://BUCKET/KEY.
        object: String,
        /// This version.
        #[arg(long, value_name = "ID")]
        version_id: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Remove an object; with --recursive all under s3://BUCKET/PREFIX/.
    Rm {
        /// s3://BUCKET/KEY, or s3://BUCKET/PREFIX.
        object: String,
        /// All under the prefix.
        #[arg(long, short)]
        recursive: bool,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        filters: Filters,
        #[command(flatten)]
        server: Server,
    },
    /// Make a bucket.
    Mb {
        /// s3://BUCKET.
        bucket: String,
        #[command(flatten)]
        server: Server,
    },
    /// Remove a bucket, which must be empty.
    Rb {
        /// s3://BUCKET.
        bucket: String,
        /// Remove its objects first.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Print a URL by which whoever has it may read (or, with --method PUT, write) the object.
    Presign {
        /// s3://BUCKET/KEY.
        object: String,
        /// For how long, up to seven days.
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        expires_in: u64,
        /// GET, PUT, HEAD or DELETE.
        #[arg(long, value_name = "METHOD", default_value = "GET", value_parser = ["GET", "PUT", "HEAD", "DELETE"])]
        method: String,
        #[command(flatten)]
        server: Server,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: write NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What the transfers of one command share.
pub(crate) struct Settings {
    pub(crate) resume: bool,
    pub(crate) part_bytes: Option<u64>,
    pub(crate) dry_run: bool,
    pub(crate) parallel: usize,
    pub(crate) filters: Filters,
    /// Places for what is long.
    pub(crate) large: Semaphore,
    put: PutOptions,
    no_clobber: bool,
}

impl Settings {
    fn new(server: &Server, copying: &Copying) -> Result<Self, Failed> {
        let part_bytes = copying.part_size.as_ref().map(|size| size.0);
        if part_bytes.is_some_and(|bytes| !(5 << 20..=5 << 30).contains(&bytes)) {
            return Err(Failed::usage("--part-size: 5MiB to 5GiB".to_owned()));
        }
        let class = copying.storage_class.iter().map(|class| ("x-amz-storage-class".to_owned(), class.clone()));
        let put = PutOptions {
            content_type: copying.content_type.clone(),
            headers: class.collect(),
            user_metadata: copying.metadata.clone(),
            if_none_match: copying.no_clobber,
            ..PutOptions::default()
        };
        Ok(Self {
            resume: !copying.no_resume,
            part_bytes,
            dry_run: copying.dry_run,
            parallel: usize::from(server.parallel),
            filters: copying.filters.clone(),
            large: Semaphore::new(LARGE_MAX),
            put,
            no_clobber: copying.no_clobber,
        })
    }

    /// What the object that this file becomes is to have.
    pub(crate) fn put_options(&self, _from: &Path) -> PutOptions {
        self.put.clone()
    }

    /// Whether headers or metadata were named, which a copy on the server then has instead of its source's.
    pub(crate) fn replaces_headers(&self) -> Option<PutOptions> {
        let named =
            self.put.content_type.is_some() || !self.put.headers.is_empty() || !self.put.user_metadata.is_empty();
        named.then(|| self.put.clone())
    }

    pub(crate) fn no_clobber(&self) -> bool {
        self.no_clobber
    }

    /// Parts of one upload under way at a time.
    pub(crate) fn parts_at_a_time(&self) -> usize {
        self.parallel.min(4)
    }
}

impl Server {
    fn client(&self) -> Result<Client, Failed> {
        let profile = self.profile.clone();
        let variable = move |name: &str| match (name, &profile) {
            ("AWS_PROFILE", Some(profile)) => Some(profile.clone()),
            // A profile that is named is meant: keys in the environment are not.
            ("AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" | "AWS_SESSION_TOKEN", Some(_)) => None,
            _ => std::env::var(name).ok().filter(|value| !value.is_empty()),
        };
        let region = self.region.clone().unwrap_or_else(|| penstock_client::region_from(&variable));
        let endpoint = match &self.endpoint_url {
            Some(url) => Endpoint::parse(url),
            None => Endpoint::from_variables(&variable, &region),
        };
        let options = ClientOptions {
            region,
            mode: if self.http { Mode::Http } else { Mode::Auto },
            require_plan: self.require_plan,
            ca_file: self.ca_file.clone(),
            ..ClientOptions::default()
        };
        let keys = CredentialsProvider::chain_with(variable);
        Client::new(endpoint.map_err(Failed::client)?, keys, options).map_err(Failed::client)
    }
}

impl Objects {
    fn server(&self) -> &Server {
        match self {
            Self::Cp { server, .. }
            | Self::Mv { server, .. }
            | Self::Sync { server, .. }
            | Self::Ls { server, .. }
            | Self::Cat { server, .. }
            | Self::Head { server, .. }
            | Self::Rm { server, .. }
            | Self::Mb { server, .. }
            | Self::Rb { server, .. }
            | Self::Presign { server, .. } => server,
        }
    }
}

/// Does it.
pub(crate) async fn run(what: Objects) -> ExitCode {
    let server = what.server().clone();
    let moves = matches!(what, Objects::Cp { .. } | Objects::Mv { .. } | Objects::Sync { .. });
    let report = Report::new(server.json, server.quiet, moves && !server.no_progress);
    let outcome = match server.client() {
        Ok(client) => {
            let outcome = commands::perform(&client, &report, what).await;
            if server.stats {
                eprintln!("{:#?}", client.stats());
            }
            outcome
        }
        Err(failed) => Err(failed),
    };
    let code = report.end();
    match outcome {
        Ok(()) => ExitCode::from(code),
        Err(failed) => {
            eprintln!("penstock: {}", failed.message);
            ExitCode::from(failed.code)
        }
    }
}
