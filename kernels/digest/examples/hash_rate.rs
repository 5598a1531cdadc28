//! How fast many streams are hashed: the multi-buffer kernels, and a scheduler with one worker, against the md-5 and
//! sha2 crates, in one process, interleaved.
//!
//! `cargo run --release --example hash_rate -p penstock-digest [-- ROUNDS]`. Figures are medians of GB/s in aggregate,
//! over the process's CPU time (for the scheduler, that of its worker and of the bringer) and last, for the scheduler,
//! over wall time, with the mean number of streams per step. Messages are 256 KiB each, so that up to 64 of them stay
//! within a large L3. `PENSTOCK_KERNEL_TIER` forces a tier.
//!
//! On a virtual machine with two Zen 5 cores (AVX-512, SHA instructions), which others used at the same time; `sched`
//! is the scheduler over CPU time:
//!
//! | streams | MD5 crate | kernels | sched | SHA-256 crate | kernels | sched |
//! |---|---|---|---|---|---|---|
//! | 1 | 0.67 | 0.66 | 0.66 | 2.03 | 2.03 | 1.97 |
//! | 4 | 0.66 | 1.59 | 1.55 | 2.05 | 2.05 | 2.01 |
//! | 8 | 0.62 | 2.95 | 2.78 | 2.03 | 2.53 | 2.37 |
//! | 16 | 0.66 | 6.13 | 5.74 | 2.00 | 4.92 | 4.66 |
//! | 32 | 0.62 | 11.95 | 10.68 | 2.04 | 6.16 | 5.69 |
//! | 64 | 0.66 | 11.69 | 10.22 | 2.02 | 5.91 | 5.84 |
//!
//! With AVX2 alone, MD5 at 16 streams: 5.2, scheduled 4.8.

#![allow(clippy::print_stdout, reason = "an example that prints its result")]

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::join_all;
use penstock_digest::{HashScheduler, HashTier, LaneHash, Md5, Md5Hasher, Sha256, Sha256Hasher, md5_many, sha256_many};
use std::hint::black_box;
use std::time::{Duration, Instant};

const MESSAGE_BYTES: usize = 256 << 10;
/// Least that one measurement hashes, in bytes.
const MEASURED_BYTES_MIN: usize = 32 << 20;
/// The same for the scheduler, so that the streams' beginnings and ends don't count much.
const SCHEDULED_BYTES_MIN: usize = 256 << 20;
const CHUNK_BYTES: usize = 64 << 10;

/// CPU time that this process has taken.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux, and the pointer is to a timespec of ours.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(status, 0, "the clock of the process is there");
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Rates over CPU time and over wall time.
fn gbps(bytes: usize, run: impl FnOnce()) -> [f64; 2] {
    let (start_cpu, start) = (cpu_time(), Instant::now());
    run();
    let times = [cpu_time() - start_cpu, start.elapsed()];
    times.map(|time| bytes as f64 / time.as_secs_f64() / 1e9)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

async fn hash<A: LaneHash>(scheduler: &HashScheduler, message: Bytes, times: usize) {
    let mut stream = scheduler.stream::<A>();
    for _ in 0..times {
        for start in (0..MESSAGE_BYTES).step_by(CHUNK_BYTES) {
            stream.update(message.slice(start..start + CHUNK_BYTES)).await;
        }
    }
    black_box(stream.finish().await);
}

fn measure<A: LaneHash>(name: &str, rounds: usize, tier: HashTier, many: fn(HashTier, &[&[u8]]), one: fn(&[u8])) {
    let scheduler = HashScheduler::new(tier, 1);
    println!("{name}: streams, crate, kernels, scheduler (GB/s of CPU time), scheduler (GB/s of wall time), lanes");
    for streams in [1, 2, 3, 4, 6, 8, 16, 32, 64] {
        let messages: Vec<_> = (0..streams).map(|i| Bytes::from(vec![i as u8; MESSAGE_BYTES])).collect();
        let slices: Vec<&[u8]> = messages.iter().map(|message| &message[..]).collect();
        let times = (MEASURED_BYTES_MIN / MESSAGE_BYTES).div_ceil(streams);
        let scheduled_times = (SCHEDULED_BYTES_MIN / MESSAGE_BYTES).div_ceil(streams);
        let bytes = times * streams * MESSAGE_BYTES;
        let mut rates = [const { Vec::new() }; 4];
        let before = scheduler.counts();
        for _ in 0..rounds {
            let single = || (0..times).for_each(|_| slices.iter().for_each(|slice| one(slice)));
            rates[0].push(gbps(bytes, single)[0]);
            rates[1].push(gbps(bytes, || (0..times).for_each(|_| many(tier, &slices)))[0]);
            let [cpu, wall] = gbps(scheduled_times * streams * MESSAGE_BYTES, || {
                let all = messages.iter().map(|message| hash::<A>(&scheduler, message.clone(), scheduled_times));
                block_on(join_all(all));
            });
            rates[2].push(cpu);
            rates[3].push(wall);
        }
        let after = scheduler.counts();
        let alone = after.steps_alone - before.steps_alone;
        let lanes = alone + after.lanes_grouped - before.lanes_grouped;
        let lanes = lanes as f64 / (alone + after.steps_grouped - before.steps_grouped) as f64;
        let [single, kernels, cpu, wall] = rates.map(median);
        println!("{streams:8} {single:7.2} {kernels:8.2} {cpu:9.2} {wall:9.2} {lanes:7.1}");
    }
    println!("{:?}", scheduler.counts());
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(7), |rounds| rounds.parse())?;
    let tier = HashTier::from_env()?;
    println!("tier {tier}");
    let many = |tier: HashTier, messages: &[&[u8]]| drop(black_box(md5_many(tier, messages)));
    measure::<Md5>("MD5", rounds, tier, many, |message| {
        black_box(Md5Hasher::of(message));
    });
    let many = |tier: HashTier, messages: &[&[u8]]| drop(black_box(sha256_many(tier, messages)));
    measure::<Sha256>("SHA-256", rounds, tier, many, |message| {
        black_box(Sha256Hasher::of(message));
    });
    Ok(())
}
