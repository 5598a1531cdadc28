//! The scrub: reads every shard of the store within a period, and notices what has rotted while nobody read it.
//!
//! A cycle goes through all shards in the order of their keys, in steps of some MiB with pauses between, so fast that it
//! is through within the period, and then begins anew. How far it is, is kept in a small file beside the device: a node
//! that is started again goes on there. What is found damaged is marked in the store and told to whoever asks
//! ([`penstock_proto::wire::NodeRequest::List`]); the node repairs nothing by itself, for it knows no other copy.
//!
//! How it fails: a step that can't be done (no buffers) is tried again after the next pause; a file that can't be read is
//! a scrub that begins anew, and one that can't be written a warning.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use penstock_proto::wire::ScrubProgress;
use penstock_proto::{Clock, ShardKey};
use penstock_store::{ShardStore, StoreError};
use tokio::sync::Notify;

/// How long a cycle takes, by default.
pub const SCRUB_PERIOD: Duration = Duration::from_secs(14 * 24 * 3600);
/// Bytes of one step.
const STEP_BYTES: u64 = 8 << 20;
/// Longest pause between two steps: of an empty node, too, so that it notices when it is no longer empty.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A cycle reads so much faster than its period asks for: shards come while it runs, and nodes are stopped at times.
const HASTE_PERCENT: u128 = 110;
/// The first line of the file.
const FILE_HEAD: &str = "penstock scrub 1";

/// How a node scrubs.
#[derive(Clone, Debug)]
pub struct ScrubOptions {
    /// How long a cycle may take.
    pub period: Duration,
    /// Where progress is kept; none keeps it in memory alone.
    pub file: Option<PathBuf>,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { period: SCRUB_PERIOD, file: None }
    }
}

/// Where the scrub is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    progress: ScrubProgress,
    after: Option<ShardKey>,
}

#[derive(Debug, Default)]
struct Now {
    place: Place,
    /// A cycle that was asked for: its speed.
    bytes_per_s: Option<u64>,
}

/// The scrub of one node.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    now: Mutex<Now>,
    asked: Notify,
}

impl Scrub {
    pub(crate) fn progress(&self) -> ScrubProgress {
        self.now.lock().place.progress
    }

    /// Begins a cycle at this speed.
    pub(crate) fn begin(&self, bytes_per_s: u64, now_unix_ms: u64) {
        let mut now = self.now.lock();
        now.bytes_per_s = Some(bytes_per_s.max(1));
        now.place.restart(now_unix_ms);
        drop(now);
        self.asked.notify_one();
    }

    /// Scrubs until the store is closed.
    pub(crate) async fn run(&self, store: &ShardStore, clock: &dyn Clock, options: &ScrubOptions) {
        if let Some(place) = options.file.as_ref().and_then(|file| read(file)) {
            self.now.lock().place = place;
        }
        if self.now.lock().place.progress.began_unix_ms == 0 {
            self.now.lock().place.restart(clock.now_unix_ms());
        }
        loop {
            let Ok(pause) = self.step(store, clock, options).await else { return };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.asked.notified() => {}
            }
        }
    }

    /// One step. Answers how long to pause after it.
    async fn step(
        &self,
        store: &ShardStore,
        clock: &dyn Clock,
        options: &ScrubOptions,
    ) -> Result<Duration, StoreError> {
        let (before, asked_bytes_per_s) = {
            let now = self.now.lock();
            (now.place, now.bytes_per_s)
        };
        let step = match store.scrub_step(before.after, STEP_BYTES).await {
            Ok(step) => step,
            Err(StoreError::Closed) => return Err(StoreError::Closed),
            Err(error) => {
                tracing::debug!(%error, "a step of the scrub is put off");
                return Ok(Duration::from_secs(1));
            }
        };
        let pause = match asked_bytes_per_s {
            Some(bytes_per_s) => Duration::from_micros(step.bytes.saturating_mul(1_000_000) / bytes_per_s),
            None => pause(step.bytes, store.status().live_bytes, options.period),
        };
        if !step.bad.is_empty() {
            tracing::warn!(shards = step.bad.len(), first = %step.bad[0], "the scrub has found damaged shards");
        }
        let place = {
            let mut now = self.now.lock();
            // A cycle that was asked for meanwhile begins at the beginning.
            if now.place.progress.began_unix_ms == before.progress.began_unix_ms && now.place.after == before.after {
                let progress = &mut now.place.progress;
                progress.shards += step.shards;
                progress.bytes += step.bytes;
                progress.bad += step.bad.len() as u64;
                now.place.after = step.next;
                if step.next.is_none() {
                    let Place { progress, .. } = now.place;
                    tracing::info!(progress.shards, progress.bytes, progress.bad, "every shard has been scrubbed");
                    let at = clock.now_unix_ms();
                    now.place.progress.last_ended_unix_ms = at.max(1);
                    now.place.restart(at);
                    now.bytes_per_s = None;
                }
            }
            now.place
        };
        if let Some(file) = &options.file
            && let Err(error) = write(file, &place)
        {
            tracing::warn!(file = %file.display(), %error, "how far the scrub is can't be written down");
        }
        Ok(if step.next.is_none() { pause.max(Duration::from_secs(1)) } else { pause })
    }
}

impl Place {
    fn restart(&mut self, now_unix_ms: u64) {
        let last_ended_unix_ms = self.progress.last_ended_unix_ms;
        self.progress =
            ScrubProgress { began_unix_ms: now_unix_ms.max(1), last_ended_unix_ms, ..ScrubProgress::default() };
        self.after = None;
    }
}

/// So long a pause that `live_bytes` take a period.
fn pause(step_bytes: u64, live_bytes: u64, period: Duration) -> Duration {
    if step_bytes == 0 || live_bytes == 0 {
        return PAUSE_MAX.min(period);
    }
    let us = period.as_micros() * u128::from(step_bytes) * 100 / (u128::from(live_bytes) * HASTE_PERCENT);
    Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX)).min(PAUSE_MAX)
}

fn write(file: &Path, place: &Place) -> std::io::Result<()> {
    let ScrubProgress { began_unix_ms, shards, bytes, bad, last_ended_unix_ms } = place.progress;
    let mut text = format!("{FILE_HEAD}\n{began_unix_ms} {shards} {bytes} {bad} {last_ended_unix_ms}\n");
    for byte in place.after.iter().flat_map(|key| key.to_bytes()) {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    // Lost with the power: the scrub goes on a little before where it was.
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, file)
}

fn read(file: &Path) -> Option<Place> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut lines = text.lines();
    (lines.next()? == FILE_HEAD).then_some(())?;
    let numbers: Vec<u64> = lines.next()?.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let [began_unix_ms, shards, bytes, bad, last_ended_unix_ms] = numbers[..] else { return None };
    let digits = lines.next()?;
    let after = match digits.len() {
        0 => None,
        _ => {
            let byte = |at: usize| u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok();
            let bytes: Vec<u8> = (0..ShardKey::ENCODED_BYTES).map(byte).collect::<Option<_>>()?;
            Some(ShardKey::from_bytes(bytes.as_slice().try_into().ok()?))
        }
    };
    let progress = ScrubProgress { began_unix_ms, shards, bytes, bad, last_ended_unix_ms };
    Some(Place { progress, after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_proto::DataId;

    #[test]
    fn pauses_make_a_cycle_of_the_period() {
        let period = Duration::from_secs(1_000_000);
        // 100 steps of the store: each its hundredth of the period, a little less for haste, and never long.
        assert_eq!(pause(1 << 20, 100 << 20, Duration::from_secs(1100)), Duration::from_secs(10));
        assert_eq!(pause(1 << 20, 100 << 20, period), PAUSE_MAX);
        assert_eq!(pause(0, 0, period), PAUSE_MAX);
    }

    #[test]
    fn the_place_is_kept_and_nonsense_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scrub");
        assert_eq!(read(&file), None);
        for after in [None, Some(ShardKey { data: DataId(u128::MAX / 3), stripe: 7, shard: 200 })] {
            let progress =
                ScrubProgress { began_unix_ms: 5, shards: 4, bytes: 3, bad: 2, last_ended_unix_ms: u64::MAX };
            let place = Place { progress, after };
            write(&file, &place).unwrap();
            assert_eq!(read(&file), Some(place));
        }
        for nonsense in [
            "",
            "penstock scrub 2\n1 2 3 4 5\n\n",
            "penstock scrub 1\n1 2 3 4\n\n",
            "penstock scrub 1\n1 2 3 4 5\nzz\n",
        ] {
            std::fs::write(&file, nonsense).unwrap();
            assert_eq!(read(&file), None, "{nonsense:?}");
        }
    }
}
