//! Plans: what the gateway decides and a client's executor carries out, and what comes back to be committed.
//!
//! A **read plan** says where the bytes of a range are: stripes, how they are coded, which node has which shard, every
//! shard's CRC64NVME, and the capability to read them. A **write plan** says where the bytes of a body to be are to go, and
//! carries a *ticket*: the gateway's own note, signed, of what it has planned, opaque to the client. The **commit** brings
//! the ticket back with the nodes' receipts.
//!
//! Encoded (`docs/protocol/native.md`): version byte, kind byte, then the struct in postcard, fields in the order that they
//! have here. Readers refuse what is of another version, too long, or followed by anything.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::capability::{Capability, ClusterKey, MAC_BYTES};
use crate::code::Code;
use crate::ids::{DataId, NodeId};
use crate::limits;
use crate::receipt::Receipt;

/// Version of every record here.
pub const VERSION: u8 = 1;
/// Stripes of one group of a plan: those that are on the same nodes.
pub const GROUP_STRIPES: u32 = 64;

const TICKET_DOMAIN: &[u8] = b"penstock plan ticket v1\0";

/// How a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeAddress {
    /// `tcp` or `rdma`; a client passes over those it does not know.
    pub transport: String,
    /// `host:port`. A missing host (`:7400`) is the one by which the client reached the gateway.
    pub address: String,
}

/// A node of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanNode {
    /// Which.
    pub node: NodeId,
    /// How it is reached, best first.
    pub addresses: Vec<NodeAddress>,
}

/// One stripe of a read plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStripe {
    /// Bytes of object data in it.
    pub chunk_bytes: u32,
    /// Shards that were not durable when it was written: bit j is shard j.
    pub missing: u64,
    /// CRC64NVME of each shard.
    pub shard_crc64s: Vec<Crc64>,
}

/// Stripes on the same nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanGroup {
    /// Number of the first.
    pub first_stripe: u32,
    /// Shard j of each is on `nodes[j]`.
    pub nodes: Vec<NodeId>,
    /// The stripes.
    pub stripes: Vec<PlanStripe>,
}

/// A run of data, or what the plan needs of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRun {
    /// Which.
    pub data: DataId,
    /// How it is coded.
    pub code: Code,
    /// Bytes of each chunk but the last of the run.
    pub chunk_bytes: u32,
    /// Where the run's first byte is in the object: stripe i is from `offset + i * chunk_bytes`.
    pub offset: u64,
    /// The right to read the stripes named here.
    pub capability: Capability,
    /// The stripes, ascending.
    pub groups: Vec<PlanGroup>,
}

/// Where a range of an object is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadPlan {
    /// How long it is good for, from when it was sent. Past that, nodes refuse and shards may be collected.
    pub lifetime_ms: u64,
    /// First byte of the object that it covers.
    pub start: u64,
    /// The byte after the last: less than what was asked for when that takes more than one plan.
    pub end: u64,
    /// The runs, in the order of the object.
    pub runs: Vec<PlanRun>,
    /// Every node that they name.
    pub nodes: Vec<PlanNode>,
}

/// Where a body is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WritePlan {
    /// How long it is good for, from when it was sent to when its commit arrives.
    pub lifetime_ms: u64,
    /// The id of the data to be.
    pub data: DataId,
    /// Bytes of the body.
    pub size_bytes: u64,
    /// How it is to be coded.
    pub code: Code,
    /// Bytes of each chunk but the last.
    pub chunk_bytes: u32,
    /// The right to store the shards, with receipts.
    pub capability: Capability,
    /// Shard j of the stripes of run i of [`GROUP_STRIPES`] goes to `groups[i][j]`.
    pub groups: Vec<Vec<NodeId>>,
    /// Every node that they name.
    pub nodes: Vec<PlanNode>,
    /// To be brought back with the commit.
    pub ticket: Vec<u8>,
}

/// One stripe of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitStripe {
    /// Bytes of object data in it.
    pub chunk_bytes: u32,
    /// CRC64NVME of each shard.
    pub shard_crc64s: Vec<Crc64>,
    /// The receipt of each shard; none for those that are not known to be durable.
    pub receipts: Vec<Option<Receipt>>,
}

/// What a client has stored by a write plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteCommit {
    /// The plan's.
    pub ticket: Vec<u8>,
    /// All stripes of the body.
    pub stripes: Vec<CommitStripe>,
}

/// What the gateway has planned, as a note to itself: the client carries it, and can't read more out of it than it knows,
/// nor change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteTicket {
    /// The data to be.
    pub data: DataId,
    /// Bytes of the body.
    pub size_bytes: u64,
    /// Its code.
    pub code: Code,
    /// The map by which the nodes were chosen.
    pub epoch: u64,
    /// As in [`WritePlan::groups`].
    pub groups: Vec<Vec<NodeId>>,
    /// Not to be committed from then on.
    pub expires_unix_ms: u64,
    /// Who asked.
    pub access_key: String,
    /// The bucket's id.
    pub bucket_id: u64,
    /// The key.
    pub key: String,
    /// For a part: its upload and number.
    pub part: Option<(String, u32)>,
}

/// A CRC64 in eight bytes: they are as good as random, and varints would make ten of most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crc64(#[serde(with = "postcard::fixint::le")] pub u64);

/// Why a record can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Another version or kind.
    #[error("the record has version {version} and kind {kind}; expected are version {VERSION} and kind {expected}")]
    Version {
        /// Its version.
        version: u8,
        /// Its kind.
        kind: u8,
        /// The kind that was expected.
        expected: u8,
    },
    /// Too long.
    #[error("the record has {0} bytes, more than the {max} that may be", max = limits::PLAN_BYTES_MAX)]
    Long(usize),
    /// Anything else.
    #[error("the record can't be read: {0}")]
    Unreadable(String),
    /// A ticket that this cluster did not sign.
    #[error("the ticket is not one that this cluster has signed")]
    Forged,
}

/// A record of this module.
pub trait Record: Serialize + DeserializeOwned {
    /// Its kind byte.
    const KIND: u8;

    /// The encoded form.
    ///
    /// # Errors
    /// [`PlanError::Long`] past [`limits::PLAN_BYTES_MAX`].
    fn encode(&self) -> Result<Vec<u8>, PlanError> {
        let head = vec![VERSION, Self::KIND];
        let bytes = postcard::to_extend(self, head).map_err(|error| PlanError::Unreadable(error.to_string()))?;
        if bytes.len() > limits::PLAN_BYTES_MAX { Err(PlanError::Long(bytes.len())) } else { Ok(bytes) }
    }

    /// Reads the encoded form.
    ///
    /// # Errors
    /// [`PlanError`] for anything that [`Record::encode`] would not write.
    fn decode(bytes: &[u8]) -> Result<Self, PlanError> {
        if bytes.len() > limits::PLAN_BYTES_MAX {
            return Err(PlanError::Long(bytes.len()));
        }
        let [version, kind, rest @ ..] = bytes else {
            return Err(PlanError::Unreadable("it ends in its first two bytes".to_owned()));
        };
        if (*version, *kind) != (VERSION, Self::KIND) {
            return Err(PlanError::Version { version: *version, kind: *kind, expected: Self::KIND });
        }
        let (record, rest) =
            postcard::take_from_bytes(rest).map_err(|error| PlanError::Unreadable(error.to_string()))?;
        if rest.is_empty() { Ok(record) } else { Err(PlanError::Unreadable(format!("{} bytes follow it", rest.len()))) }
    }
}

impl Record for ReadPlan {
    const KIND: u8 = 1;
}
impl Record for WritePlan {
    const KIND: u8 = 2;
}
impl Record for WriteCommit {
    const KIND: u8 = 3;
}
impl Record for WriteTicket {
    const KIND: u8 = 4;
}

impl WriteTicket {
    /// Encoded and signed.
    ///
    /// # Errors
    /// As [`Record::encode`].
    pub fn seal(&self, key: &ClusterKey) -> Result<Vec<u8>, PlanError> {
        let mut bytes = self.encode()?;
        let mac = key.mac(TICKET_DOMAIN, &bytes);
        bytes.extend_from_slice(&mac);
        Ok(bytes)
    }

    /// The inverse of [`WriteTicket::seal`].
    ///
    /// # Errors
    /// [`PlanError::Forged`], looked at first, in constant time; as [`Record::decode`].
    pub fn open(sealed: &[u8], key: &ClusterKey) -> Result<Self, PlanError> {
        let (bytes, mac) = sealed.split_last_chunk::<MAC_BYTES>().ok_or(PlanError::Forged)?;
        if !bool::from(key.mac(TICKET_DOMAIN, bytes).ct_eq(mac)) {
            return Err(PlanError::Forged);
        }
        Self::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::{Rights, Scope};
    use crate::ids::ShardKey;
    use crate::receipt::StoredShard;

    fn key() -> ClusterKey {
        ClusterKey::new([7; 32])
    }

    fn capability() -> Capability {
        let scope = Scope { first_stripe: 0, end_stripe: 1, shards: 2 };
        Capability::sign_scoped(&key(), Rights::GET, DataId(1), scope, 99)
    }

    fn nodes() -> Vec<PlanNode> {
        let tcp = NodeAddress { transport: "tcp".to_owned(), address: ":7".to_owned() };
        vec![PlanNode { node: NodeId(5), addresses: vec![tcp] }]
    }

    fn read_plan() -> ReadPlan {
        let stripe = PlanStripe { chunk_bytes: 100, missing: 2, shard_crc64s: vec![Crc64(1), Crc64(2)] };
        let group = PlanGroup { first_stripe: 0, nodes: vec![NodeId(5), NodeId(6)], stripes: vec![stripe] };
        let run = PlanRun {
            data: DataId(1),
            code: Code::new(1, 1).unwrap(),
            chunk_bytes: 4 << 20,
            offset: 0,
            capability: capability(),
            groups: vec![group],
        };
        ReadPlan { lifetime_ms: 60_000, start: 0, end: 100, runs: vec![run], nodes: nodes() }
    }

    fn write_plan() -> WritePlan {
        WritePlan {
            lifetime_ms: 300_000,
            data: DataId(1),
            size_bytes: 100,
            code: Code::new(1, 1).unwrap(),
            chunk_bytes: 4 << 20,
            capability: capability(),
            groups: vec![vec![NodeId(5), NodeId(6)]],
            nodes: nodes(),
            ticket: vec![1, 2, 3],
        }
    }

    fn commit() -> WriteCommit {
        let shard = StoredShard { key: ShardKey { data: DataId(1), stripe: 0, shard: 0 }, shard_bytes: 128, crc64: 1 };
        let receipt = Receipt::sign(&key(), &shard, NodeId(5), 99);
        let stripe = CommitStripe {
            chunk_bytes: 100,
            shard_crc64s: vec![Crc64(1), Crc64(2)],
            receipts: vec![Some(receipt), None],
        };
        WriteCommit { ticket: vec![1, 2, 3], stripes: vec![stripe] }
    }

    fn ticket() -> WriteTicket {
        WriteTicket {
            data: DataId(1),
            size_bytes: 100,
            code: Code::new(1, 1).unwrap(),
            epoch: 1,
            groups: vec![vec![NodeId(5), NodeId(6)]],
            expires_unix_ms: 99,
            access_key: "AK".to_owned(),
            bucket_id: 3,
            key: "k".to_owned(),
            part: Some(("u".to_owned(), 2)),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(hex(&read_plan().encode().unwrap()), GOLDEN_READ);
        assert_eq!(hex(&write_plan().encode().unwrap()), GOLDEN_WRITE);
        assert_eq!(hex(&commit().encode().unwrap()), GOLDEN_COMMIT);
        assert_eq!(hex(&ticket().seal(&key()).unwrap()), GOLDEN_TICKET);
    }

    const GOLDEN_READ: &str = "0101e0d40300640101010100808080020033020200000000000000000000000000000001630000000000000000000000010000000291f9ad03a863f45bc35777c14ce167100100020506016402020100000000000000020000000000000001050103746370023a37";
    const GOLDEN_WRITE: &str = "0102e0a71201640101008080800233020200000000000000000000000000000001630000000000000000000000010000000291f9ad03a863f45bc35777c14ce167100102050601050103746370023a3703010203";
    const GOLDEN_COMMIT: &str = "0103030102030164020100000000000000020000000000000002011a05006300000000000000d141ba315db8681261526c0a119a932b00";
    const GOLDEN_TICKET: &str = "0104016401010001010205066302414b03016b010175026e1a9fb8e61155acf491714a1a00ee56";

    fn comes_back<R: Record + PartialEq + std::fmt::Debug>(record: &R) {
        let bytes = record.encode().unwrap();
        assert_eq!(R::decode(&bytes).as_ref(), Ok(record));
        for end in 0..bytes.len() {
            assert!(R::decode(&bytes[..end]).is_err(), "{end} bytes of {record:?}");
        }
        assert!(R::decode(&[&bytes[..], &[0]].concat()).is_err());
        assert!(R::decode(&[&[2, R::KIND], &bytes[2..]].concat()).is_err());
        assert!(R::decode(&[&[VERSION, 9], &bytes[2..]].concat()).is_err());
    }

    #[test]
    fn every_record_comes_back_and_no_prefix_or_suffix_passes() {
        comes_back(&read_plan());
        comes_back(&write_plan());
        comes_back(&commit());
        comes_back(&ticket());
        assert!(matches!(ReadPlan::decode(&vec![1; limits::PLAN_BYTES_MAX + 1]), Err(PlanError::Long(_))));
    }

    #[test]
    fn a_ticket_can_not_be_changed() {
        let sealed = ticket().seal(&key()).unwrap();
        assert_eq!(WriteTicket::open(&sealed, &key()), Ok(ticket()));
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(WriteTicket::open(&changed, &key()), Err(PlanError::Forged));
        }
        assert_eq!(WriteTicket::open(&sealed, &ClusterKey::new([8; 32])), Err(PlanError::Forged));
        assert_eq!(WriteTicket::open(&[], &key()), Err(PlanError::Forged));
    }
}
