//! The nodes of `penstock serve` for clients that carry out plans themselves: each listens on the S3 address's host, on a port
//! of its own, and takes RDMA connections there where the machine has a device. What they do there is what any node does: serve whoever brings a capability that the gateway has signed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use penstock_proto::NodeId;
use penstock_proto::plan::NodeAddress;
use penstock_transport::{TcpServerOptions, serve_tcp};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Fatal;
use crate::assemble::OpenNode;
use crate::rails::{Served, ports_of_machine};

/// Connections that the kernel keeps for a node while it is busy.
const ACCEPT_BACKLOG: u32 = 256;

/// Nodes that listen.
#[derive(Default)]
pub(crate) struct Direct {
    /// For plans. Without a host: clients use the one by which they reached the gateway.
    pub(crate) addresses: HashMap<NodeId, Vec<NodeAddress>>,
    stop: CancellationToken,
    serving: Vec<JoinHandle<()>>,
    behind: Vec<Arc<Served>>,
}

impl Direct {
    /// Lets each node listen on `host`'s address: on ports from `first_port`, or on any when that is 0.
    pub(crate) fn start(nodes: &[OpenNode], host: SocketAddr, first_port: u16) -> Result<Self, Fatal> {
        let mut direct = Self::default();
        let ports = ports_of_machine()?;
        for node in nodes {
            let id = node.handler.id();
            let port = match first_port {
                0 => 0,
                first => first
                    .checked_add(id.0)
                    .ok_or_else(|| Fatal(format!("--node-port {first}: {id} would have a port past 65535")))?,
            };
            let address = SocketAddr::new(host.ip(), port);
            let socket: TcpSocket = penstock_s3::take_address(address)
                .map_err(|error| Fatal(format!("{id} for direct access: {error} (--direct false does without)")))?;
            let listener = socket.listen(ACCEPT_BACKLOG).map_err(|error| Fatal::doing(address, error))?;
            let address = listener.local_addr().map_err(|error| Fatal::doing(address, error))?;
            let behind = Arc::new(Served::of_serve(&ports, id, node.handler.clone())?);
            let (handler, stop) = (behind.handler(), direct.stop.clone());
            direct.serving.push(tokio::spawn(async move {
                if let Err(error) = serve_tcp(listener, handler, stop, TcpServerOptions::new(id)).await {
                    tracing::error!(node = %id, %error, "a node no longer serves clients directly");
                }
            }));
            let transports = behind.transports();
            tracing::info!(node = %id, %address, ?transports, "the node is open to clients with capabilities");
            direct.addresses.insert(id, addresses(transports, &format!(":{}", address.port())));
            direct.behind.push(behind);
        }
        Ok(direct)
    }

    /// Finishes what is under way, within the transport's grace.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        for serving in self.serving {
            if let Err(error) = serving.await {
                tracing::error!(%error, "a node's listener stopped");
            }
        }
        for behind in self.behind {
            behind.shutdown().await;
        }
    }
}

/// One address, for each transport: RDMA connections are arranged where TCP listens.
pub(crate) fn addresses(transports: &[&str], address: &str) -> Vec<NodeAddress> {
    let of = |transport: &&str| NodeAddress { transport: (*transport).to_owned(), address: address.to_owned() };
    transports.iter().map(of).collect()
}
