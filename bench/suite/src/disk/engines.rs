//! Our engines, through the trait that the store uses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use penstock_bench_load::latency_histogram;
use penstock_buf::{BufPool, PoolOptions};
use penstock_harness::{Order, Stopwatch};
use penstock_store::device::{self, Device};
use penstock_store::{DeviceError, EngineKind};

use super::{Cell, Contender, Op, Slice};
use crate::BenchError;

/// Buffers for 128 requests of 1 MiB, and some.
const POOL_BYTES: usize = 192 << 20;
/// Bytes written at a time while the file is filled.
const FILL_BYTES: u64 = 1 << 20;
/// For a buffer: there is one for every request in flight.
const BUFFER_WAIT: Duration = Duration::from_secs(10);

fn failed(what: &str, error: &dyn std::fmt::Display) -> BenchError {
    BenchError::Setup(format!("{what}: {error}"))
}

fn runtime() -> Result<tokio::runtime::Runtime, BenchError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| failed("starting threads", &error))
}

fn pool() -> Result<BufPool, BenchError> {
    let options = PoolOptions { capacity_bytes: POOL_BYTES, huge_pages: true };
    BufPool::new(options).map_err(|error| failed("mapping buffers", &error))
}

/// Fills the file with random bytes, so that no read finds a hole; of a device that is there, its start. Gives its size.
pub(super) fn prepare(path: &Path, bytes: u64, is_file: bool) -> Result<u64, BenchError> {
    let bytes = bytes / FILL_BYTES * FILL_BYTES;
    let device =
        device::open(path, bytes, EngineKind::Auto, true).map_err(|error| failed("opening the disk", &error))?;
    let pool = pool()?;
    let bytes = if is_file { bytes } else { bytes.min(device.geometry().bytes / FILL_BYTES * FILL_BYTES) };
    let filled = runtime()?.block_on(async {
        let mut order = Order::seeded(1);
        for offset in (0..bytes).step_by(FILL_BYTES as usize) {
            let mut buffer =
                pool.acquire(FILL_BYTES as usize, BUFFER_WAIT).await.map_err(|error| failed("a buffer", &error))?;
            order.fill(&mut buffer);
            device.write(offset, vec![buffer.freeze()]).await.map_err(|error| failed("filling the disk", &error))?;
        }
        device.flush().await.map_err(|error| failed("filling the disk", &error))?;
        device.close().await;
        Ok(())
    });
    filled.map(|()| bytes)
}

/// An engine, or its name and why it is missing.
pub(super) type Found = Result<Box<dyn Contender>, (String, String)>;

/// All engines.
pub(super) fn all(path: &Path, bytes: u64) -> Result<Vec<Found>, BenchError> {
    let each = |name: &'static str, kind| -> Result<Found, BenchError> {
        // Tried once, so that a missing engine is known before anything is measured.
        match device::open(path, bytes, kind, true) {
            Ok(device) => {
                runtime()?.block_on(device.close());
                let engine = Engine { name, kind, path: path.to_owned(), bytes, runtime: runtime()?, pool: pool()? };
                Ok(Ok(Box::new(engine)))
            }
            Err(error) => Ok(Err((name.to_owned(), error.to_string()))),
        }
    };
    Ok(vec![each("penstock io_uring", EngineKind::IoUring)?, each("penstock pread", EngineKind::Pread)?])
}

struct Engine {
    name: &'static str,
    kind: EngineKind,
    path: PathBuf,
    bytes: u64,
    runtime: tokio::runtime::Runtime,
    pool: BufPool,
}

impl Contender for Engine {
    fn name(&self) -> &str {
        self.name
    }

    fn work(&mut self, cell: Cell, slice: Duration, seed: u64) -> Result<Slice, BenchError> {
        // Opened for the slice alone: a device has one owner, and engines take turns.
        let device =
            device::open(&self.path, self.bytes, self.kind, true).map_err(|error| failed(self.name, &error))?;
        let places = self.bytes / cell.bytes;
        let pool = self.pool.clone();
        let (sum, elapsed) = self.runtime.block_on(async {
            let watch = Stopwatch::start();
            let until = Instant::now() + slice;
            let ops = Arc::new(AtomicU64::new(0));
            let mut tasks = tokio::task::JoinSet::new();
            for task in 0..cell.queue_depth {
                let (device, pool, ops) = (Arc::clone(&device), pool.clone(), Arc::clone(&ops));
                let order = Order::seeded(seed.wrapping_add(task as u64));
                tasks.spawn(async move { requests(&*device, &pool, cell, places, until, order, &ops).await });
            }
            let mut latency_us = latency_histogram();
            while let Some(done) = tasks.join_next().await {
                let of_task =
                    done.map_err(|error| failed("a task", &error))?.map_err(|error| failed("the disk", &error))?;
                latency_us.add(&of_task).map_err(|error| failed("latencies", &error))?;
            }
            let elapsed = watch.elapsed();
            device.close().await;
            let sum = Slice {
                ops: ops.load(Ordering::Relaxed),
                p50_us: latency_us.value_at_quantile(0.5) as f64,
                p99_us: latency_us.value_at_quantile(0.99) as f64,
                ..Slice::default()
            };
            Ok::<_, BenchError>((sum, elapsed))
        })?;
        Ok(Slice { wall_s: elapsed.wall.as_secs_f64(), cpu_s: elapsed.cpu.as_secs_f64(), ..sum })
    }
}

type Latencies = hdrhistogram::Histogram<u64>;

/// One request after the other, until the time is over.
async fn requests(
    device: &dyn Device,
    pool: &BufPool,
    cell: Cell,
    places: u64,
    until: Instant,
    mut order: Order,
    ops: &AtomicU64,
) -> Result<Latencies, DeviceError> {
    let mut latency_us = latency_histogram();
    let no_buffer =
        |error: penstock_buf::BufError| DeviceError::Io { operation: "a buffer", reason: error.to_string() };
    let mut buffer = Some(pool.acquire(cell.bytes as usize, BUFFER_WAIT).await.map_err(no_buffer)?);
    let written = {
        let mut written = pool.acquire(cell.bytes as usize, BUFFER_WAIT).await.map_err(no_buffer)?;
        order.fill(&mut written);
        written.freeze()
    };
    while Instant::now() < until {
        let offset = order.next_u64() % places * cell.bytes;
        let started = Instant::now();
        match (cell.op, buffer.take()) {
            (Op::Read, Some(into)) => buffer = Some(device.read(offset, into).await?),
            (op, kept) => {
                buffer = kept;
                device.write(offset, vec![written.clone()]).await?;
                if op == Op::WriteFlush {
                    device.flush().await?;
                }
            }
        }
        latency_us.saturating_record(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX).max(1));
        ops.fetch_add(1, Ordering::Relaxed);
    }
    Ok(latency_us)
}
