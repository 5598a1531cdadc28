//! The device as the store uses it: superblock and extent table in memory, buffers of our own, and the rule that a
//! failed flush is final.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use penstock_buf::{Buf, BufMut, BufPool, PoolOptions};
use penstock_proto::limits::BUFFER_WAIT;

use crate::StoreError;
use crate::device::{Device, DeviceError};
use crate::format::superblock::{COPIES, MAGIC, Superblock};
use crate::format::table::{ENTRIES_PER_BLOCK, SlotEntry, TableBlock};
use crate::format::{BLOCK, BLOCK_BYTES, random_id};
use crate::stats::Counters;

/// Memory for frame heads, compaction and recovery. Not the caller's pool: a committer that waited for buffers that
/// its own waiting callers hold would wait for ever.
const OWN_POOL_BYTES: usize = 64 << 20;
/// Bytes read or written at a time where a structure has no bound of its own.
pub(crate) const STEP_BYTES: usize = 1 << 20;

/// A formatted device.
pub(crate) struct Disk {
    pub(crate) device: Arc<dyn Device>,
    pub(crate) layout: Superblock,
    pub(crate) pool: BufPool,
    pub(crate) counters: Arc<Counters>,
    table: tokio::sync::Mutex<Vec<TableBlock>>,
    failed: OnceLock<String>,
    pub(crate) read_time: Smoothed,
    pub(crate) flush_time: Smoothed,
}

/// How long something takes: each new time counts for a sixteenth.
#[derive(Debug, Default)]
pub(crate) struct Smoothed(AtomicU32);

impl Smoothed {
    pub(crate) fn took(&self, since: Instant) {
        let us = u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX).max(1);
        let before = self.0.load(Ordering::Relaxed);
        // Two at once may lose one of them: it is an estimate.
        self.0.store(if before == 0 { us } else { before - before / 16 + us / 16 }, Ordering::Relaxed);
    }

    /// In microseconds; 0 when it never happened.
    pub(crate) fn us(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Disk {
    /// Formats a blank device, or reads what a formatted one says of itself.
    pub(crate) async fn open(
        device: Arc<dyn Device>,
        extent_bytes: u64,
        counters: Arc<Counters>,
    ) -> Result<Self, StoreError> {
        let pool = BufPool::new(PoolOptions { capacity_bytes: OWN_POOL_BYTES, huge_pages: false })
            .map_err(|error| StoreError::Io { operation: "mapping the store's buffers", reason: error.to_string() })?;
        let bytes = device.geometry().bytes;
        let io = BlockIo { device: &*device, pool: &pool };
        let (layout, table) = match read_superblock(&io, bytes).await? {
            Some(layout) => {
                let table = read_table(&io, &layout, &counters).await?;
                (layout, table)
            }
            None => format(&io, bytes, extent_bytes).await?,
        };
        Ok(Self {
            device,
            layout,
            pool,
            counters,
            table: tokio::sync::Mutex::new(table),
            failed: OnceLock::new(),
            read_time: Smoothed::default(),
            flush_time: Smoothed::default(),
        })
    }

    /// The table's entries by slot.
    pub(crate) async fn entries(&self) -> Vec<SlotEntry> {
        let table = self.table.lock().await;
        table.iter().flat_map(|block| block.entries).take(self.layout.extents as usize).collect()
    }

    /// Writes a slot's entry, durably, in both copies.
    ///
    /// # Errors
    /// Any failure is the device's: a table that can't be written ends all writing.
    pub(crate) async fn set_entry(&self, slot: u32, entry: SlotEntry) -> Result<(), StoreError> {
        let mut table = self.table.lock().await;
        self.check()?;
        let (number, place) = (slot as usize / ENTRIES_PER_BLOCK, slot as usize % ENTRIES_PER_BLOCK);
        let mut block = table[number].clone();
        block.generation += 1;
        block.entries[place] = entry;
        for copy in 0..2 {
            let offset = table_block_offset(&self.layout, copy, number);
            let io = BlockIo { device: &*self.device, pool: &self.pool };
            if let Err(error) = io.write(offset, &block.encode(self.layout.device)).await {
                return Err(self.fail(format!("writing the extent table: {error}")));
            }
            self.flush().await?;
        }
        table[number] = block;
        Ok(())
    }

    /// Makes all that was written durable.
    ///
    /// # Errors
    /// [`StoreError::DeviceFailed`], for good: after a failed flush nobody knows what is on the device, and a second
    /// flush would say that all is well.
    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        self.check()?;
        self.counters.flushes.add(1);
        let began = Instant::now();
        match self.device.flush().await {
            Ok(()) => {
                self.flush_time.took(began);
                Ok(())
            }
            Err(DeviceError::Closed) => Err(StoreError::Closed),
            Err(error) => Err(self.fail(error.to_string())),
        }
    }

    /// Marks the device as failed and answers the error that says so.
    pub(crate) fn fail(&self, reason: String) -> StoreError {
        let reason = self.failed.get_or_init(|| {
            tracing::error!(%reason, "the device has failed: no more writes until it is replaced");
            reason
        });
        StoreError::DeviceFailed { reason: reason.clone() }
    }

    /// # Errors
    /// [`StoreError::DeviceFailed`] if it has.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            Some(reason) => Err(StoreError::DeviceFailed { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Reads any `length` bytes at any `offset`, through a buffer of `pool`.
    pub(crate) async fn read_span(&self, pool: &BufPool, offset: u64, length: usize) -> Result<Buf, StoreError> {
        let start = offset / BLOCK * BLOCK;
        let lead = (offset - start) as usize;
        let buffer = pool.acquire((lead + length).next_multiple_of(BLOCK_BYTES), BUFFER_WAIT).await?;
        let began = Instant::now();
        let buffer = self.device.read(start, buffer).await?;
        self.read_time.took(began);
        Ok(buffer.freeze().slice(lead..lead + length))
    }

    /// Reads `length` bytes that may be more than a buffer holds.
    pub(crate) async fn read_long(&self, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let mut out = Vec::with_capacity(length);
        while out.len() < length {
            let step = STEP_BYTES.min(length - out.len());
            out.extend_from_slice(&self.read_span(&self.pool, offset + out.len() as u64, step).await?);
        }
        Ok(out)
    }

    /// Writes bytes that may be more than a buffer holds, padded with zeros to a block.
    pub(crate) async fn write_long(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let io = BlockIo { device: &*self.device, pool: &self.pool };
        for (index, step) in bytes.chunks(STEP_BYTES).enumerate() {
            io.write(offset + (index * STEP_BYTES) as u64, step).await?;
        }
        Ok(())
    }
}

struct BlockIo<'a> {
    device: &'a dyn Device,
    pool: &'a BufPool,
}

impl BlockIo<'_> {
    async fn read_block(&self, offset: u64) -> Result<BufMut, StoreError> {
        let buffer = self.pool.acquire(BLOCK_BYTES, BUFFER_WAIT).await?;
        Ok(self.device.read(offset, buffer).await?)
    }

    async fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let mut buffer = self.pool.acquire(bytes.len().next_multiple_of(BLOCK_BYTES), BUFFER_WAIT).await?;
        buffer[..bytes.len()].copy_from_slice(bytes);
        buffer[bytes.len()..].fill(0);
        Ok(self.device.write(offset, vec![buffer.freeze()]).await?)
    }
}

/// `None` for a device that was never in use.
async fn read_superblock(io: &BlockIo<'_>, bytes: u64) -> Result<Option<Superblock>, StoreError> {
    if bytes < 1 << 20 {
        return Err(StoreError::format(format!("a device of {bytes} bytes is too small")));
    }
    let mut best: Option<Superblock> = None;
    let mut blank = [false; COPIES];
    let mut ours = [false; COPIES];
    for (copy, offset) in Superblock::copy_offsets(bytes).into_iter().enumerate() {
        let block = match io.read_block(offset).await {
            Ok(block) => block,
            Err(error) => {
                tracing::error!(copy, %error, "a copy of the superblock can't be read");
                continue;
            }
        };
        blank[copy] = block.iter().all(|byte| *byte == 0);
        ours[copy] = block.starts_with(&MAGIC);
        if let Some(found) = Superblock::decode(&block, copy)?
            && best.is_none_or(|best| found.generation > best.generation)
        {
            best = Some(found);
        }
    }
    let unfinished = blank[COPIES - 1] && (0..COPIES).all(|copy| blank[copy] || ours[copy]);
    match best {
        // Formatting was cut off before the last copy: nothing was ever stored.
        _ if unfinished => Ok(None),
        Some(best) if best.capacity_bytes > bytes => Err(StoreError::format(format!(
            "the device has {bytes} bytes, but was formatted with {}: was the file cut short?",
            best.capacity_bytes
        ))),
        Some(best) => Ok(Some(best)),
        None => Err(StoreError::format(
            "no copy of the superblock can be read: this is no Penstock device, or its start and end are lost; \
             to use it anew, overwrite its first 128 KiB and its last 4 KiB with zeros",
        )),
    }
}

fn table_block_offset(layout: &Superblock, copy: usize, number: usize) -> u64 {
    layout.table_offset + copy as u64 * layout.table_bytes + number as u64 * BLOCK
}

fn table_blocks(layout: &Superblock) -> usize {
    (layout.extents as usize).div_ceil(ENTRIES_PER_BLOCK)
}

/// Reads the newer copy that checks of every block, and writes it over the other one where they differ.
async fn read_table(io: &BlockIo<'_>, layout: &Superblock, counters: &Counters) -> Result<Vec<TableBlock>, StoreError> {
    let mut table = Vec::new();
    for number in 0..table_blocks(layout) {
        let mut copies = [None, None];
        for (copy, found) in copies.iter_mut().enumerate() {
            // A copy that can't be read counts as one that does not check.
            if let Ok(block) = io.read_block(table_block_offset(layout, copy, number)).await {
                *found = TableBlock::decode(&block, layout.device, number as u32);
            }
        }
        if copies[0] != copies[1] {
            counters.table_repairs.add(1);
        }
        let differ = copies[0] != copies[1];
        let [first, second] = copies;
        let best = match (first, second) {
            (Some(first), Some(second)) if second.generation > first.generation => second,
            (Some(first), _) => first,
            (None, Some(second)) => second,
            (None, None) => {
                return Err(StoreError::format(format!(
                    "block {number} of the extent table is corrupt in both copies: which shards are here can't be told"
                )));
            }
        };
        if differ {
            tracing::warn!(
                block = number,
                "the copies of an extent table block differ, the newer one that checks is used"
            );
            for copy in 0..2 {
                let offset = table_block_offset(layout, copy, number);
                let written = io.write(offset, &best.encode(layout.device)).await;
                let flushed = io.device.flush().await;
                if let (Err(error), _) | (_, Err(error)) = (written, flushed.map_err(StoreError::from)) {
                    tracing::error!(%error, "a copy of the extent table can't be repaired");
                    break;
                }
            }
        }
        table.push(best);
    }
    Ok(table)
}

/// Writes an empty table, then the superblocks, the last copy last.
async fn format(io: &BlockIo<'_>, bytes: u64, extent_bytes: u64) -> Result<(Superblock, Vec<TableBlock>), StoreError> {
    let layout = Superblock::plan(random_id()?, bytes, extent_bytes)?;
    io.device.allocate(0, layout.data_offset).await?;
    let table: Vec<_> = (0..table_blocks(&layout)).map(|number| TableBlock::blank(number as u32)).collect();
    for copy in 0..2 {
        for (number, block) in table.iter().enumerate() {
            io.write(table_block_offset(&layout, copy, number), &block.encode(layout.device)).await?;
        }
    }
    io.device.flush().await?;
    for (copy, offset) in Superblock::copy_offsets(bytes).into_iter().enumerate() {
        io.write(offset, &layout.encode(copy)).await?;
        io.device.flush().await?;
    }
    tracing::info!(bytes, extents = layout.extents, extent_bytes = layout.extent_bytes, "the device was formatted");
    Ok((layout, table))
}
