//! The dialects of S3 over RDMA that the front speaks, over this machine's device. Without a device they are declined, each
//! in the form that its clients understand, so that those that can fall back to HTTP do.

use std::sync::Arc;

use penstock_offload::DialectSet;
use penstock_rdma_front::{RdmaFront, RdmaOptions};

/// Call it within a tokio runtime.
pub(crate) fn dialects() -> DialectSet {
    DialectSet::new(vec![Arc::new(RdmaFront::new(None, RdmaOptions::default()))])
}
