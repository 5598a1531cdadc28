//! The dialects of S3 over RDMA that the front speaks, over this machine's device. Without a device they are declined, each
//! in the form that its clients understand, so that those that can fall back to HTTP do.

use std::sync::Arc;

use penstock_offload::DialectSet;
use penstock_rdma_front::{Nic, RdmaFront, VerbsNic};

use crate::Fatal;
use crate::rails::DEVICE_VARIABLE;
use crate::rdma_limits::RdmaLimits;

/// Call it within a tokio runtime.
///
/// # Errors
/// A device that is named and can't be used; limits that contradict each other.
pub(crate) fn dialects(limits: &RdmaLimits) -> Result<DialectSet, Fatal> {
    let options = limits.options()?;
    let named = std::env::var(DEVICE_VARIABLE).ok().filter(|name| !name.is_empty());
    let nic = match named.as_deref() {
        Some("none") => None,
        Some(name) => {
            let nic = VerbsNic::open(Some(name));
            Some(nic.map_err(|error| Fatal(format!("{DEVICE_VARIABLE}={name}: {error}; none is no RDMA")))?)
        }
        None => VerbsNic::open(None)
            .inspect_err(|error| tracing::info!(%error, "S3 over RDMA is declined: clients use HTTP"))
            .ok(),
    };
    if let Some(nic) = &nic {
        tracing::info!(device = nic.describe(), "S3 over RDMA is served");
    }
    let nic = nic.map(|nic| Arc::new(nic) as Arc<dyn Nic>);
    Ok(DialectSet::new(vec![Arc::new(RdmaFront::new(nic, options))]))
}
