//! Writers and readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use penstock_client::{Client, ClientError, CopyOptions, CopySource, ErrorKind, PutOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::history::{History, State, state_of};

pub(crate) const BUCKET: &str = "storm";
/// Keys of one writer.
const KEYS: u32 = 16;
/// Bytes of objects: empty, tiny, small, of several stripes.
const SIZES: [usize; 7] = [0, 1, 900, 4 << 10, 100_000, 1 << 20, 9 << 20];
/// Least bytes of a part that is not the last.
const PART_BYTES: usize = 5 << 20;
/// After a failure: the process that was killed is not back yet.
const PAUSE: Duration = Duration::from_millis(50);

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) acknowledged: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) failed_reads: AtomicU64,
}

/// What all tasks share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) history: Arc<History>,
    pub(crate) counts: Arc<Counts>,
    /// What readers found lost.
    pub(crate) lost: Arc<parking_lot::Mutex<Vec<String>>>,
    pub(crate) stop: CancellationToken,
}

/// What a failure means for the model.
enum Verdict {
    /// The operation may have happened.
    Unknown,
    /// A refusal that a correct store never gives here.
    Wrong(String),
}

fn verdict(error: &ClientError) -> Verdict {
    match (error.status(), error.kind()) {
        // Processes go away under requests: connections break, shards can't be written, uploads can't be found by a retry of
        // what the first try had done.
        (None | Some(404 | 408 | 409 | 429 | 500..), kind) if kind != ErrorKind::Corrupt => Verdict::Unknown,
        _ => Verdict::Wrong(error.to_string()),
    }
}

/// Writes on keys of its own until it is told to stop.
pub(crate) async fn write(number: u16, client: Client, seed: u64, shared: Shared) {
    let mut random = StdRng::seed_from_u64(seed ^ (u64::from(number) << 32));
    while !shared.stop.is_cancelled() {
        let key = format!("writer-{number:03}/{:02}", random.random_range(0..KEYS));
        let outcome = step(&client, &key, &mut random, &shared.history).await;
        match outcome {
            Ok(()) => {
                shared.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                shared.counts.failed.fetch_add(1, Ordering::Relaxed);
                if let Verdict::Wrong(why) = verdict(&error) {
                    shared.lost.lock().push(format!("{key}: a write was refused: {why}"));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// One operation.
async fn step(client: &Client, key: &str, random: &mut StdRng, history: &History) -> Result<(), ClientError> {
    let kind = random.random_range(0..100);
    if kind < 12 {
        history.begin(key, None);
        client.delete(BUCKET, key).await?;
        history.acknowledge(key, None);
        return Ok(());
    }
    let mut data = vec![0; SIZES[random.random_range(0..SIZES.len())]];
    random.fill(&mut data[..]);
    if kind < 22 {
        return upload(client, key, data, random, history).await;
    }
    let state = state_of([&data[..]]);
    if kind < 30 {
        // A copy: what is copied is written first, under a key of the same writer.
        let from = format!("{key}-source");
        history.begin(&from, state);
        client.put(BUCKET, &from, &data, PutOptions::default()).await?;
        history.acknowledge(&from, state);
        history.begin(key, state);
        client.copy(&CopySource::new(BUCKET, &from), BUCKET, key, &CopyOptions::default()).await?;
        history.acknowledge(key, state);
        return Ok(());
    }
    history.begin(key, state);
    client.put(BUCKET, key, &data, PutOptions::default()).await?;
    history.acknowledge(key, state);
    Ok(())
}

/// An upload in parts; some are given up.
async fn upload(
    client: &Client,
    key: &str,
    last: Vec<u8>,
    random: &mut StdRng,
    history: &History,
) -> Result<(), ClientError> {
    let options = PutOptions::default();
    let upload = client.create_upload(BUCKET, key, &options).await?;
    let mut first = vec![0; PART_BYTES];
    random.fill(&mut first[..]);
    // A last part of no bytes would be refused.
    let parts: Vec<&[u8]> = if last.is_empty() { vec![&first] } else { vec![&first, &last] };
    let mut done = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        done.push(client.upload_part(BUCKET, key, &upload, index as u32 + 1, &[part]).await?);
    }
    if random.random_range(0..4) == 0 {
        return client.abort_upload(BUCKET, key, &upload).await;
    }
    let state = state_of(parts);
    history.begin(key, state);
    client.complete_upload(BUCKET, key, &upload, &done, &options).await?;
    history.acknowledge(key, state);
    Ok(())
}

/// What a key holds now.
pub(crate) async fn look(client: &Client, key: &str) -> Result<State, ClientError> {
    match client.get(BUCKET, key).await {
        Ok(object) => Ok(state_of(object.body.pieces().iter().map(|piece| &piece[..]))),
        Err(error) if error.status() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads anybody's keys until it is told to stop.
pub(crate) async fn read(number: u16, writers: u16, client: Client, seed: u64, shared: Shared) {
    let mut random = StdRng::seed_from_u64(!seed ^ (u64::from(number) << 32));
    while !shared.stop.is_cancelled() {
        let key = format!("writer-{:03}/{:02}", random.random_range(0..writers), random.random_range(0..KEYS));
        let Some(glance) = shared.history.glance(&key) else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        match look(&client, &key).await {
            Ok(state) => {
                shared.counts.reads.fetch_add(1, Ordering::Relaxed);
                if let Err(why) = shared.history.judge(&key, &glance, state) {
                    shared.lost.lock().push(format!("under load: {why}"));
                }
            }
            Err(error) => {
                shared.counts.failed_reads.fetch_add(1, Ordering::Relaxed);
                if let Verdict::Wrong(why) = verdict(&error) {
                    shared.lost.lock().push(format!("{key}: a read was refused: {why}"));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
