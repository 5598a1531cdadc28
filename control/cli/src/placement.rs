//! Where data goes, as the configuration says it.

use std::collections::BTreeMap;

use penstock_placement::{ClusterMap, shortfalls};
use penstock_proto::Code;

use crate::Fatal;
use crate::config::Spread;

/// Where data goes, where that is not the default.
pub(crate) struct Placement {
    pub(crate) storage_classes: BTreeMap<String, Code>,
    pub(crate) sets_per_node: usize,
    pub(crate) spread: Spread,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            storage_classes: BTreeMap::new(),
            sets_per_node: penstock_placement::SETS_PER_NODE,
            spread: Spread::Warn,
        }
    }
}

impl Placement {
    pub(crate) fn of(cluster: &crate::config::Cluster) -> Self {
        Self {
            storage_classes: cluster.storage_classes.clone(),
            sets_per_node: cluster.placement_sets_per_node,
            spread: cluster.spread,
        }
    }

    /// Whether each code survives the loss of a failure domain, at every level that has several.
    pub(crate) fn check_spread(&self, map: &ClusterMap, code: Code) -> Result<(), Fatal> {
        for code in self.storage_classes.values().copied().chain([code]) {
            for short in shortfalls(map, code.n(), code.losses_survived()) {
                let text = format!(
                    "{code} survives the loss of any {} shards, and spreading its {} over {} failure domain(s) of level {} puts \
                     {} into one: losing it loses data",
                    code.losses_survived(),
                    code.n(),
                    short.domains,
                    short.level,
                    short.shards_per_domain
                );
                if self.spread == Spread::Require {
                    return Err(Fatal(format!("{text}; spread = \"require\" does not allow that")));
                }
                tracing::warn!("{text}");
            }
        }
        Ok(())
    }
}
