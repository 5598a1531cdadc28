//! Named bounds. Past any of them the answer is an error that names it, never a hang.

use std::time::Duration;

/// Bytes of object data in one stripe. Objects are cut into chunks of this size as they stream in.
pub const CHUNK_BYTES: usize = 4 << 20;
/// Every shard is a multiple of this long: one cache line.
pub const SHARD_ALIGN_BYTES: usize = 64;
/// Longest shard a node takes: a whole chunk (one copy on one node), rounded up.
pub const SHARD_BYTES_MAX: usize = CHUNK_BYTES + SHARD_ALIGN_BYTES;
/// Most shards in a stripe: GF(2^8) has 255 non-zero elements; the kernels and the disk format stop well before.
pub const SHARDS_PER_STRIPE_MAX: usize = 48;
/// Alignment of every payload buffer and of every device access.
pub const BLOCK_BYTES: usize = 4096;

/// Largest object, as S3 has it since December 2025.
pub const OBJECT_BYTES_MAX: u64 = 50 << 40;
/// Largest single PUT and largest part: 5 GiB, as S3 has it.
pub const PUT_BYTES_MAX: u64 = 5 << 30;
/// Smallest part, but for the last.
pub const PART_BYTES_MIN: u64 = 5 << 20;
/// Highest part number.
pub const PART_NUMBER_MAX: u32 = 10_000;
/// Longest object key.
pub const KEY_BYTES_MAX: usize = 1024;
/// Sum of user metadata names and values.
pub const USER_METADATA_BYTES_MAX: usize = 2048;
/// Most keys in one listing page or one DeleteObjects call.
pub const LIST_KEYS_MAX: usize = 1000;
/// Most buckets of one store.
pub const BUCKETS_MAX: usize = 10_000;
/// Largest XML body a client may send.
pub const XML_BODY_BYTES_MAX: usize = 4 << 20;
/// Largest request head (request line and headers).
pub const REQUEST_HEAD_BYTES_MAX: usize = 64 << 10;

/// Chunks of one PUT being encoded and stored at a time.
pub const PUT_CHUNKS_IN_FLIGHT: usize = 2;
/// Chunks of one GET read ahead of the client.
pub const GET_CHUNKS_AHEAD: usize = 2;
/// Requests one gateway works on at a time; past it, 503 SlowDown.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 2048;
/// Connections one S3 front keeps open at a time.
pub const S3_CONNECTIONS_MAX: usize = 4096;

/// How long an executor waits for one shard operation.
pub const SHARD_DEADLINE: Duration = Duration::from_secs(20);
/// How long a stripe operation may take, retries included.
pub const STRIPE_DEADLINE: Duration = Duration::from_secs(60);
/// How long a request waits for buffers before it is told to slow down.
pub const BUFFER_WAIT: Duration = Duration::from_secs(10);
/// How long a client may be silent while a request head is due.
pub const HEAD_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may be silent in the middle of a body.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How far a request's date may be from ours.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(15 * 60);
/// How long a capability that the gateway makes is good for.
pub const CAPABILITY_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// What a client that is told to slow down should wait.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Connections to one node that a transport keeps, idle and busy.
pub const CONNECTIONS_PER_NODE_MAX: usize = 64;
/// Connections that one node accepts.
pub const NODE_CONNECTIONS_MAX: usize = 1024;
/// Shard operations that one node works on at a time; past it, Busy.
pub const NODE_OPERATIONS_MAX: usize = 256;
/// Shards that one message of the upkeep is about: a listing, or a check of what a node holds.
pub const UPKEEP_SHARDS_MAX: usize = 4096;
/// Stripes that the executor beside one node rebuilds at a time; past it, Busy.
pub const REBUILDS_MAX: usize = 4;
/// Longest header of a message between executor and node.
pub const MESSAGE_HEADER_BYTES_MAX: usize = 4096;

/// Longest key of a metadata row.
pub const ROW_KEY_BYTES_MAX: usize = 2048;
/// Longest value of a metadata row.
pub const ROW_VALUE_BYTES_MAX: usize = 64 << 10;
/// Largest metadata transaction, keys and values written.
pub const TRANSACTION_BYTES_MAX: usize = 1 << 20;
/// Longest life of a metadata transaction.
pub const TRANSACTION_LIFETIME: Duration = Duration::from_secs(2);
/// Operations of one group commit.
pub const GROUP_COMMIT_OPERATIONS_MAX: usize = 4096;
/// Tries of one metadata transaction under conflicts.
pub const TRANSACTION_TRIES_MAX: u32 = 100;

/// Bytes of a PUT or GET plan, and of the commit that answers a PUT plan.
pub const PLAN_BYTES_MAX: usize = 4 << 20;
/// Stripes that one read plan covers; a longer read asks for another plan.
pub const PLAN_STRIPES_MAX: usize = 4096;
/// How long a read plan is good for, and how long the shards that it names are kept from the collector.
pub const PLAN_READ_LIFETIME: Duration = Duration::from_secs(60);
/// How long a PUT plan is good for, from the plan to its commit.
pub const PLAN_WRITE_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// Plans of one gateway whose time has not run out; past it, 503 SlowDown.
pub const PLANS_OPEN_MAX: usize = 16_384;
/// How long a node's receipt for a stored shard is good for.
pub const RECEIPT_LIFETIME: Duration = Duration::from_secs(10 * 60);
