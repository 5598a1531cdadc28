//! What a gateway is told at its start.

use std::collections::HashMap;
use std::time::Duration;

use penstock_buf::BufPool;
use penstock_digest::HashScheduler;
use penstock_placement::{ClusterMap, PlacementError, SETS_PER_NODE, place};
use penstock_proto::plan::NodeAddress;
use penstock_proto::{ClusterKey, Code, DataId, NodeId, limits};

use crate::pack::PackOptions;
use crate::policies::Classes;
use crate::upkeep::UpkeepOptions;

/// The default of [`GatewayOptions::plan_inline_bytes_max`].
pub const PLAN_INLINE_BYTES_MAX: u64 = 128 << 10;

/// A day.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Lifecycle rules are followed so often.
const LIFECYCLE_INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// How a gateway stores and what it allows.
#[derive(Clone)]
pub struct GatewayOptions {
    /// The code of new data. What is stored keeps the code that it was written with.
    pub code: Code,
    /// The nodes, and what they fail together with.
    pub cluster_map: ClusterMap,
    /// In how many placement sets a node is, on average; times n - 1 it is the scatter width.
    pub placement_sets_per_node: usize,
    /// Codes of storage classes, where neither the administrator nor the bucket says another.
    pub storage_classes: Classes,
    /// Whether a code whose shards can't be spread over failure domains so that it survives the loss of one is refused.
    pub spread_required: bool,
    /// What capabilities are signed with; the nodes have the same.
    pub cluster_key: ClusterKey,
    /// How long replaced and deleted data outlives its row, for readers at other gateways. Readers at this one hold a
    /// lease besides.
    pub garbage_grace_ms: u64,
    /// How often the collector looks for garbage on its own; `None` leaves it to [`crate::Gateway::collect_garbage_now`].
    pub garbage_interval: Option<Duration>,
    /// How long a day of lifecycle rules is: 24 hours but in tests.
    pub lifecycle_day: Duration,
    /// How often lifecycle rules are followed; `None` leaves it to [`crate::Gateway::run_lifecycle_now`].
    pub lifecycle_interval: Option<Duration>,
    /// Requests worked on at a time, open reads included; past it, SlowDown.
    pub requests_in_flight_max: usize,
    /// How what is stored is kept.
    pub upkeep: UpkeepOptions,
    /// How long a client may be silent in the middle of a body.
    pub body_idle_timeout: Duration,
    /// Where clients reach the nodes; without any, plans are declined.
    pub node_addresses: HashMap<NodeId, Vec<NodeAddress>>,
    /// Reads and bodies up to this long are answered with their bytes where a plan was asked for: a plan costs another
    /// round trip.
    pub plan_inline_bytes_max: u64,
    /// How small objects are packed; `None` stores each by itself, and leaves extents as they are.
    pub packing: Option<PackOptions>,
    /// The executor's buffers, for [`crate::Gateway::usage`] to count; the gateway takes none itself.
    pub buffers: Option<BufPool>,
    /// The ARNs of the targets that events of buckets can be sent to.
    pub event_targets: Vec<String>,
    /// What all stored keys are sealed under. `None`: nothing can be encrypted, and what is can't be read.
    pub master_key: Option<penstock_vault::MasterKey>,
    /// What hashes bodies: one for a whole process, so that all of its requests share lanes. `None`: the gateway makes
    /// one of its own.
    pub hashes: Option<HashScheduler>,
}

impl GatewayOptions {
    /// The defaults for this code, map and key.
    pub fn new(code: Code, cluster_map: ClusterMap, cluster_key: ClusterKey) -> Self {
        Self {
            code,
            cluster_map,
            placement_sets_per_node: SETS_PER_NODE,
            storage_classes: Classes::new(),
            spread_required: false,
            cluster_key,
            garbage_grace_ms: 60_000,
            garbage_interval: Some(Duration::from_secs(5)),
            lifecycle_day: DAY,
            lifecycle_interval: Some(LIFECYCLE_INTERVAL_MAX),
            requests_in_flight_max: limits::REQUESTS_IN_FLIGHT_MAX,
            upkeep: UpkeepOptions::default(),
            body_idle_timeout: limits::BODY_IDLE_TIMEOUT,
            node_addresses: HashMap::new(),
            plan_inline_bytes_max: PLAN_INLINE_BYTES_MAX,
            packing: None,
            buffers: None,
            event_targets: Vec::new(),
            master_key: None,
            hashes: None,
        }
    }

    /// Makes a day of lifecycle rules so long, and follows them ten times a day (but at least once an hour).
    pub fn set_lifecycle_day(&mut self, day: Duration) {
        self.lifecycle_day = day;
        self.lifecycle_interval = Some((day / 10).min(LIFECYCLE_INTERVAL_MAX));
    }

    /// Whether the nodes can hold the code.
    ///
    /// # Errors
    /// The numbers, when they can't. A gateway started all the same answers every PUT with them.
    pub fn check(&self) -> Result<(), PlacementError> {
        place(&self.cluster_map, DataId(0), 0, self.code.n()).map(drop)
    }
}
