//! How the executor in this process reaches the nodes that plans name: by the best transport that both sides have.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;
use penstock_proto::NodeId;
use penstock_proto::plan::PlanNode;
use penstock_transport::{Answer, Call, Messenger, TcpMessenger, TcpOptions, TransportError};

use crate::options::ClientOptions;
use crate::stats::Counters;

/// A transport by which nodes may be reached. TCP is built in; a program that has another hands it in.
pub trait Dialer: Send + Sync + 'static {
    /// Its name, as plans have it: `rdma`.
    fn transport(&self) -> &'static str;
    /// Calls of one node at this address (`host:port`). Connects when it is first needed.
    fn dial(&self, node: NodeId, address: &str) -> Arc<dyn Messenger>;
}

struct Tcp;

impl Dialer for Tcp {
    fn transport(&self) -> &'static str {
        "tcp"
    }

    fn dial(&self, node: NodeId, address: &str) -> Arc<dyn Messenger> {
        Arc::new(TcpMessenger::new(HashMap::from([(node, address.to_owned())]), TcpOptions::default()))
    }
}

/// One way to one node.
struct Way {
    transport: &'static str,
    address: String,
    messenger: Arc<dyn Messenger>,
}

/// Calls the nodes of plans.
pub(crate) struct PlanMessenger {
    /// The host of the gateway, for addresses without one.
    host: String,
    dialers: Vec<Arc<dyn Dialer>>,
    /// By node, the ways that work, best first.
    nodes: RwLock<HashMap<NodeId, Vec<Arc<Way>>>>,
    stats: Arc<Counters>,
}

impl PlanMessenger {
    pub(crate) fn new(host: &str, options: &ClientOptions, stats: Arc<Counters>) -> Self {
        let mut dialers = options.dialers.clone();
        if options.require_rdma {
            dialers.retain(|dialer| dialer.transport() == "rdma");
        } else {
            dialers.push(Arc::new(Tcp));
        }
        Self { host: host.to_owned(), dialers, nodes: RwLock::default(), stats }
    }

    /// Takes note of where nodes are. What is known already stays, with its connections.
    pub(crate) fn learn(&self, nodes: &[PlanNode]) {
        for PlanNode { node, addresses } in nodes {
            let wanted: Vec<(&Arc<dyn Dialer>, String)> = self
                .dialers
                .iter()
                .flat_map(|dialer| {
                    let of_it = addresses.iter().filter(|address| address.transport == dialer.transport());
                    of_it.map(move |address| (dialer, self.with_host(&address.address)))
                })
                .collect();
            let same = |ways: &Vec<Arc<Way>>| {
                ways.len() == wanted.len()
                    && ways.iter().zip(&wanted).all(|(way, (_, address))| way.address == *address)
            };
            if self.nodes.read().get(node).is_some_and(same) {
                continue;
            }
            let ways = wanted.into_iter().map(|(dialer, address)| {
                let messenger = dialer.dial(*node, &address);
                Arc::new(Way { transport: dialer.transport(), address, messenger })
            });
            let ways = ways.collect();
            self.nodes.write().insert(*node, ways);
        }
    }

    fn with_host(&self, address: &str) -> String {
        if address.starts_with(':') { format!("{}{address}", self.host) } else { address.to_owned() }
    }

    /// A way that does not work is not tried again until a plan names the node anew with other addresses.
    fn demote(&self, node: NodeId, way: &Arc<Way>) {
        let mut nodes = self.nodes.write();
        if let Some(ways) = nodes.get_mut(&node)
            && ways.len() > 1
        {
            ways.retain(|known| !Arc::ptr_eq(known, way));
            drop(nodes);
            self.stats.fallback("transport-unreachable");
            tracing::warn!(%node, transport = way.transport, "a node can't be reached by this transport: using the next");
        }
    }
}

#[async_trait]
impl Messenger for PlanMessenger {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        let way = self.nodes.read().get(&node).and_then(|ways| ways.first().cloned());
        let Some(way) = way else {
            let reason = "the plan has no address of it by a transport that this client has".to_owned();
            return Err(TransportError::Unreachable { node, reason });
        };
        let outgoing = call.outgoing_bytes() as u64;
        let outcome = way.messenger.call(node, call).await;
        match &outcome {
            Ok(answer) => {
                let landed = answer.landed.as_ref().map_or(0, |landed| landed.len()) as u64;
                if landed > 0 {
                    self.stats.read(way.transport, landed);
                }
                if outgoing > 0 {
                    self.stats.written(way.transport, outgoing);
                }
            }
            Err(TransportError::Unreachable { .. }) => self.demote(node, &way),
            Err(_) => {}
        }
        outcome
    }
}
