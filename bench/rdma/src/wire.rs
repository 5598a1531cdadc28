//! Our transport alone: a handler that WRITEs from memory, and a caller that lends it memory, over the device with itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use penstock_buf::{Buf, BufMut, BufPool, PoolOptions};
use penstock_proto::NodeId;
use penstock_rdma_transport::{RdmaMessenger, RdmaMode, RdmaNode, RdmaNodeOptions, RdmaOptions};
use penstock_transport::{Call, Handler, Messenger, OneSided, TcpMessenger, TcpOptions, TcpServerOptions, serve_tcp};
use penstock_verbs::Domain;
use tokio_util::sync::CancellationToken;

use crate::RdmaBenchError;

const NODE: NodeId = NodeId(0);
/// Longest answer.
const BYTES_MAX: usize = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(60);

struct Memory(Buf);

#[async_trait]
impl Handler for Memory {
    async fn handle(&self, _: Bytes, memory: &mut dyn OneSided) -> Bytes {
        match memory.push(self.0.slice(..memory.landing_bytes())).await {
            Ok(()) => Bytes::new(),
            Err(error) => error.to_string().into_bytes().into(),
        }
    }
}

/// Both ends.
pub(crate) struct Wire {
    messenger: RdmaMessenger,
    node: Arc<RdmaNode>,
    stop: CancellationToken,
    buffers: BufPool,
}

fn failed(error: impl std::fmt::Display) -> RdmaBenchError {
    RdmaBenchError::Failed(format!("our transport: {error}"))
}

impl Wire {
    pub(crate) async fn new(domain: &Domain) -> Result<Self, RdmaBenchError> {
        let buffers = BufPool::new(PoolOptions { capacity_bytes: 32 << 20, huge_pages: true }).map_err(failed)?;
        let mut memory = buffers.try_acquire(BYTES_MAX).ok_or_else(|| failed("no memory"))?;
        memory.fill(0x5a);
        let options = RdmaNodeOptions { message_pool_bytes: 16 << 20, ..RdmaNodeOptions::new(NODE) };
        let handler = Arc::new(Memory(memory.freeze()));
        let node = Arc::new(RdmaNode::new(handler, vec![domain.clone()], options).map_err(failed)?);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?.to_string();
        let stop = CancellationToken::new();
        tokio::spawn(serve_tcp(listener, Arc::clone(&node) as _, stop.clone(), TcpServerOptions::new(NODE)));
        let tcp = Arc::new(TcpMessenger::new(HashMap::from([(NODE, address)]), TcpOptions::default()));
        let options = RdmaOptions { mode: RdmaMode::Require, message_pool_bytes: 16 << 20, ..RdmaOptions::default() };
        let messenger = RdmaMessenger::new(tcp, [NODE], vec![domain.clone()], options).map_err(failed)?;
        Ok(Self { messenger, node, stop, buffers })
    }

    async fn call(&self, landing: BufMut) -> Result<BufMut, RdmaBenchError> {
        let bytes = landing.len();
        let call = Call { landing: Some(landing), ..Call::new(Bytes::from_static(b"?"), DEADLINE) };
        let answer = self.messenger.call(NODE, call).await.map_err(failed)?;
        let landed = answer.landed.ok_or_else(|| failed("a call without its buffer"))?;
        if landed.len() != bytes || landed.first() != Some(&0x5a) || landed.last() != Some(&0x5a) {
            return Err(RdmaBenchError::Wrong("other bytes than the handler wrote".to_owned()));
        }
        Ok(landed)
    }

    /// 10^9 bytes a second of answers of 1 MiB, `at_a_time` under way.
    pub(crate) async fn write_gbps(&self, at_a_time: usize, time: Duration) -> Result<f64, RdmaBenchError> {
        let began = Instant::now();
        let lane = || async {
            let mut landing = self.buffers.try_acquire(BYTES_MAX).ok_or_else(|| failed("no memory"))?;
            let mut bytes = 0;
            while began.elapsed() < time {
                landing = self.call(landing).await?;
                bytes += BYTES_MAX;
            }
            Ok::<usize, RdmaBenchError>(bytes)
        };
        let lanes: Vec<_> = (0..at_a_time).map(|_| lane()).collect();
        let total: usize = futures::future::try_join_all(lanes).await?.into_iter().sum();
        Ok(total as f64 / began.elapsed().as_secs_f64() / 1e9)
    }

    /// Microseconds of each call with an answer of `bytes`.
    pub(crate) async fn call_us(&self, bytes: usize, time: Duration) -> Result<Vec<f64>, RdmaBenchError> {
        let began = Instant::now();
        let mut landing = self.buffers.try_acquire(bytes).ok_or_else(|| failed("no memory"))?;
        let mut samples = Vec::new();
        while began.elapsed() < time || samples.len() < 10 {
            let call = Instant::now();
            landing = self.call(landing).await?;
            samples.push(call.elapsed().as_secs_f64() * 1e6);
        }
        Ok(samples)
    }

    pub(crate) async fn end(self) {
        drop(self.messenger);
        self.stop.cancel();
        self.node.shutdown().await;
    }
}
