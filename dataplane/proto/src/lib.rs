//! The words every room of the house shares: ids and units as newtypes, named limits, the records that go between
//! executor and node, capabilities, and the clock.
//!
//! This crate leans on nothing of ours, decides nothing and does no I/O. Everything that goes over a wire or to a disk
//! from here has a page in `docs/formats` and golden bytes in its tests.
#![forbid(unsafe_code)]

pub mod capability;
pub mod clock;
mod code;
mod ids;
pub mod limits;
pub mod plan;
pub mod receipt;
pub mod upkeep;
pub mod wire;

pub use capability::{Capability, CapabilityError, ClusterKey, Rights, Scope};
pub use clock::{Clock, ManualClock, SystemClock};
pub use code::{Code, CodeError, LRC_GLOBALS_MAX, LRC_GROUP_SHARDS_MAX, LRC_GROUPS_MAX};
pub use ids::{DataId, MapEpoch, NodeId, ShardKey};
pub use receipt::{Receipt, ReceiptError, StoredShard};
