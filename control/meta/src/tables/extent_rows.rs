//! The rows of extents, and what operations on them take and return. `extents.rs` says what they are for.

use penstock_proto::{Code, DataId, MapEpoch, NodeId};
use serde::{Deserialize, Serialize};

use super::rows::Row;
use super::{BucketRow, Cause, Committed, DataRow, ManifestRow, ObjectRow, Preconditions};

/// Most batches of one extent: their rows go in one transaction, which clears at most 16,384.
pub const EXTENT_BATCHES_MAX: u32 = 8192;

/// Where the bytes of a packed object are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PackedRow {
    /// In which extent.
    pub extent: DataId,
    /// From which byte of it.
    pub offset: u64,
    /// How many.
    pub size_bytes: u32,
    /// Their CRC64NVME.
    #[serde(with = "postcard::fixint::le")]
    pub crc64: u64,
}

impl PackedRow {
    /// The byte after the object's last.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.size_bytes)
    }
}

/// An extent. At `E | extent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtentRow {
    /// When it was opened.
    pub opened_unix_ms: u64,
    /// The code that it is to get once it is sealed.
    pub target: Code,
    /// The map by which its nodes were chosen.
    pub epoch: MapEpoch,
    /// The code of its batches: whole copies, `RS(1,m)`.
    pub copies: Code,
    /// Nodes that may have any: those of its batches, at least.
    pub nodes: Vec<NodeId>,
    /// Where it is in its life.
    pub state: ExtentState,
}

/// Where an extent is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExtentState {
    /// Its gateway adds batches, until then at most: whoever finds it later seals it.
    Open {
        /// When.
        expires_unix_ms: u64,
    },
    /// It grows no more.
    Sealed {
        /// End of its last batch.
        length_bytes: u64,
    },
    /// Written anew as one run, offsets kept; its batches are gone.
    Encoded(DataRow),
}

impl ExtentRow {
    /// The nodes of a batch, from those that the extent was opened with. Turned from batch to batch, so that the copy that is
    /// read first is not always the same node's.
    pub fn nodes_of(&self, batch: u32) -> Vec<NodeId> {
        let mut nodes = self.nodes.clone();
        let turn = batch as usize % nodes.len().max(1);
        nodes.rotate_left(turn);
        nodes
    }

    /// The stripe of the extent that a batch is: 64 apart, so that each has a manifest row of its own, as rows of
    /// [`super::MANIFEST_STRIPES_MAX`] stripes have it everywhere.
    pub fn stripe_of(batch: u32) -> u32 {
        batch * super::MANIFEST_STRIPES_MAX as u32
    }
}

/// Whose bytes begin at an offset. At `D | extent | offset`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PackedOwnerRow {
    /// The bucket's id.
    pub bucket_id: u64,
    /// The object's key.
    pub key: String,
    /// It is the key's null version.
    pub null: bool,
    /// Else its place among the key's versions.
    pub version: [u8; 16],
}

impl Row for ExtentRow {
    const NAME: &'static str = "extent";
}
impl Row for PackedOwnerRow {
    const NAME: &'static str = "packed object";
}

/// A batch that is on its nodes: bodies that were written together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBatch {
    /// Of which extent.
    pub extent: DataId,
    /// Where in it.
    pub offset: u64,
    /// Its row, at `J | extent | offset`: a manifest of one stripe ([`ExtentRow::stripe_of`]).
    pub row: ManifestRow,
}

/// What a batch makes visible. Its bytes are within the batch.
#[derive(Clone, Debug)]
pub enum PackedWrite {
    /// An object, whose layout is [`super::Layout::Packed`].
    Object(Box<PackedObject>),
    /// An object's bytes, from another place.
    Move {
        /// Whose.
        owner: PackedOwnerRow,
        /// Where its row must still say they are.
        from: PackedRow,
        /// Where they are now.
        to: PackedRow,
    },
}

/// A packed object to be committed: the arguments of [`super::Tables::commit_object`].
#[derive(Clone, Debug)]
pub struct PackedObject {
    /// Where.
    pub bucket: BucketRow,
    /// Under which key.
    pub key: String,
    /// What.
    pub row: ObjectRow,
    /// Only if.
    pub preconditions: Preconditions,
    /// For data that it replaces.
    pub garbage_not_before_unix_ms: u64,
    /// For the events of it.
    pub cause: Cause,
}

/// What became of a [`PackedWrite`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackedDone {
    /// The object is visible.
    Object(Box<Committed>),
    /// Whether the bytes were moved: not if the object was replaced or deleted before.
    Moved(bool),
}

/// Where bytes of an extent are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtentPlace {
    /// In a batch.
    Batch {
        /// The extent.
        extent: ExtentRow,
        /// Where the batch begins.
        offset: u64,
        /// The batch.
        batch: ManifestRow,
    },
    /// In a run of data, at the same offset.
    Encoded(DataRow),
}
