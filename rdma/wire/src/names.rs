//! The names of headers and paths, in lower case, and the words that stand in them.

/// Bytes of the client's memory that a request is about.
pub const TOKEN: &str = "x-amz-rdma-token";
/// What became of a request with a token.
pub const REPLY: &str = "x-amz-rdma-reply";
/// Which dialect.
pub const PROTOCOL: &str = "x-amz-rdma-protocol";
/// `unsupported`, beside a decline.
pub const PROTOCOL_STATUS: &str = "x-amz-rdma-protocol-status";
/// Which library made the descriptor; absent or `cuobj`.
pub const AGENT: &str = "x-amz-rdma-agent";
/// How many bytes were moved.
pub const BYTES_TRANSFERRED: &str = "x-amz-rdma-bytes-transferred";
/// A packet sequence number.
pub const PSN: &str = "x-amz-rdma-psn";
/// What the immediate data says.
pub const COOKIE: &str = "x-amz-rdma-cookie";
/// `GET` or `PUT`.
pub const OP: &str = "x-amz-rdma-op";
/// The object.
pub const TARGET: &str = "x-amz-rdma-target";
/// Bytes to move.
pub const SIZE: &str = "x-amz-rdma-size";
/// From where in the object.
pub const OFFSET: &str = "x-amz-rdma-offset";
/// A session or a connection.
pub const SESSION: &str = "x-amz-rdma-session";
/// A queue pair's number.
pub const QPN: &str = "x-amz-rdma-qpn";
/// A memory region's address.
pub const MR_ADDR: &str = "x-amz-rdma-mr-addr";
/// And its remote key.
pub const MR_RKEY: &str = "x-amz-rdma-mr-rkey";
/// Which checksum the client wants.
pub const CHECKSUM_ALGORITHM: &str = "x-amz-rdma-checksum-algorithm";
/// `CRC64NVME <base64>`.
pub const CHECKSUM: &str = "x-amz-rdma-checksum";
/// The Ceph RFC's form of it.
pub const CHECKSUM_CRC64NVME: &str = "x-amz-rdma-checksum-crc64nvme";
/// And for the other algorithm.
pub const CHECKSUM_CRC32C: &str = "x-amz-rdma-checksum-crc32c";
/// The object's ETag.
pub const ETAG: &str = "x-amz-rdma-etag";
/// The object's version.
pub const VERSION_ID: &str = "x-amz-rdma-version-id";
/// What S3 (and versitygw's Go client) calls it.
pub const S3_VERSION_ID: &str = "x-amz-version-id";

/// What [`PROTOCOL_STATUS`] says.
pub const UNSUPPORTED: &str = "unsupported";

/// hipobj-rc-v2: makes a session.
pub const RCV2_PREPARE: &str = "/.hipobj-rc/prepare";
/// hipobj-rc-v2: moves the bytes.
pub const RCV2_READY: &str = "/.hipobj-rc/ready";
/// hipobj-rc-v2: ends a session.
pub const RCV2_CANCEL: &str = "/.hipobj-rc/cancel";
/// RC shim: makes a connection.
pub const SHIM_CONNECT: &str = "/.s3rdma-rc/connect";
/// RC shim: ends one.
pub const SHIM_DISCONNECT: &str = "/.s3rdma-rc/disconnect";
