//! The store's face: open, put, get, delete.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use penstock_buf::{Buf, BufPool};
use penstock_proto::limits::SHARD_BYTES_MAX;
use penstock_proto::wire::NodeStatus;
use penstock_proto::{DataId, ShardKey};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

use crate::StoreError;
use crate::commit::{Committer, QUEUE_OPERATIONS_MAX};
use crate::compact::{self, Compactor};
use crate::device::{self, Device};
use crate::disk::Disk;
use crate::format::CRC_BLOCK_BYTES;
use crate::format::record::Record;
use crate::group::{Op, Reply};
use crate::options::StoreOptions;
use crate::recover::recover;
use crate::state::{ExtentState, Location, State};
use crate::stats::{Counters, StoreStats};

/// Shards on one device. Clones share it.
///
/// Call [`ShardStore::close`] before the device is opened again in the same process: a store that is only dropped ends
/// in the background, and keeps its lock on the device until then.
#[derive(Clone)]
pub struct ShardStore {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) disk: Arc<Disk>,
    pub(crate) state: Arc<RwLock<State>>,
    queue: mpsc::Sender<Op>,
    pool: BufPool,
    compactor: Arc<Compactor>,
    pub(crate) closed: Arc<AtomicBool>,
}

impl ShardStore {
    /// Opens the device: formats it if it was never in use, else recovers what is on it. Reads go through buffers of
    /// `pool`. Needs a tokio runtime with time.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the device can't be opened or is in use, [`StoreError::Format`] when it holds something
    /// else or the options make no sense.
    pub async fn open(options: StoreOptions, pool: BufPool) -> Result<Self, StoreError> {
        let device = {
            let options = options.clone();
            let open = move || device::open(&options.path, options.capacity_bytes, options.engine, options.direct);
            tokio::task::spawn_blocking(open)
                .await
                .map_err(|join| StoreError::Io { operation: "opening the device", reason: join.to_string() })??
        };
        Self::open_on(device, options, pool).await
    }

    /// As [`ShardStore::open`], on a device that the caller made; path, engine and capacity of the options don't count.
    ///
    /// # Errors
    /// As [`ShardStore::open`].
    pub async fn open_on(device: Arc<dyn Device>, options: StoreOptions, pool: BufPool) -> Result<Self, StoreError> {
        let geometry = device.geometry();
        let disk = Arc::new(Disk::open(device, options.extent_bytes, Arc::new(Counters::default())).await?);
        let recovered = recover(&disk).await?;
        let state = Arc::new(RwLock::new(recovered.state));
        let wake = Arc::new(Notify::new());
        let (queue, receiver) = mpsc::channel(QUEUE_OPERATIONS_MAX);
        let next = (recovered.next_extent, recovered.next_sequence);
        let mut committer =
            Committer::new(Arc::clone(&disk), Arc::clone(&state), recovered.open, next, Arc::clone(&wake));
        committer.fill_reserve().await;
        tokio::spawn(committer.run(receiver));
        let closed = Arc::new(AtomicBool::new(false));
        let compactor = Arc::new(Compactor {
            disk: Arc::clone(&disk),
            state: Arc::clone(&state),
            queue: queue.downgrade(),
            bytes_per_s: options.compaction_bytes_per_s,
            closed: Arc::clone(&closed),
            turn: Mutex::new(()),
        });
        if options.compaction {
            tokio::spawn(compact::run(Arc::clone(&compactor), wake));
        }
        let store = Self { inner: Arc::new(Inner { disk, state, queue, pool, compactor, closed }) };
        let status = store.status();
        tracing::info!(
            engine = geometry.engine,
            direct = geometry.direct,
            shards = status.shards,
            live_bytes = status.live_bytes,
            free_bytes = status.free_bytes,
            "the store is open"
        );
        Ok(store)
    }

    /// Stores a shard; it is durable when this returns. `data` must have the CRC64NVME `crc64`. The same shard again is
    /// answered as the first time. A caller that stops waiting leaves the shard stored whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::ChecksumMismatch`], [`StoreError::Conflict`] for other bytes under the same key,
    /// [`StoreError::DataDeleted`], [`StoreError::NoSpace`], [`StoreError::DeviceFailed`], [`StoreError::OutOfRange`]
    /// for an empty or too long shard, [`StoreError::Closed`]. After an error other than the first three, the shard may
    /// still turn up at the next start.
    pub async fn put(&self, key: ShardKey, data: Buf, crc64: u64) -> Result<(), StoreError> {
        if data.is_empty() || data.len() > SHARD_BYTES_MAX {
            return Err(StoreError::OutOfRange { shard_bytes: data.len() as u64 });
        }
        self.inner.disk.check()?;
        let actual = penstock_digest::crc64nvme(&data);
        if actual != crc64 {
            return Err(StoreError::ChecksumMismatch { expected: crc64, actual });
        }
        let record = Record::put(key, &data, crc64);
        self.ask(|reply| Op::Put { record, payload: data, reply }).await.map(|_| ())
    }

    /// Reads `length` bytes from `offset` on of the shard with this key and this CRC64NVME. Every byte is verified
    /// before it is given out. With the bytes comes the length of the whole shard.
    ///
    /// # Errors
    /// [`StoreError::NoSuchShard`]; [`StoreError::Corrupt`] when the shard stored has another checksum or the device
    /// gave back wrong bytes; [`StoreError::OutOfRange`] for an empty range or one past the end;
    /// [`StoreError::Io`] when the device refuses; [`StoreError::Buffers`]; [`StoreError::Closed`].
    pub async fn get(&self, key: ShardKey, offset: u32, length: u32, crc64: u64) -> Result<(Buf, u32), StoreError> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        // Holding the location keeps its extent's slot from being used anew.
        let location = self.inner.state.read().get(&key).cloned().ok_or(StoreError::NoSuchShard)?;
        let record = &location.record;
        if record.crc64 != crc64 {
            let what = format!("its CRC64NVME is {:016x}, asked for was {crc64:016x}", record.crc64);
            return Err(StoreError::Corrupt { key, what });
        }
        if length == 0 || offset.checked_add(length).is_none_or(|end| end > record.length) {
            return Err(StoreError::OutOfRange { shard_bytes: u64::from(record.length) });
        }
        let bytes = self.read_verified(&self.inner.pool, &location, offset as usize, length as usize).await?;
        self.inner.disk.counters.gets.add(1);
        self.inner.disk.counters.get_bytes.add(u64::from(length));
        Ok((bytes, record.length))
    }

    pub(crate) async fn read_verified(
        &self,
        pool: &BufPool,
        location: &Location,
        offset: usize,
        length: usize,
    ) -> Result<Buf, StoreError> {
        let record = &location.record;
        let first = offset / CRC_BLOCK_BYTES;
        let start = first * CRC_BLOCK_BYTES;
        let end = (offset + length).next_multiple_of(CRC_BLOCK_BYTES).min(record.length as usize);
        let device_offset = location.extent.base + u64::from(record.payload_offset) + start as u64;
        let counters = &self.inner.disk.counters;
        let read = self.inner.disk.read_span(pool, device_offset, end - start).await;
        let cover = read.inspect_err(|error| {
            if matches!(error, StoreError::Io { .. }) {
                counters.read_errors.add(1);
                // A put of the same shard then writes it elsewhere: that is how a bad sector is repaired.
                self.inner.state.read().mark_broken(location);
                tracing::error!(key = %record.key, device_offset, %error, "a shard can't be read");
            }
        })?;
        let blocks = || cover.chunks(CRC_BLOCK_BYTES).zip(&record.blocks[first..]);
        let bad_block = || {
            let bad = blocks().position(|(block, crc)| penstock_digest::crc32c(block) != *crc);
            bad.map(|index| format!("block {} does not have its CRC32C", first + index))
        };
        let what = if length == record.length as usize {
            // The sum of the whole says all; those of its blocks say only where it is wrong.
            (penstock_digest::crc64nvme(&cover) != record.crc64)
                .then(|| bad_block().unwrap_or_else(|| "the whole does not have its CRC64NVME".to_owned()))
        } else {
            bad_block()
        };
        if let Some(what) = what {
            counters.corrupt_reads.add(1);
            self.inner.state.read().mark_broken(location);
            tracing::error!(key = %record.key, device_offset, what, "a shard is corrupt");
            return Err(StoreError::Corrupt { key: record.key, what });
        }
        Ok(cover.slice(offset - start..offset - start + length))
    }

    /// Deletes all shards of `data`, durably, and refuses later puts of it. Answers how many shards there were; 0 when
    /// it was deleted before.
    ///
    /// # Errors
    /// [`StoreError::DeviceFailed`], [`StoreError::NoSpace`] when not even the room kept back has place,
    /// [`StoreError::Closed`].
    pub async fn delete(&self, data: DataId) -> Result<u32, StoreError> {
        self.inner.disk.check()?;
        let killed = self.ask(|reply| Op::Delete { data, reply }).await?;
        self.inner.disk.counters.deletes.add(1);
        Ok(killed)
    }

    /// How the store is.
    pub fn status(&self) -> NodeStatus {
        let layout = &self.inner.disk.layout;
        let state = self.inner.state.read();
        let open: Vec<_> = state.extents.values().filter(|extent| extent.state == ExtentState::Open).collect();
        let in_open: u64 = open.iter().map(|extent| layout.extent_bytes - extent.frames_bytes).sum();
        // Without a reserve the room in the open extent is not for puts.
        let usable = state.free.len() as u64 * layout.extent_bytes + if state.reserve.is_some() { in_open } else { 0 };
        NodeStatus {
            capacity_bytes: u64::from(layout.extents) * layout.extent_bytes,
            free_bytes: usable,
            live_bytes: state.live_bytes(),
            shards: state.shards(),
            open_extents: open.len() as u32,
            failed: self.inner.disk.check().is_err(),
            read_us: self.inner.disk.read_time.us(),
            flush_us: self.inner.disk.flush_time.us(),
            broken_shards: state.broken().len() as u64,
            ..NodeStatus::default()
        }
    }

    /// What the store did since it was opened.
    pub fn stats(&self) -> StoreStats {
        self.inner.disk.counters.read()
    }

    /// Whether there is such a shard. Says nothing of whether it can be read.
    pub fn contains(&self, key: ShardKey) -> bool {
        self.inner.state.read().get(&key).is_some()
    }

    /// Compacts now, at full speed, until there is nothing worth it. Answers how many extents were freed. What the
    /// background does by itself; for an operator who can't wait, and for tests.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] or [`StoreError::DeviceFailed`] when shards could not be moved.
    pub async fn compact(&self) -> Result<u32, StoreError> {
        self.inner.compactor.pass(false).await
    }

    /// Makes everything durable, and lets go of the device. Later calls answer [`StoreError::Closed`].
    pub async fn close(&self) {
        if self.inner.closed.swap(true, Ordering::AcqRel) {
            // Another close is under way, or over: wait until the committer is gone.
            self.inner.queue.closed().await;
            return;
        }
        // A compaction in progress sees the flag at its next step.
        let _turn = self.inner.compactor.turn.lock().await;
        let (reply, done) = oneshot::channel();
        if self.inner.queue.send(Op::Close { reply }).await.is_ok() {
            let _ = done.await;
        }
    }

    /// A location, held as a slow reader does.
    #[cfg(test)]
    pub(crate) fn hold(&self, key: ShardKey) -> Option<Arc<Location>> {
        self.inner.state.read().get(&key).cloned()
    }

    async fn ask(&self, make: impl FnOnce(Reply) -> Op) -> Result<u32, StoreError> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        let (reply, answer) = oneshot::channel();
        self.inner.queue.send(make(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl std::fmt::Debug for ShardStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardStore").field("status", &self.status()).finish_non_exhaustive()
    }
}
