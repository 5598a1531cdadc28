//! The cluster map: which nodes there are, how much each weighs, and what can fail together.

use penstock_proto::{MapEpoch, NodeId};
use serde::{Deserialize, Serialize};

/// Most levels of failure domains: region, zone, power, row, rack, host and two to spare.
pub const DOMAIN_LEVELS_MAX: usize = 8;

/// One storage node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Its id, unique in the map.
    pub id: NodeId,
    /// Its share of the load, relative to the others (its capacity in GiB, for example). At least 1; a node to be
    /// drained is taken out of the map.
    pub weight: u32,
    /// What it fails together with, outermost first: region, zone, rack, host. May be empty; nodes may differ in depth.
    pub domain: Vec<String>,
}

/// The nodes at one moment. Serialised with serde; check what comes from outside with [`ClusterMap::validate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Which version of the map this is.
    pub epoch: MapEpoch,
    /// Its nodes, in any order: the order changes no placement.
    pub nodes: Vec<NodeEntry>,
}

/// Why nothing can be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Two shards would share a node.
    #[error("{shards} shards need as many nodes; the cluster map of epoch {} has {nodes}: choose a narrower code or add nodes", epoch.0)]
    TooFewNodes {
        /// Shards asked for.
        shards: usize,
        /// Nodes there are.
        nodes: usize,
        /// In which map.
        epoch: MapEpoch,
    },
    /// An id appears twice.
    #[error("the cluster map has {0} more than once")]
    DuplicateNode(NodeId),
    /// A node that would never be used.
    #[error("{0} has weight 0 in the cluster map: give it a weight of at least 1, or take it out")]
    ZeroWeight(NodeId),
    /// A failure domain without a name.
    #[error("{0} has a failure domain with an empty name in the cluster map")]
    UnnamedDomain(NodeId),
    /// More levels of domains than there may be.
    #[error("{node} has {levels} levels of failure domains; at most {DOMAIN_LEVELS_MAX} are allowed")]
    TooDeep {
        /// Whose.
        node: NodeId,
        /// How many.
        levels: usize,
    },
}

impl PlacementError {
    /// Whether the same call may succeed soon. Never: the map has to change first.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl ClusterMap {
    /// A checked map.
    ///
    /// # Errors
    /// As [`ClusterMap::validate`].
    pub fn new(epoch: MapEpoch, nodes: Vec<NodeEntry>) -> Result<Self, PlacementError> {
        let map = Self { epoch, nodes };
        map.validate()?;
        Ok(map)
    }

    /// Whether the map makes sense: ids unique, weights positive, domains named and not too deep.
    ///
    /// # Errors
    /// The first node that doesn't, and why.
    pub fn validate(&self) -> Result<(), PlacementError> {
        // One bit per possible id: 8 KiB on the stack beats hashing the ids of every placement.
        let mut seen = [0u64; (u16::MAX as usize + 1) / 64];
        for entry in &self.nodes {
            let (word, bit) = (usize::from(entry.id.0) / 64, 1u64 << (entry.id.0 % 64));
            if seen[word] & bit != 0 {
                return Err(PlacementError::DuplicateNode(entry.id));
            }
            seen[word] |= bit;
            if entry.weight == 0 {
                return Err(PlacementError::ZeroWeight(entry.id));
            }
            if entry.domain.len() > DOMAIN_LEVELS_MAX {
                return Err(PlacementError::TooDeep { node: entry.id, levels: entry.domain.len() });
            }
            if entry.domain.iter().any(String::is_empty) {
                return Err(PlacementError::UnnamedDomain(entry.id));
            }
        }
        Ok(())
    }
}
