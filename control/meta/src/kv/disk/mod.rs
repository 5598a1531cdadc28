//! The embedded engine: fjall 3, one keyspace, one write batch and one `fdatasync` per group commit.
//!
//! What we add to fjall's own checksums: a CRC32C on every row ([`row`]), a sequence number and a ring of them in every
//! batch ([`sequence`]), and a witness of the last acknowledged batch beside the database ([`witness`]). Together they
//! turn silent loss into a refusal to open.
//!
//! Reads run on the caller's thread: nearly all come from memory (memtable, block cache, page cache) in a few
//! microseconds, less than a trip to another thread costs. A cold read blocks that thread for one device read.
//!
//! **Layout** of the directory: `rows/` is fjall's, `witness` and `reserve` ([`room`]) are ours.
//!
//! **How it fails.** Opening is refused with an error that says what was lost. A read of a damaged row is
//! [`KvError::Corrupt`]. A failed batch or fsync closes the store for commits; reads go on.

mod room;
mod row;
mod sequence;
mod witness;

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode, Readable, Snapshot};

use super::engine::{Batch, Engine, EngineSnapshot, Room};
use super::occ::{OccOptions, OccStore};
use super::transact::TOKEN_PREFIX;
use super::{Kv, KvError, StoreStats, Transaction, prefix_end};
use room::RoomKeeper;
use sequence::RingCheck;
#[cfg(test)]
pub(crate) use sequence::ring_key;
use witness::{Testimony, Witness};

/// Rows of former processes removed by one batch at open.
const TOKENS_PER_BATCH: usize = 4096;

/// How much memory and how many threads the engine takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FjallOptions {
    /// Capacity of the block cache.
    pub cache_bytes: u64,
    /// Size at which the memtable is flushed; up to five of them (one active, four waiting) exist under load. Kept in
    /// the database when it is created.
    pub memtable_bytes: u64,
    /// Threads that flush and compact.
    pub workers: usize,
    /// Open a database whose witness is missing or damaged, establishing a new one: for an operator who restored the
    /// database without it, and who accepts that nobody can tell whether its last commits are there.
    pub accept_lost_witness: bool,
}

impl Default for FjallOptions {
    /// At most about 56 MiB under load.
    fn default() -> Self {
        Self { cache_bytes: 16 << 20, memtable_bytes: 8 << 20, workers: 2, accept_lost_witness: false }
    }
}

/// A store on one machine's disk.
pub struct FjallKv(OccStore<FjallEngine>);

impl FjallKv {
    /// Opens the store in `directory`, creating it if there is none. Blocks: call it before serving, or on a thread
    /// that may block.
    ///
    /// Fails with [`KvError::Engine`] if the store is open elsewhere, if its files are damaged, or if acknowledged
    /// commits are missing from it; the message says which.
    pub fn open(directory: &Path) -> Result<Self, KvError> {
        Self::open_with(directory, FjallOptions::default())
    }

    /// As [`FjallKv::open`], with other sizes.
    pub fn open_with(directory: &Path, options: FjallOptions) -> Result<Self, KvError> {
        Self::open_inner(directory, options, OccOptions::default())
    }

    /// As [`FjallKv::open_with`]; tests choose the transactions' lifetime.
    pub(crate) fn open_inner(directory: &Path, options: FjallOptions, occ: OccOptions) -> Result<Self, KvError> {
        let engine = FjallEngine::open(directory, options)?;
        Ok(Self(OccStore::start(engine, occ)?))
    }

    /// What the store has done so far.
    pub fn stats(&self) -> StoreStats {
        self.0.stats()
    }

    #[cfg(test)]
    pub(crate) fn flush_to_tables(&self) {
        self.0.engine().rows.rotate_memtable_and_wait().expect("a healthy database flushes");
    }
}

#[async_trait]
impl Kv for FjallKv {
    async fn begin(&self) -> Result<Box<dyn Transaction>, KvError> {
        self.0.begin()
    }

    async fn close(&self) -> Result<(), KvError> {
        self.0.close().await
    }

    fn engine_name(&self) -> &'static str {
        self.0.engine_name()
    }
}

/// The open database.
pub(crate) struct FjallEngine {
    database: Database,
    rows: Keyspace,
    witness: Witness,
    keeper: RoomKeeper,
    opened_at: u64,
}

fn engine_error(what: &str, error: impl std::fmt::Display) -> KvError {
    KvError::Engine(format!("{what}: {error}"))
}

/// A read's error: the engine's own checksums failing is corruption of the row, or of the block it is in.
fn read_error(key: &[u8], error: fjall::Error) -> KvError {
    match error {
        fjall::Error::Storage(LsmError::Io(error)) | fjall::Error::Io(error) => engine_error("can't read", error),
        damage @ (fjall::Error::Storage(_) | fjall::Error::Decompress(_)) => {
            KvError::Corrupt { key: key.to_vec(), what: format!("the block it lies in is damaged: {damage}") }
        }
        other => engine_error("can't read", other),
    }
}

impl FjallEngine {
    pub(crate) fn open(directory: &Path, options: FjallOptions) -> Result<Self, KvError> {
        std::fs::create_dir_all(directory).map_err(|error| engine_error("can't create the directory", error))?;
        let witness_path = directory.join("witness");
        let testimony = Witness::read(&witness_path).map_err(|error| engine_error("can't read the witness", error))?;
        let keeper = RoomKeeper::new(directory);
        let (database, rows) = open_database(directory.join("rows"), options)?;
        let snapshot = FjallSnapshot { snapshot: database.snapshot(), rows: rows.clone() };
        let last = last_sequence(&snapshot)?;
        check_witness(testimony, last, options.accept_lost_witness)?;
        check_ring(&snapshot, last)?;
        let witness =
            Witness::establish(&witness_path, last).map_err(|error| engine_error("can't write the witness", error))?;
        let mut engine = Self { database, rows, witness, keeper, opened_at: last };
        engine.remove_tokens(&snapshot)?;
        Ok(engine)
    }

    /// Removes the token rows of former processes: none of their transactions is under way any more.
    fn remove_tokens(&mut self, snapshot: &FjallSnapshot) -> Result<(), KvError> {
        let mut tokens: Batch = Vec::new();
        snapshot.scan(TOKEN_PREFIX, &prefix_end(TOKEN_PREFIX), false, &mut |key, _| {
            tokens.push((key, None));
            ControlFlow::Continue(())
        })?;
        for chunk in tokens.chunks(TOKENS_PER_BATCH) {
            self.apply(self.opened_at + 1, chunk.to_vec())?;
            self.opened_at += 1;
        }
        Ok(())
    }
}

/// Opens fjall. Damage that makes it panic is an error like other damage.
fn open_database(path: PathBuf, options: FjallOptions) -> Result<(Database, Keyspace), KvError> {
    let open = || -> fjall::Result<(Database, Keyspace)> {
        let database = Database::builder(&path)
            .cache_size(options.cache_bytes)
            .worker_threads(options.workers)
            .max_cached_files(Some(256))
            .open()?;
        let rows =
            database.keyspace("rows", || KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes))?;
        Ok((database, rows))
    };
    match std::panic::catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(fjall::Error::Locked)) => Err(KvError::Engine("the store is open in another process".into())),
        Ok(Err(error)) => Err(engine_error("can't open the database; its files may be damaged", error)),
        Err(_) => Err(KvError::Engine("can't open the database: its files are damaged (fjall panicked)".into())),
    }
}

fn last_sequence(snapshot: &FjallSnapshot) -> Result<u64, KvError> {
    match snapshot.get(sequence::SEQUENCE_KEY)? {
        None => Ok(0),
        Some(value) => sequence::decode(&value).ok_or_else(|| KvError::Corrupt {
            key: sequence::SEQUENCE_KEY.to_vec(),
            what: "not a sequence number".into(),
        }),
    }
}

fn check_witness(testimony: Testimony, last: u64, accept_lost: bool) -> Result<(), KvError> {
    match testimony {
        Testimony::Sequence(witnessed) if last < witnessed => Err(KvError::Engine(format!(
            "acknowledged commits are lost: the database ends at sequence {last}, but {witnessed} was acknowledged; \
             its log is damaged, restore it from a copy"
        ))),
        Testimony::Sequence(_) => Ok(()),
        Testimony::Missing if last == 0 => Ok(()),
        Testimony::Missing | Testimony::Damaged if accept_lost => Ok(()),
        Testimony::Missing | Testimony::Damaged => Err(KvError::Engine(format!(
            "the witness file is missing or damaged, so nobody can tell whether acknowledged commits are lost (the \
             database ends at sequence {last}); opening it needs accept_lost_witness"
        ))),
    }
}

fn check_ring(snapshot: &FjallSnapshot, last: u64) -> Result<(), KvError> {
    let (begin, end) = sequence::ring_range();
    let mut check = RingCheck::new(last);
    let mut wrong = None;
    snapshot.scan(&begin, &end, false, &mut |key, value| {
        if check.take(&key, &value) {
            ControlFlow::Continue(())
        } else {
            wrong = Some(key);
            ControlFlow::Break(())
        }
    })?;
    let (expected, seen) = check.counts();
    if wrong.is_some() || expected != seen {
        return Err(KvError::Engine(format!(
            "acknowledged commits are lost: of the last {expected} batches before sequence {last}, not all are there \
             (checked {seen}); a part of the log is damaged, restore the database from a copy"
        )));
    }
    Ok(())
}

impl Engine for FjallEngine {
    type Snapshot = FjallSnapshot;

    fn name(&self) -> &'static str {
        "fjall"
    }

    fn opened_at_version(&self) -> u64 {
        self.opened_at
    }

    fn snapshot(&self) -> FjallSnapshot {
        FjallSnapshot { snapshot: self.database.snapshot(), rows: self.rows.clone() }
    }

    fn room(&self) -> Room {
        self.keeper.room()
    }

    fn apply(&self, version: u64, rows: Batch) -> Result<(), KvError> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        let sequence = sequence::encode(version);
        let own = [(Bytes::from_static(sequence::SEQUENCE_KEY), &sequence), (sequence::ring_key(version), &sequence)];
        for (key, value) in own {
            batch.insert(&self.rows, key.as_ref(), row::seal(&key, value));
        }
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(&self.rows, key.as_ref(), row::seal(&key, &value)),
                None => batch.remove(&self.rows, key.as_ref()),
            }
        }
        batch.commit().map_err(|error| engine_error("can't write a batch", error))?;
        self.witness.note(version).map_err(|error| engine_error("can't write the witness", error))
    }
}

/// One state of the rows.
pub(crate) struct FjallSnapshot {
    snapshot: Snapshot,
    rows: Keyspace,
}

impl EngineSnapshot for FjallSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        match self.snapshot.get(&self.rows, key) {
            Ok(Some(stored)) => row::open(key, &stored).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(read_error(key, error)),
        }
    }

    fn scan(
        &self,
        begin: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(Bytes, Bytes) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        let mut rows = self.snapshot.range(&self.rows, begin..end);
        while let Some(entry) = if reverse { rows.next_back() } else { rows.next() } {
            let (key, stored) = entry.into_inner().map_err(|error| read_error(begin, error))?;
            let value = row::open(&key, &stored)?;
            if visit(Bytes::copy_from_slice(&key), value).is_break() {
                break;
            }
        }
        Ok(())
    }
}
