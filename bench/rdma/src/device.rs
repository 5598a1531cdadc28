//! The device that is measured, or what to do where there is none.

use penstock_rdma_transport::rails;
use penstock_verbs::{Domain, preferred_gid};

use crate::RdmaBenchError;

/// What to do on a machine without a device.
const ADVICE: &str = "to measure on soft-RoCE in a guest: ./dev lab bench; to make a device on this machine's network card: \
     sudo modprobe rdma_rxe && sudo rdma link add rxe0 type rxe netdev eth0; penstock doctor --rdma says what is missing";

/// One port.
pub(crate) struct Port {
    pub(crate) domain: Domain,
    pub(crate) device: String,
    /// Of the address that connections use.
    pub(crate) gid_index: u8,
    pub(crate) mtu_bytes: u32,
}

/// The port to measure. Call it within a tokio runtime.
///
/// # Errors
/// Why there is none, by the device's name where one was named, and what to do.
pub(crate) fn open(name: Option<&str>) -> Result<Port, RdmaBenchError> {
    let names: Vec<String> = name.iter().map(|name| (*name).to_owned()).collect();
    let which = name.map_or_else(|| "no RDMA device".to_owned(), |name| format!("no RDMA device {name}"));
    let missing = |why: String| RdmaBenchError::Setup(format!("{which}: {why}; {ADVICE}"));
    let domain = rails(&names).map_err(|error| missing(error.to_string()))?.into_iter().next();
    let domain = domain.ok_or_else(|| missing("no port is active".to_owned()))?;
    let gid = preferred_gid(domain.gids()).ok_or_else(|| missing("its port has no address".to_owned()))?;
    Ok(Port {
        device: domain.device().name().to_owned(),
        gid_index: gid.index,
        mtu_bytes: domain.port().mtu.bytes(),
        domain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_machine_without_the_device_is_told_by_name_and_what_to_do() {
        let Err(error) = open(Some("no-such-device0")) else { panic!("there is no such device") };
        let text = error.to_string();
        assert!(text.starts_with("no RDMA device no-such-device0: "), "{text}");
        assert!(text.contains("./dev lab bench") && text.contains("rdma link add"), "{text}");
    }
}
