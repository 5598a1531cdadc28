//! Our engines, through the trait that the store uses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use penstock_buf::{Buf, BufPool, PoolOptions};
use penstock_harness::Order;
use penstock_store::EngineKind;
use penstock_store::device::{self, Device};

use super::{Cell, Op};
use crate::BenchError;
use crate::slices::{Contender, Requests, Slice, at_depth};

/// Buffers for 128 requests of 1 MiB, and some.
const POOL_BYTES: usize = 192 << 20;
/// Bytes written at a time while the file is filled.
const FILL_BYTES: u64 = 1 << 20;
/// For a buffer: there is one for every request in flight.
const BUFFER_WAIT: Duration = Duration::from_secs(10);

pub(crate) fn failed(what: &str, error: &dyn std::fmt::Display) -> BenchError {
    BenchError::Setup(format!("{what}: {error}"))
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, BenchError> {
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
pub(super) type Found = Result<Box<dyn Contender<Cell>>, (String, String)>;

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

impl Contender<Cell> for Engine {
    fn name(&self) -> &str {
        self.name
    }

    fn work(&mut self, cell: Cell, slice: Duration, seed: u64) -> Result<Slice, BenchError> {
        // Opened for the slice alone: a device has one owner, and engines take turns.
        let device =
            device::open(&self.path, self.bytes, self.kind, true).map_err(|error| failed(self.name, &error))?;
        let (places, pool) = (self.bytes / cell.bytes, self.pool.clone());
        self.runtime.block_on(async {
            let requests = |_task, order| OnDevice {
                device: Arc::clone(&device),
                pool: pool.clone(),
                cell,
                places,
                order,
                written: None,
            };
            let done = at_depth(cell.queue_depth, slice, seed, requests).await;
            device.close().await;
            done
        })
    }
}

/// Requests at random places.
struct OnDevice {
    device: Arc<dyn Device>,
    pool: BufPool,
    cell: Cell,
    places: u64,
    order: Order,
    /// What is written, made at the first write.
    written: Option<Buf>,
}

impl Requests for OnDevice {
    async fn one(&mut self) -> Result<(), BenchError> {
        let offset = self.order.next_u64() % self.places * self.cell.bytes;
        let buffer = async || {
            let pool = &self.pool;
            pool.acquire(self.cell.bytes as usize, BUFFER_WAIT).await.map_err(|error| failed("a buffer", &error))
        };
        let done = if self.cell.op == Op::Read {
            self.device.read(offset, buffer().await?).await.map(drop)
        } else {
            let written = match self.written.take() {
                Some(written) => written,
                None => {
                    let mut fresh = buffer().await?;
                    self.order.fill(&mut fresh);
                    fresh.freeze()
                }
            };
            self.written = Some(written.clone());
            match self.device.write(offset, vec![written]).await {
                Ok(()) if self.cell.op == Op::WriteFlush => self.device.flush().await,
                other => other,
            }
        };
        done.map_err(|error| failed("the disk", &error))
    }
}
