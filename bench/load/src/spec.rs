//! What to run, checked before anything is sent.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::LoadError;

/// Most connections of one run.
pub const CONNECTIONS_MAX: usize = 1024;
/// Most objects that a run reads from.
pub const OBJECTS_MAX: u64 = 10_000_000;
/// Largest object, in bytes: 5 GiB, the most that one PUT may have.
pub const OBJECT_BYTES_MAX: u64 = 5 << 30;
/// Smallest part of a multipart upload, in bytes; S3's rule.
pub const PART_BYTES_MIN: u64 = 5 << 20;
/// Most requests per second that an open loop may ask for.
pub const RATE_MAX: f64 = 1e7;

/// One of the operations that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// PutObject, or a whole multipart upload.
    Put,
    /// GetObject, or a range of it.
    Get,
    /// HeadObject.
    Head,
    /// ListObjectsV2, one page.
    List,
    /// DeleteObject.
    Delete,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Put, Self::Get, Self::Head, Self::List, Self::Delete];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::List => "LIST",
            Self::Delete => "DELETE",
        }
    }
}

/// How often each operation comes, relative to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mix {
    /// By operation, in the order of [`Operation::ALL`].
    pub weights: [u32; 5],
}

impl Mix {
    /// One operation alone.
    pub fn only(operation: Operation) -> Self {
        Self { weights: Operation::ALL.map(|each| u32::from(each == operation)) }
    }

    /// The weight of one operation.
    pub fn weight(&self, operation: Operation) -> u32 {
        self.weights[operation as usize]
    }

    /// The operations that it has.
    pub fn operations(&self) -> impl Iterator<Item = Operation> + '_ {
        Operation::ALL.into_iter().filter(|operation| self.weight(*operation) > 0)
    }

    /// The operation that a number below the sum of the weights falls on.
    pub(crate) fn pick(&self, mut number: u32) -> Operation {
        for operation in self.operations() {
            match number.checked_sub(self.weight(operation)) {
                Some(rest) => number = rest,
                None => return operation,
            }
        }
        Operation::Get
    }

    pub(crate) fn sum(&self) -> u32 {
        self.weights.iter().fold(0, |sum, weight| sum.saturating_add(*weight))
    }
}

impl FromStr for Mix {
    type Err = LoadError;

    /// `get` or `put=20,get=70,head=10`.
    fn from_str(text: &str) -> Result<Self, LoadError> {
        let mut mix = Self::default();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let operation = Operation::ALL.into_iter().find(|each| each.name().eq_ignore_ascii_case(name.trim()));
            let bad = || {
                let message =
                    format!("{part:?} is no part of a mix: write put, get, head, list or delete, as in put=20,get=80");
                LoadError::Spec(message)
            };
            let operation = operation.ok_or_else(bad)?;
            mix.weights[operation as usize] = weight.trim().parse().map_err(|_| bad())?;
        }
        Ok(mix)
    }
}

/// How large objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// All the same, in bytes.
    Fixed(u64),
    /// Some small and the rest large, as in a training store: 80 % of objects are labels and thumbnails, 20 % are shards.
    Bimodal {
        /// Bytes of the small ones.
        small: u64,
        /// Bytes of the large ones.
        large: u64,
        /// How many of 100 objects are small.
        small_percent: u8,
    },
}

impl Sizes {
    /// The size of object `index`; always the same.
    pub(crate) fn of(self, index: u64) -> u64 {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Bimodal { small, large, small_percent } => {
                // Scattered, so that any run of indices has both.
                let scattered = (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 100;
                if scattered < u64::from(small_percent) { small } else { large }
            }
        }
    }

    pub(crate) fn max(self) -> u64 {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Bimodal { small, large, .. } => small.max(large),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(bytes) => write!(f, "{bytes}"),
            Self::Bimodal { small, large, small_percent } => {
                write!(f, "{small_percent}% {small}, {}% {large}", 100 - small_percent)
            }
        }
    }
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each connection sends its next request when it has the answer to the last.
    Closed,
    /// This many requests are due every second; latency counts from when they were.
    Open {
        /// Requests per second, of all connections together.
        per_second: f64,
    },
}

/// An access key and its secret.
#[derive(Clone)]
pub struct Keys {
    /// The access key id.
    pub access: String,
    /// The secret.
    pub secret: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("access", &self.access).finish_non_exhaustive()
    }
}

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port`.
    pub authority: String,
}

impl FromStr for Endpoint {
    type Err = LoadError;

    /// `http://host[:port]`.
    fn from_str(text: &str) -> Result<Self, LoadError> {
        let bad = |why: &str| LoadError::Spec(format!("the endpoint {text:?} {why}: write http://HOST:PORT"));
        if text.starts_with("https://") {
            return Err(bad(
                "asks for TLS, which this load generator does not speak; put a TLS proxy before it, or measure without",
            ));
        }
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if authority.is_empty() || authority.contains(['/', '@', '?', ' ']) {
            return Err(bad("is none"));
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(Self { authority: if has_port { authority.to_owned() } else { format!("{authority}:80") } })
    }
}

/// A run.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Where.
    pub endpoint: Endpoint,
    /// As whom; `None` sends nothing signed, as to a web server.
    pub keys: Option<Keys>,
    /// The region that signatures name.
    pub region: String,
    /// The bucket; made by [`crate::Load::prepare`] if it is not there.
    pub bucket: String,
    /// What keys begin with. Listings expect this run's objects below it and no others.
    pub prefix: String,
    /// What is sent.
    pub mix: Mix,
    /// How large objects are.
    pub sizes: Sizes,
    /// How many objects are put before the run, and read in it.
    pub objects: u64,
    /// Connections, each with one request in flight.
    pub connections: usize,
    /// When requests are sent.
    pub pace: Pace,
    /// How long the run lasts; requests in flight are then awaited.
    pub duration: Duration,
    /// How long the same is done before, without being counted.
    pub warm_up: Duration,
    /// Whether the signature covers the SHA-256 of what is put; else `UNSIGNED-PAYLOAD`.
    pub signed_payloads: bool,
    /// Objects larger than this are put in parts of this many bytes.
    pub part_bytes: Option<u64>,
    /// GETs ask for this many bytes at a random offset.
    pub range_bytes: Option<u64>,
    /// Keys of one listing.
    pub list_keys: u32,
    /// How long an answer, or its next byte, may take.
    pub stall_timeout: Duration,
    /// Processes on this machine whose CPU time is the server's.
    pub server_pids: Vec<u32>,
    /// Makes the order of operations and keys repeatable.
    pub seed: u64,
}

impl Spec {
    /// A closed loop of GETs of 4 KiB over 16 connections for 10 seconds.
    pub fn new(endpoint: Endpoint, keys: Option<Keys>) -> Self {
        Self {
            endpoint,
            keys,
            region: "us-east-1".to_owned(),
            bucket: "penstock-bench".to_owned(),
            prefix: "load/".to_owned(),
            mix: Mix::only(Operation::Get),
            sizes: Sizes::Fixed(4096),
            objects: 1000,
            connections: 16,
            pace: Pace::Closed,
            duration: Duration::from_secs(10),
            warm_up: Duration::from_secs(1),
            signed_payloads: true,
            part_bytes: None,
            range_bytes: None,
            list_keys: 1000,
            stall_timeout: Duration::from_secs(10),
            server_pids: Vec::new(),
            seed: 1,
        }
    }

    /// # Errors
    /// [`LoadError::Spec`], with what to change.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let say = |message: String| Err(LoadError::Spec(message));
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            return say(format!("{} connections: choose 1 to {CONNECTIONS_MAX}", self.connections));
        }
        if self.mix.sum() == 0 {
            return say("the mix has no operation: give at least one a weight".to_owned());
        }
        if !(1..=OBJECTS_MAX).contains(&self.objects) {
            return say(format!("{} objects: choose 1 to {OBJECTS_MAX}", self.objects));
        }
        if self.sizes.max() > OBJECT_BYTES_MAX {
            return say(format!("objects of {} bytes: choose at most {OBJECT_BYTES_MAX}", self.sizes.max()));
        }
        if let Sizes::Bimodal { small_percent, .. } = self.sizes
            && small_percent > 100
        {
            return say(format!("{small_percent} % of objects can't be small"));
        }
        if let Some(part) = self.part_bytes.filter(|part| *part < PART_BYTES_MIN) {
            return say(format!("parts of {part} bytes: S3 takes no less than {PART_BYTES_MIN}"));
        }
        if self.range_bytes == Some(0) {
            return say("a range of no bytes: leave it out to read whole objects".to_owned());
        }
        if !(1..=1000).contains(&self.list_keys) {
            return say(format!("{} keys a listing: S3 gives 1 to 1000", self.list_keys));
        }
        if let Pace::Open { per_second } = self.pace
            && !(per_second > 0.0 && per_second <= RATE_MAX)
        {
            return say(format!("a rate of {per_second} per second: choose more than 0 and at most {RATE_MAX}"));
        }
        if self.duration.is_zero() || self.stall_timeout.is_zero() {
            return say("the duration and the stall timeout must be longer than nothing".to_owned());
        }
        let unreserved = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/".contains(&b));
        if self.bucket.is_empty() || self.bucket.contains('/') || !unreserved(&self.bucket) || !unreserved(&self.prefix)
        {
            return say("bucket and prefix are letters, digits, and - . _ ~ (and / in the prefix)".to_owned());
        }
        Ok(())
    }
}
