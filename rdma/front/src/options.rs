//! How much is served at a time, and how long anything may take.

use std::time::Duration;

use penstock_rdma_wire::sessions::Caps;

/// Sessions of hipobj-rc-v2, of all keys.
const SESSIONS_MAX: usize = 1024;
/// Of one key.
const KEY_SESSIONS_MAX: usize = 256;
/// Queue pairs of all keys and of connections that are nobody's yet.
const QUEUE_PAIRS_MAX: usize = 2048;
/// Of one key.
const KEY_QUEUE_PAIRS_MAX: usize = 1024;
/// Staging memory for hipobj-rc-v2's PUTs, of all keys.
const STAGING_BYTES_MAX: u64 = 512 << 20;
/// Of one key; also the largest PUT.
const KEY_STAGING_BYTES_MAX: u64 = 256 << 20;
/// Connections of the shim.
const CONNECTIONS_MAX: usize = 1024;
/// Of one source address: connecting needs no signature.
const SOURCE_CONNECTIONS_MAX: usize = 256;
/// Packet numbers that rest before they are used again.
const RETIRED_MAX: usize = 1 << 16;
/// How long they rest: longer than any packet lives.
const RETIRED_REST: Duration = Duration::from_secs(30);

/// Bounds of a front.
#[derive(Clone, Copy, Debug)]
pub struct RdmaOptions {
    /// What keys may hold.
    pub caps: Caps,
    /// Connections of the shim.
    pub connections_max: usize,
    /// Of one source address.
    pub source_connections_max: usize,
    /// A connection that nobody uses for so long is dropped.
    pub connection_idle: Duration,
    /// From PREPARE to READY.
    pub prepare_timeout: Duration,
    /// From READY until all bytes have moved; also of one piece over a connection of the shim.
    pub transfer_timeout: Duration,
    /// How many (queue pair, PSN) pairs rest at a time.
    pub retired_max: usize,
    /// How long they do.
    pub retired_rest: Duration,
}

impl Default for RdmaOptions {
    fn default() -> Self {
        Self {
            caps: Caps {
                key_sessions_max: KEY_SESSIONS_MAX,
                key_queue_pairs_max: KEY_QUEUE_PAIRS_MAX,
                key_staging_bytes_max: KEY_STAGING_BYTES_MAX,
                sessions_max: SESSIONS_MAX,
                queue_pairs_max: QUEUE_PAIRS_MAX,
                staging_bytes_max: STAGING_BYTES_MAX,
            },
            connections_max: CONNECTIONS_MAX,
            source_connections_max: SOURCE_CONNECTIONS_MAX,
            connection_idle: Duration::from_secs(5 * 60),
            prepare_timeout: Duration::from_secs(10),
            transfer_timeout: Duration::from_secs(30),
            retired_max: RETIRED_MAX,
            retired_rest: RETIRED_REST,
        }
    }
}
