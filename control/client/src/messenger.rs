//! How the executor in this process reaches the nodes that plans name: by the best transport that both sides have. Whether a
//! call can go the best way is asked before it is sent, each time; if not it goes the next, and the reason is counted.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;
use penstock_proto::NodeId;
use penstock_proto::plan::PlanNode;
use penstock_transport::{Answer, Call, Dialer, Messenger, NotReady, TcpDialer, TransportError, Way};

use crate::options::ClientOptions;
use crate::stats::Counters;

/// One way to one node.
struct Known {
    transport: &'static str,
    address: String,
    way: Arc<dyn Way>,
}

/// Calls the nodes of plans.
pub(crate) struct PlanMessenger {
    /// The host of the gateway, for addresses without one.
    host: String,
    dialers: Vec<Arc<dyn Dialer>>,
    /// By node, best first.
    nodes: RwLock<HashMap<NodeId, Arc<[Known]>>>,
    stats: Arc<Counters>,
}

impl PlanMessenger {
    pub(crate) fn new(host: &str, options: &ClientOptions, stats: Arc<Counters>) -> Self {
        let mut dialers = options.dialers.clone();
        if options.require_rdma {
            dialers.retain(|dialer| dialer.transport() == "rdma");
        } else {
            dialers.push(Arc::new(TcpDialer::default()));
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
            let same = |known: &Arc<[Known]>| {
                known.len() == wanted.len()
                    && known.iter().zip(&wanted).all(|(known, (dialer, address))| {
                        known.address == *address && known.transport == dialer.transport()
                    })
            };
            if self.nodes.read().get(node).is_some_and(same) {
                continue;
            }
            let known = wanted.into_iter().map(|(dialer, address)| {
                let way = dialer.dial(*node, &address);
                Known { transport: dialer.transport(), address, way }
            });
            let known = known.collect();
            self.nodes.write().insert(*node, known);
        }
    }

    fn with_host(&self, address: &str) -> String {
        if address.starts_with(':') { format!("{}{address}", self.host) } else { address.to_owned() }
    }

    /// Sends the call the first way that can be gone.
    async fn send(&self, node: NodeId, known: &[Known], call: Call) -> (&'static str, Result<Answer, TransportError>) {
        let Some((last, better)) = known.split_last() else {
            let reason = "the plan has no address of it by a transport that this client has".to_owned();
            return ("none", Err(TransportError::Unreachable { node, reason }));
        };
        for known in better {
            match known.way.ready().await {
                Ok(()) => return (known.transport, known.way.call(node, call).await),
                Err(NotReady::Declined(reason)) => self.stats.other_way(known.transport, &reason),
                // Whatever the next way is, it leads to the same node.
                Err(NotReady::Failed(error)) => return (known.transport, Err(error)),
            }
        }
        (last.transport, last.way.call(node, call).await)
    }
}

#[async_trait]
impl Messenger for PlanMessenger {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        let known = self.nodes.read().get(&node).cloned().unwrap_or_default();
        let (outgoing, deadline) = (call.outgoing_bytes() as u64, call.deadline);
        let sent = tokio::time::timeout(deadline, self.send(node, &known, call)).await;
        let Ok((transport, outcome)) = sent else { return Err(TransportError::Deadline { node, after: deadline }) };
        if let Ok(answer) = &outcome {
            let landed = answer.landed.as_ref().map_or(0, |landed| landed.len()) as u64;
            if landed > 0 {
                self.stats.read(transport, landed);
            }
            if outgoing > 0 {
                self.stats.written(transport, outgoing);
            }
        }
        outcome
    }
}
