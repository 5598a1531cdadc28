//! A device in memory that fails as real ones do: unflushed writes are lost or torn when the power goes, writes, reads
//! and flushes fail on demand, room runs out, bits flip. Seeded, so that every run can be had again.
//!
//! The model of the volatile cache: a write goes to the cache, a flush moves the cache to the platters. When the power
//! goes, every cached block is by chance kept, lost, or torn into 512-byte sectors of old and new; a write that was
//! under way counts as cached in part. A discard is a write of zeros. A [`FaultDisk`] outlives its power cuts; a
//! device attached before one answers nothing but errors after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use penstock_buf::{Buf, BufMut};
use penstock_proto::limits::BLOCK_BYTES;

use crate::device::{Device, DeviceError, Geometry};

const SECTOR_BYTES: usize = 512;
const BLOCK: u64 = BLOCK_BYTES as u64;

type Block = Box<[u8; BLOCK_BYTES]>;

/// The disk: what lasts.
#[derive(Clone)]
pub struct FaultDisk {
    bytes: u64,
    state: Arc<Mutex<State>>,
}

struct State {
    platters: BTreeMap<u64, Block>,
    cache: BTreeMap<u64, Block>,
    /// Blocks that have room on the filesystem beneath.
    allocated: BTreeSet<u64>,
    allocated_blocks_max: u64,
    incarnation: u64,
    operations_left: Option<u64>,
    /// Whether the end that `operations_left` counts down to takes the cache with it.
    spare_cache: bool,
    write_errors: u32,
    flush_errors: u32,
    bad_blocks: BTreeSet<u64>,
    flushes: u64,
    random: u64,
}

impl State {
    /// SplitMix64: enough for choosing fates.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn block(&self, number: u64) -> Option<&Block> {
        self.cache.get(&number).or_else(|| self.platters.get(&number))
    }

    fn cut(&mut self) {
        self.incarnation += 1;
        self.operations_left = None;
        if std::mem::take(&mut self.spare_cache) {
            return;
        }
        for (number, new) in std::mem::take(&mut self.cache) {
            match self.random() % 3 {
                0 => {}
                1 => {
                    self.platters.insert(number, new);
                }
                _ => {
                    let mut torn = self.platters.get(&number).cloned().unwrap_or_else(blank);
                    let fate = self.random();
                    for sector in 0..BLOCK_BYTES / SECTOR_BYTES {
                        if fate >> sector & 1 == 1 {
                            let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                            torn[range.clone()].copy_from_slice(&new[range]);
                        }
                    }
                    self.platters.insert(number, torn);
                }
            }
        }
    }

    fn put(&mut self, number: u64, bytes: &[u8]) {
        let mut block = blank();
        block.copy_from_slice(bytes);
        self.cache.insert(number, block);
    }

    fn reserve(&mut self, blocks: impl Iterator<Item = u64> + Clone) -> Result<(), DeviceError> {
        let missing = blocks.clone().filter(|number| !self.allocated.contains(number)).count() as u64;
        if self.allocated.len() as u64 + missing > self.allocated_blocks_max {
            return Err(DeviceError::NoSpace);
        }
        self.allocated.extend(blocks);
        Ok(())
    }
}

fn blank() -> Block {
    Box::new([0; BLOCK_BYTES])
}

fn broken(operation: &'static str, reason: &str) -> DeviceError {
    DeviceError::Io { operation, reason: reason.to_owned() }
}

impl FaultDisk {
    /// A blank disk.
    pub fn new(bytes: u64, seed: u64) -> Self {
        let state = State {
            platters: BTreeMap::new(),
            cache: BTreeMap::new(),
            allocated: BTreeSet::new(),
            allocated_blocks_max: u64::MAX,
            incarnation: 0,
            operations_left: None,
            spare_cache: false,
            write_errors: 0,
            flush_errors: 0,
            bad_blocks: BTreeSet::new(),
            flushes: 0,
            random: seed,
        };
        Self { bytes: bytes / BLOCK * BLOCK, state: Arc::new(Mutex::new(state)) }
    }

    /// Plugs it in. Devices attached before are dead from now on; what they had in the cache stays there, as when a
    /// process dies and the machine goes on.
    pub fn attach(&self) -> Arc<dyn Device> {
        let mut state = self.state.lock();
        state.incarnation += 1;
        Arc::new(FaultDevice { disk: self.clone(), incarnation: state.incarnation })
    }

    /// The power goes, now.
    pub fn cut_power(&self) {
        self.state.lock().cut();
    }

    /// The power goes in the middle of the operation that comes after `operations` more.
    pub fn cut_power_after(&self, operations: u64) {
        self.state.lock().operations_left = Some(operations);
    }

    /// The process dies in the middle of the operation that comes after `operations` more; the cache stays.
    pub fn die_after(&self, operations: u64) {
        let mut state = self.state.lock();
        state.operations_left = Some(operations);
        state.spare_cache = true;
    }

    /// The next `count` writes fail.
    pub fn fail_writes(&self, count: u32) {
        self.state.lock().write_errors = count;
    }

    /// The next `count` flushes fail, and what they should have kept is lost.
    pub fn fail_flushes(&self, count: u32) {
        self.state.lock().flush_errors = count;
    }

    /// Reads of these bytes fail from now on.
    pub fn fail_reads(&self, offset: u64, bytes: u64) {
        self.state.lock().bad_blocks.extend(offset / BLOCK..(offset + bytes).div_ceil(BLOCK));
    }

    /// The filesystem beneath has room for so much, what is allocated already included.
    pub fn limit_room(&self, bytes: u64) {
        self.state.lock().allocated_blocks_max = bytes / BLOCK;
    }

    /// Bytes that take room on the filesystem beneath.
    pub fn allocated_bytes(&self) -> u64 {
        self.state.lock().allocated.len() as u64 * BLOCK
    }

    /// Flushes that were answered well.
    pub fn flushes(&self) -> u64 {
        self.state.lock().flushes
    }

    /// Flips a bit on the platters (and in the cache, if it is there).
    pub fn flip(&self, offset: u64, bit: u8) {
        let mut state = self.state.lock();
        let (number, at) = (offset / BLOCK, (offset % BLOCK) as usize);
        if let Some(block) = state.cache.get_mut(&number) {
            block[at] ^= 1 << (bit % 8);
        }
        state.platters.entry(number).or_insert_with(blank)[at] ^= 1 << (bit % 8);
    }

    /// Offsets of the blocks on the platters that hold anything but zeros.
    pub fn used_blocks(&self) -> Vec<u64> {
        let state = self.state.lock();
        let used = state.platters.iter().filter(|(_, block)| block.iter().any(|byte| *byte != 0));
        used.map(|(number, _)| number * BLOCK).collect()
    }

    /// A disk with the same platters, that goes its own way from here.
    pub fn copy(&self, seed: u64) -> Self {
        let copy = Self::new(self.bytes, seed);
        {
            let (mut to, from) = (copy.state.lock(), self.state.lock());
            to.platters = from.platters.clone();
            to.allocated = from.allocated.clone();
        }
        copy
    }
}

struct FaultDevice {
    disk: FaultDisk,
    incarnation: u64,
}

/// Whether the power goes in the middle of this operation.
struct Cut(bool);

impl FaultDevice {
    fn begin(&self, state: &mut State, operation: &'static str) -> Result<Cut, DeviceError> {
        if state.incarnation != self.incarnation {
            return Err(broken(operation, "the power is off"));
        }
        match &mut state.operations_left {
            Some(0) => Ok(Cut(true)),
            Some(left) => {
                *left -= 1;
                Ok(Cut(false))
            }
            None => Ok(Cut(false)),
        }
    }

    fn check(&self, offset: u64, bytes: usize, operation: &'static str) -> Result<(), DeviceError> {
        let aligned = offset.is_multiple_of(BLOCK) && bytes.is_multiple_of(BLOCK_BYTES);
        if !aligned || offset + bytes as u64 > self.disk.bytes {
            return Err(broken(operation, "EINVAL: not aligned, or past the end"));
        }
        Ok(())
    }
}

#[async_trait]
impl Device for FaultDevice {
    fn geometry(&self) -> Geometry {
        Geometry { bytes: self.disk.bytes, block_bytes: BLOCK_BYTES, direct: true, engine: "fault" }
    }

    async fn read(&self, offset: u64, mut buffer: BufMut) -> Result<BufMut, DeviceError> {
        tokio::task::yield_now().await;
        let mut state = self.disk.state.lock();
        if self.begin(&mut state, "reading")?.0 {
            state.cut();
            return Err(broken("reading", "the power went"));
        }
        self.check(offset, buffer.len(), "reading")?;
        for (number, out) in (offset / BLOCK..).zip(buffer.chunks_mut(BLOCK_BYTES)) {
            if state.bad_blocks.contains(&number) {
                return Err(broken("reading", "EIO: a bad block"));
            }
            match state.block(number) {
                Some(block) => out.copy_from_slice(&block[..]),
                None => out.fill(0),
            }
        }
        Ok(buffer)
    }

    async fn write(&self, offset: u64, pieces: Vec<Buf>) -> Result<(), DeviceError> {
        tokio::task::yield_now().await;
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        let mut state = self.disk.state.lock();
        let cut = self.begin(&mut state, "writing")?;
        let aligned = pieces.iter().all(|piece| (piece.as_ptr() as usize).is_multiple_of(BLOCK_BYTES));
        self.check(offset, if aligned { bytes.len() } else { 1 }, "writing")?;
        let blocks = bytes.len() as u64 / BLOCK;
        let numbers = offset / BLOCK..offset / BLOCK + blocks;
        let mut reach = blocks;
        let mut result = Ok(());
        if cut.0 {
            reach = state.random() % (blocks + 1);
            result = Err(broken("writing", "the power went"));
        } else if state.write_errors > 0 {
            state.write_errors -= 1;
            reach = state.random() % (blocks + 1);
            result = Err(broken("writing", "EIO: injected"));
        } else {
            state.reserve(numbers.clone())?;
        }
        for (number, block) in numbers.zip(bytes.chunks(BLOCK_BYTES)).take(reach as usize) {
            state.put(number, block);
        }
        if cut.0 {
            state.cut();
        }
        result
    }

    async fn flush(&self) -> Result<(), DeviceError> {
        tokio::task::yield_now().await;
        let mut state = self.disk.state.lock();
        if self.begin(&mut state, "flushing")?.0 {
            state.cut();
            return Err(broken("flushing", "the power went"));
        }
        if state.flush_errors > 0 {
            state.flush_errors -= 1;
            state.cache.clear();
            return Err(broken("flushing", "EIO: injected"));
        }
        let cache = std::mem::take(&mut state.cache);
        state.platters.extend(cache);
        state.flushes += 1;
        Ok(())
    }

    async fn allocate(&self, offset: u64, bytes: u64) -> Result<(), DeviceError> {
        let mut state = self.disk.state.lock();
        if self.begin(&mut state, "allocating")?.0 {
            state.cut();
            return Err(broken("allocating", "the power went"));
        }
        state.reserve(offset / BLOCK..(offset + bytes) / BLOCK)
    }

    async fn discard(&self, offset: u64, bytes: u64) -> Result<(), DeviceError> {
        let mut state = self.disk.state.lock();
        if self.begin(&mut state, "discarding")?.0 {
            state.cut();
            return Err(broken("discarding", "the power went"));
        }
        for number in offset / BLOCK..(offset + bytes) / BLOCK {
            state.allocated.remove(&number);
            if state.block(number).is_some() {
                state.cache.insert(number, blank());
            }
        }
        Ok(())
    }

    async fn close(&self) {}
}
