//! The storm: load, kills, calm, and the look at every key.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use penstock_client::{
    Client, ClientOptions, Credentials, CredentialsProvider, Endpoint, ListEntry, ListOptions, Mode,
};
use penstock_harness::{Progress, Stop};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::history::History;
use crate::load::{self, BUCKET, Counts, Shared};
use crate::{CrashArguments, CrashError};

/// Between kills.
const BETWEEN_MS: std::ops::Range<u64> = 100..1500;
/// How long a killed process stays away.
const AWAY_MS: std::ops::Range<u64> = 0..1500;
/// One kill in so many meets the gateway.
const GATEWAY_ONE_IN: u32 = 4;
/// An operation that takes longer than this has failed.
const OPERATION_MAX: Duration = Duration::from_secs(30);
/// For the tasks to finish what they do.
const LOAD_ENDS_MAX: Duration = Duration::from_secs(120);
/// For a look in the calm: a node that came back is asked again.
const LOOKS_MAX: u32 = 20;
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// For the garbage of killed gateways: their leases, and some.
const ORPHANS_WAIT: Duration = Duration::from_secs(18 * 60);

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    kills: u64,
    verified: u64,
    pub(crate) lost: Vec<String>,
    seed: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills, {} objects verified, lost {}, seed {}",
            self.kills,
            self.verified,
            self.lost.len(),
            self.seed
        )
    }
}

/// The program, built if none was given.
fn program(given: Option<&Path>) -> Result<PathBuf, CrashError> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let this = std::env::current_exe().map_err(|error| CrashError::doing("finding this program", error))?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut build = std::process::Command::new(cargo);
    build.args(["build", "--quiet", "--locked", "--bin", "penstock"]);
    if this.parent().is_some_and(|folder| folder.ends_with("release")) {
        build.arg("--release");
    }
    let status = build.status().map_err(|error| CrashError::doing("building penstock", error))?;
    let built = this.with_file_name("penstock");
    if !status.success() || !built.exists() {
        return Err(CrashError::Setup(
            "penstock can't be built: see above, or name a built one by --penstock".to_owned(),
        ));
    }
    Ok(built)
}

fn client(cluster: &Cluster, mode: Mode) -> Result<Client, CrashError> {
    let keys = cluster.keys()?;
    let endpoint = Endpoint::parse(&cluster.endpoint()).map_err(|error| CrashError::doing("the endpoint", error))?;
    let keys = CredentialsProvider::fixed(Credentials::new(&keys.access_key_id, &keys.secret_access_key));
    // Two tries: what a retry does to an operation that had happened is part of the storm.
    let options = ClientOptions {
        mode,
        tries_max: 2,
        operation_timeout: OPERATION_MAX,
        pool_bytes: 128 << 20,
        ..ClientOptions::default()
    };
    Client::new(endpoint, keys, options).map_err(|error| CrashError::doing("the client", error))
}

/// Runs it.
pub(crate) async fn run(arguments: &CrashArguments) -> Result<Outcome, CrashError> {
    let seed = arguments.seed.unwrap_or_else(|| rand::rng().random());
    let stop = Stop::on_signals().map_err(|error| CrashError::doing("signals", error))?;
    let program = program(arguments.penstock.as_deref())?;
    let folder = tempfile::Builder::new().prefix("penstock-crash-").tempdir_in(&arguments.dir);
    let folder = folder.map_err(|error| CrashError::doing(arguments.dir.display(), error))?;
    let root =
        std::fs::canonicalize(folder.path()).map_err(|error| CrashError::doing(folder.path().display(), error))?;
    let mut cluster = Cluster::start(&program, &root, arguments.nodes).await?;
    let (by_plan, over_http) = (client(&cluster, Mode::Auto)?, client(&cluster, Mode::Http)?);
    over_http.create_bucket(BUCKET).await.map_err(|error| CrashError::doing("making the bucket", error))?;

    let shared = Shared {
        history: Arc::new(History::default()),
        counts: Arc::new(Counts::default()),
        lost: Arc::default(),
        stop: CancellationToken::new(),
    };
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..arguments.writers {
        let each = if number % 2 == 0 { &by_plan } else { &over_http };
        tasks.spawn(load::write(number, each.clone(), seed, shared.clone()));
        tasks.spawn(load::read(number, arguments.writers, each.clone(), seed, shared.clone()));
    }
    let killed = kill(arguments, seed, &mut cluster, &shared, &stop).await;
    shared.stop.cancel();
    let ended = tokio::time::timeout(LOAD_ENDS_MAX, async { while tasks.join_next().await.is_some() {} }).await;
    let kills = match killed {
        Ok(kills) => kills,
        Err(error) => {
            let kept = folder.keep();
            return Err(CrashError::Setup(format!("{error} (seed {seed}; everything is kept in {})", kept.display())));
        }
    };
    if ended.is_err() {
        shared.lost.lock().push(format!("an operation hangs: it did not end within {LOAD_ENDS_MAX:?}"));
        tasks.abort_all();
    }
    cluster.start_all().await?;

    let verified = verify(&over_http, &shared).await;
    let counts = &shared.counts;
    let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    eprintln!(
        "crash: {} writes acknowledged, {} failed; {} reads, {} failed",
        of(&counts.acknowledged),
        of(&counts.failed),
        of(&counts.reads),
        of(&counts.failed_reads)
    );
    if of(&counts.acknowledged) == 0 {
        shared.lost.lock().push("no write was ever acknowledged: this was no load".to_owned());
    }
    if arguments.orphans && shared.lost.lock().is_empty() {
        orphans(&mut cluster, &over_http, &shared).await?;
    } else {
        cluster.stop().await?;
    }
    let lost = shared.lost.lock().clone();
    if !lost.is_empty() {
        eprintln!("crash: everything is kept in {}", folder.keep().display());
    }
    Ok(Outcome { kills, verified, lost, seed })
}

/// Kills and starts again until the time is over.
async fn kill(
    arguments: &CrashArguments,
    seed: u64,
    cluster: &mut Cluster,
    shared: &Shared,
    stop: &Stop,
) -> Result<u64, CrashError> {
    let mut random = StdRng::seed_from_u64(seed.rotate_left(17));
    let mut progress = Progress::new(arguments.seconds as f64);
    let started = Instant::now();
    let until = started + Duration::from_secs(arguments.seconds);
    let mut kills = 0;
    let mut told = 0.0;
    while Instant::now() < until && arguments.kills.is_none_or(|most| kills < most) && !stop.asked() {
        tokio::time::sleep(Duration::from_millis(random.random_range(BETWEEN_MS))).await;
        if random.random_range(0..GATEWAY_ONE_IN) == 0 {
            cluster.gateway.kill().await?;
            kills += 1;
            // Nodes may go with it: a power cut of a part.
            if arguments.down > 0 && random.random_range(0..3) == 0 {
                let node = random.random_range(0..cluster.nodes.len());
                cluster.nodes[node].kill().await?;
                kills += 1;
            }
        } else {
            for _ in 0..random.random_range(1..=arguments.down.max(1)) {
                let node = random.random_range(0..cluster.nodes.len());
                if cluster.nodes[node].is_running() {
                    cluster.nodes[node].kill().await?;
                    kills += 1;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(AWAY_MS))).await;
        cluster.start_all().await?;
        let elapsed = started.elapsed().as_secs_f64();
        progress.advance(elapsed - told);
        told = elapsed;
        let acknowledged = shared.counts.acknowledged.load(Ordering::Relaxed);
        progress
            .doing(&format!("{kills} kills, {acknowledged} writes acknowledged, lost {}", shared.lost.lock().len()));
    }
    progress.finish();
    Ok(kills)
}

/// Looks at every key of the quiet store, and at its listing; gives how many keys were looked at.
async fn verify(client: &Client, shared: &Shared) -> u64 {
    let keys = shared.history.keys();
    let mut present = Vec::new();
    for key in &keys {
        let Some(glance) = shared.history.glance(key) else { continue };
        let mut outcome = load::look(client, key).await;
        for _ in 0..LOOKS_MAX {
            if outcome.is_ok() {
                break;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            outcome = load::look(client, key).await;
        }
        match outcome {
            Ok(state) => {
                if let Err(why) = shared.history.judge(key, &glance, state) {
                    shared.lost.lock().push(why);
                }
                shared.history.settle(key, state);
                if state.is_some() {
                    present.push(key.clone());
                }
            }
            Err(error) => shared.lost.lock().push(format!("{key} can't be read: {error}")),
        }
    }
    let listed: Vec<Result<String, String>> = client
        .list(BUCKET, ListOptions::default())
        .filter_map(|entry| async {
            match entry {
                Ok(ListEntry::Object { key, .. }) => Some(Ok(key)),
                Ok(_) => None,
                Err(error) => Some(Err(error.to_string())),
            }
        })
        .collect()
        .await;
    match listed.into_iter().collect::<Result<Vec<_>, _>>() {
        Ok(listed) if listed == present => {}
        Ok(listed) => {
            let differs = listed
                .iter()
                .find(|key| !present.contains(key))
                .or_else(|| present.iter().find(|key| !listed.contains(key)));
            shared.lost.lock().push(format!("the listing and the objects differ, at {differs:?}"));
        }
        Err(error) => shared.lost.lock().push(format!("the bucket can't be listed: {error}")),
    }
    keys.len() as u64
}

/// Deletes everything, waits for the garbage, stops, and looks into the stores.
async fn orphans(cluster: &mut Cluster, client: &Client, shared: &Shared) -> Result<(), CrashError> {
    for key in shared.history.keys() {
        client.delete(BUCKET, &key).await.map_err(|error| CrashError::doing("deleting everything", error))?;
    }
    let uploads = client.list_uploads(BUCKET, "").await.map_err(|error| CrashError::doing("listing uploads", error))?;
    for upload in uploads {
        let aborted = client.abort_upload(BUCKET, &upload.key, &upload.upload).await;
        aborted.map_err(|error| CrashError::doing("aborting uploads", error))?;
    }
    let mut progress = Progress::new(ORPHANS_WAIT.as_secs_f64());
    let step = Duration::from_secs(5);
    let mut waited = Duration::ZERO;
    while waited < ORPHANS_WAIT {
        progress.doing("waiting for write leases and garbage");
        tokio::time::sleep(step).await;
        waited += step;
        progress.advance(step.as_secs_f64());
    }
    progress.finish();
    cluster.stop().await?;
    for node in 0..cluster.nodes.len() {
        let shards = cluster.shards(node).await?;
        if shards > 0 {
            shared.lost.lock().push(format!("node-{node} holds {shards} shards that nobody owns"));
        }
    }
    Ok(())
}
