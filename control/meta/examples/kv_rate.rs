//! Durable commits per second of the embedded engine: 16 writers with 1 and with 32 transactions in flight each, keys of
//! 82 bytes, values of 200.
//!
//! `cargo run --release -p penstock-meta --example kv_rate [-- DIRECTORY [SECONDS]]`. The directory should lie on the
//! device in question (the default is the system's temporary directory). Figures are anecdotes without their machine.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints its measurements")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use penstock_meta::kv::{FjallKv, Kv, KvError, transact};

const WRITERS: u64 = 16;

fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Keys spread over the key space, as object keys do.
fn key(n: u64) -> Vec<u8> {
    let spread = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("bucket/{spread:016x}/{n:057}!").into_bytes()
}

async fn measure(directory: &Path, in_flight: u64, tokens: bool, duration: Duration) -> Result<(), Box<dyn Error>> {
    let kv = Arc::new(FjallKv::open(directory)?);
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..WRITERS * in_flight {
        let (kv, next) = (Arc::clone(&kv), Arc::clone(&next));
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            while start.elapsed() < duration {
                let key = &key(next.fetch_add(1, Ordering::Relaxed));
                let began = Instant::now();
                if tokens {
                    transact::<_, KvError, _>(&*kv, |txn| Box::pin(async move { txn.set(key, &[7; 200]) })).await?;
                } else {
                    let mut txn = kv.begin().await?;
                    txn.set(key, &[7; 200])?;
                    txn.commit().await?;
                }
                latencies.push(began.elapsed());
            }
            Ok::<_, KvError>(latencies)
        }));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let seconds = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |per_mille: usize| latencies.get(latencies.len() * per_mille / 1000).map_or(0, Duration::as_micros);
    let stats = kv.stats();
    println!(
        "{WRITERS} writers x {in_flight:2}{}: {:8.0} commits/s, p50 {} us, p99 {} us, {:.1} commits per fsync, peak RSS {} MiB",
        if tokens { ", transact" } else { ", bare    " },
        latencies.len() as f64 / seconds,
        at(500),
        at(990),
        stats.committed as f64 / stats.group_commits.max(1) as f64,
        resident_kib().unwrap_or(0) / 1024,
    );
    kv.close().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let duration = Duration::from_secs(arguments.next().map_or(Ok(5), |text| text.parse())?);
    for in_flight in [1, 32] {
        for tokens in [false, true] {
            let directory = root.join(format!("penstock-kv-rate-{}", std::process::id()));
            measure(&directory, in_flight, tokens, duration).await?;
            std::fs::remove_dir_all(&directory)?;
        }
    }
    Ok(())
}
