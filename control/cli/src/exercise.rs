//! `penstock exercise`: PUTs and GETs through a running store every way that there is, and compares. What the lab runs end to
//! end, and what an operator runs to see that payload goes where it should: straight to the nodes, over RDMA where there is a
//! device.
//!
//! For each size: a PUT by plan from lent memory, read back over plain HTTP and by plan into lent memory; and a PUT over HTTP,
//! read by plan. At the end it says what went which way. **How it fails.** The first byte or checksum that differs, any
//! operation that fails, and with `--rdma require` any payload that did not go over RDMA, end it with an error.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_client::{
    BufMut, Client, ClientOptions, ClientStats, Credentials, CredentialsProvider, Endpoint, GetOptions, Mode,
    PutOptions,
};
use penstock_digest::crc64nvme;
use serde_json::json;

use crate::Fatal;
use crate::config::{Size, SizeOrNone};
use crate::identity::RootCredentials;
use crate::rails;

/// Whether payload is to go over RDMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Rdma {
    /// Where both sides have a device; else TCP.
    Auto,
    /// TCP alone.
    Off,
    /// Or it is an error.
    Require,
}

/// PUT and GET through a running store every way there is (RDMA, TCP, HTTP), and compare.
#[derive(Debug, clap::Args)]
pub(crate) struct Exercise {
    /// The store. Keys are found as AWS's tools find them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, files, roles.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9000", env = "AWS_ENDPOINT_URL")]
    endpoint: String,
    /// Use the root key pair of the store in this folder, on this machine.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A bucket to work in; it is made if it is not there, and objects in it that begin with `exercise/` are replaced.
    #[arg(long, value_name = "NAME", default_value = "exercise")]
    bucket: String,
    /// Lengths of objects.
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', default_value = "1,4KiB,200KiB,1MiB,9MiB")]
    sizes: Vec<Size>,
    /// Whether payload is to go over RDMA.
    #[arg(long, value_enum, default_value_t = Rdma::Auto)]
    rdma: Rdma,
    /// After all that: so many GETs more, of the objects in turn, the largest first; a line each.
    #[arg(long, value_name = "N", default_value_t = 0)]
    gets: u32,
    /// Bodies up to this long may travel with the request: over HTTP, as payload in the gateway. 0: none.
    #[arg(long, value_name = "SIZE", default_value = "128KiB")]
    inline: SizeOrNone,
    /// How long a read by plan waits for a shard before it asks another node. Longer than usual where everything is slow.
    #[arg(long, value_name = "MILLISECONDS")]
    hedge_after: Option<u64>,
    /// What plain HTTP has to do with it.
    #[arg(long, value_enum, default_value_t = Http::Both)]
    http: Http,
}

/// What plain HTTP has to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Http {
    /// Nothing: no payload passes through the gateway.
    None,
    /// What was written by plan is read over HTTP.
    Read,
    /// That, and what was written over HTTP is read by plan.
    Both,
}

/// What is the same for every size.
struct Session {
    bucket: String,
    /// By plan.
    native: Client,
    /// Over HTTP.
    plain: Client,
    http: Http,
}

/// Fills `into` with bytes that no other seed has.
fn fill(into: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for chunk in into.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

#[allow(clippy::print_stdout, reason = "a command for people: it prints its results")]
fn say(line: &str) {
    println!("{line}");
    // Whoever reads it through a pipe waits for it.
    drop(std::io::stdout().flush());
}

/// Runs it.
pub(crate) async fn run(arguments: Exercise) -> Result<(), Fatal> {
    let endpoint = Endpoint::parse(&arguments.endpoint).map_err(|error| Fatal(error.to_string()))?;
    let keys = match &arguments.data {
        None => CredentialsProvider::aws_chain(),
        Some(folder) => {
            let root = RootCredentials::read(folder)?;
            CredentialsProvider::fixed(Credentials::new(root.access_key_id, root.secret_access_key))
        }
    };
    let dialer = match arguments.rdma {
        Rdma::Off => None,
        Rdma::Auto | Rdma::Require => Some(rails::dialer()?),
    };
    if let (Rdma::Require, Some(obstacle)) = (arguments.rdma, dialer.as_ref().and_then(|dialer| dialer.obstacle())) {
        return Err(Fatal(format!("--rdma require: {obstacle}")));
    }
    let client =
        |options| Client::new(endpoint.clone(), keys.clone(), options).map_err(|error| Fatal(error.to_string()));
    let native = client(ClientOptions {
        require_plan: true,
        require_rdma: arguments.rdma == Rdma::Require,
        dialers: dialer.iter().map(|dialer| Arc::clone(dialer) as _).collect(),
        inline_bytes_max: arguments.inline.bytes(),
        hedge_delay: arguments.hedge_after.map(Duration::from_millis),
        ..ClientOptions::default()
    })?;
    let plain = client(ClientOptions { mode: Mode::Http, ..ClientOptions::default() })?;
    let session = Session { bucket: arguments.bucket, native, plain, http: arguments.http };
    let failed = |error: penstock_client::ClientError| Fatal::doing(&arguments.endpoint, error);
    session.plain.create_bucket(&session.bucket).await.map_err(failed)?;
    let largest = arguments.sizes.iter().map(|size| size.0).max().unwrap_or(1) as usize;
    let memory = || session.native.region(largest).map_err(|error| Fatal(error.to_string()));
    let (mut from, mut into) = (memory()?, memory()?);
    for (Size(bytes), seed) in arguments.sizes.iter().copied().zip(1..) {
        (from, into) = session.one(bytes as usize, seed, from, into).await?;
    }
    let mut sizes: Vec<usize> = arguments.sizes.iter().map(|size| size.0 as usize).collect();
    sizes.sort_unstable_by_key(|bytes| std::cmp::Reverse(*bytes));
    for (number, bytes) in (1..=arguments.gets).zip(sizes.into_iter().cycle()) {
        let began = Instant::now();
        into.fill(0);
        let (target, rest) = first(into, bytes);
        into = joined(session.get_again(bytes, target).await?, rest)?;
        say(&format!("get {number} of {}: {bytes} B in {:.1?}", arguments.gets, began.elapsed()));
    }
    drop((from, into));
    let stats = session.native.stats();
    say(&summary(&stats).to_string());
    if let Some(dialer) = &dialer {
        say(&format!("{:?}", dialer.counts()));
    }
    if arguments.rdma == Rdma::Require {
        let others = stats.read_bytes.keys().chain(stats.written_bytes.keys()).find(|name| **name != "rdma");
        let inline_is_http = arguments.inline.bytes() > 0 && others == Some(&"http");
        if let Some(other) = others.filter(|_| !inline_is_http) {
            return Err(Fatal(format!("RDMA was required, and payload went over {other}")));
        }
    }
    Ok(())
}

fn summary(stats: &ClientStats) -> serde_json::Value {
    json!({
        "read_bytes": stats.read_bytes,
        "written_bytes": stats.written_bytes,
        "copied_bytes": stats.copied_bytes,
        "by_plan": stats.by_plan,
        "decoded_stripes": stats.decoded_stripes,
        "fallbacks": stats.fallbacks,
        "other_ways": stats.other_ways,
        "retries": stats.retries,
    })
}

/// The first `bytes` of `whole`, and the rest.
fn first(mut whole: BufMut, bytes: usize) -> (BufMut, BufMut) {
    let rest = whole.split_off(bytes);
    (whole, rest)
}

fn joined(first: BufMut, rest: BufMut) -> Result<BufMut, Fatal> {
    first.rejoin(rest).map_err(|_| Fatal("memory that was lent came back in another place".to_owned()))
}

impl Session {
    fn failed(what: &str, key: &str) -> impl Fn(penstock_client::ClientError) -> Fatal {
        let doing = format!("{what} {key}");
        move |error| Fatal::doing(&doing, error)
    }

    fn same(what: &str, expected: &[u8], bytes: &[u8]) -> Result<(), Fatal> {
        if expected == bytes {
            return Ok(());
        }
        let at = expected.iter().zip(bytes).position(|(a, b)| a != b).unwrap_or(expected.len().min(bytes.len()));
        Err(Fatal(format!(
            "{what}: other bytes than were written, from byte {at} of {} on (CRC64NVME {:016x}, not {:016x})",
            bytes.len(),
            crc64nvme(bytes),
            crc64nvme(expected)
        )))
    }

    /// One size, every way. `from` and `into` are memory at least as long, and come back.
    async fn one(&self, bytes: usize, seed: u64, from: BufMut, into: BufMut) -> Result<(BufMut, BufMut), Fatal> {
        let began = Instant::now();
        let (bucket, key) = (self.bucket.as_str(), format!("exercise/{bytes}"));
        let (mut source, source_rest) = first(from, bytes);
        let (mut target, target_rest) = first(into, bytes);
        fill(&mut source, seed);
        // Lent to read from, and claimed, so that it comes back to be written to.
        let (source, claim) = source.claimed();
        let source = source.freeze();
        let before = self.native.stats();
        let put = self.native.put_buffer(bucket, &key, &source, PutOptions::default());
        let put = put.await.map_err(Self::failed("PUT by plan", &key))?;
        let expected_crc64 = crc64nvme(&source);
        if put.crc64 != Some(expected_crc64) {
            return Err(Fatal(format!("PUT by plan {key}: CRC64NVME {:016x?}, not {expected_crc64:016x}", put.crc64)));
        }
        target.fill(0);
        let got = self.native.get_into_buffer(bucket, &key, &GetOptions::default(), target).await;
        let (info, mut target) = got.map_err(Self::failed("GET by plan", &key))?;
        Self::same(&format!("GET by plan {key}"), &source, &target)?;
        if info.crc64.is_some_and(|crc64| crc64 != expected_crc64) {
            return Err(Fatal(format!("GET by plan {key}: the object's checksum is another")));
        }
        let moved = self.native.stats();
        if self.http != Http::None {
            target.fill(0);
            let got = self.plain.get_into_buffer(bucket, &key, &GetOptions::default(), target).await;
            target = got.map_err(Self::failed("GET over HTTP", &key))?.1;
            Self::same(&format!("GET over HTTP {key}"), &source, &target)?;
        }
        if self.http == Http::Both {
            let other = format!("{key}-http");
            let put = self.plain.put_buffer(bucket, &other, &source, PutOptions::default());
            put.await.map_err(Self::failed("PUT over HTTP", &other))?;
            target.fill(0);
            let got = self.native.get_into_buffer(bucket, &other, &GetOptions::default(), target).await;
            target = got.map_err(Self::failed("GET by plan", &other))?.1;
            Self::same(&format!("GET by plan {other}"), &source, &target)?;
        }
        drop(source);
        let source = taken(claim).await?;
        let copied = moved.copied_bytes - before.copied_bytes;
        say(&format!("{bytes} B: every way the same; {copied} B copied; {:.1?}", began.elapsed()));
        Ok((joined(source, source_rest)?, joined(target, target_rest)?))
    }

    /// The largest object again, by plan, checked by its checksum.
    async fn get_again(&self, bytes: usize, into: BufMut) -> Result<BufMut, Fatal> {
        let key = format!("exercise/{bytes}");
        let got = self.native.get_into_buffer(&self.bucket, &key, &GetOptions::default(), into).await;
        let (info, into) = got.map_err(Self::failed("GET by plan", &key))?;
        match info.crc64 {
            Some(crc64) if crc64 == crc64nvme(&into) => Ok(into),
            _ => Err(Fatal(format!("GET by plan {key}: its bytes have another checksum"))),
        }
    }
}

/// Memory that was lent to be read from, when nobody reads it any more.
async fn taken(mut claim: penstock_buf::Claim) -> Result<BufMut, Fatal> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        claim = match claim.try_take() {
            Ok(memory) => return Ok(memory),
            Err(claim) => claim,
        };
        if Instant::now() > until {
            return Err(Fatal("memory that a node was lent has not come back within 20 s".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
