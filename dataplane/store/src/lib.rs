//! Shards on a device: log-structured extents, checksummed, group-committed
