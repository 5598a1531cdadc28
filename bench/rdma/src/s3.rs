//! Whole S3 operations, three ways: by plan over RDMA, by plan over TCP, over HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_client::{
    Buf, BufMut, Client, ClientError, ClientOptions, CredentialsProvider, Endpoint, GetOptions, Mode, PutOptions,
};
use penstock_rdma_transport::{RdmaDialer, RdmaOptions};
use penstock_verbs::Domain;

use crate::RdmaBenchError;
use crate::serve::Store;

const BUCKET: &str = "bench";

/// By which way payload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Rdma,
    Tcp,
    Http,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Rdma, Self::Tcp, Self::Http];

    /// As rows name it.
    pub(crate) fn contender(self) -> &'static str {
        match self {
            Self::Rdma => "penstock-plan-rdma",
            Self::Tcp => "penstock-plan-tcp",
            Self::Http => "penstock-http",
        }
    }

    fn transport(self) -> &'static str {
        match self {
            Self::Rdma => "rdma",
            Self::Tcp => "tcp",
            Self::Http => "http",
        }
    }
}

/// What a direction is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Get,
    Put,
}

/// A client of one way, with memory that it uses again.
pub(crate) struct User {
    pub(crate) way: Way,
    client: Client,
}

fn failed(error: &ClientError) -> RdmaBenchError {
    RdmaBenchError::Failed(format!("S3: {error}"))
}

fn key(bytes: usize) -> String {
    format!("object-{bytes}")
}

impl User {
    pub(crate) fn new(store: &Store, way: Way, domain: &Domain) -> Result<Self, RdmaBenchError> {
        let endpoint = Endpoint::parse(&format!("http://{}", store.address)).map_err(|error| failed(&error))?;
        let plan = way != Way::Http;
        let mut options = ClientOptions {
            mode: if plan { Mode::Auto } else { Mode::Http },
            require_plan: plan,
            require_rdma: way == Way::Rdma,
            inline_bytes_max: 0,
            pool_bytes: 64 << 20,
            ..ClientOptions::default()
        };
        if way == Way::Rdma {
            let dialer = RdmaDialer::new(Ok(vec![domain.clone()]), RdmaOptions::default())
                .map_err(|error| RdmaBenchError::Setup(format!("memory for RDMA messages: {error}")))?;
            options.dialers = vec![Arc::new(dialer)];
        }
        let keys = CredentialsProvider::fixed(store.keys.clone());
        let client = Client::new(endpoint, keys, options).map_err(|error| failed(&error))?;
        Ok(Self { way, client })
    }

    /// Makes the bucket and an object of each length.
    pub(crate) async fn prepare(&self, lengths: &[usize]) -> Result<(), RdmaBenchError> {
        self.client.create_bucket(BUCKET).await.map_err(|error| failed(&error))?;
        for &bytes in lengths {
            let (source, key) = (self.source(bytes)?, key(bytes));
            let put = self.client.put_buffer(BUCKET, &key, &source, PutOptions::default());
            put.await.map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    fn memory(&self, bytes: usize) -> Result<BufMut, RdmaBenchError> {
        self.client.region(bytes).map_err(|error| failed(&error))
    }

    fn source(&self, bytes: usize) -> Result<Buf, RdmaBenchError> {
        let mut memory = self.memory(bytes)?;
        for (at, byte) in memory.iter_mut().enumerate() {
            *byte = (at.wrapping_mul(31) >> 3) as u8;
        }
        Ok(memory.freeze())
    }

    /// Microseconds of each GET, one after the other.
    pub(crate) async fn get_us(&self, bytes: usize, time: Duration) -> Result<Vec<f64>, RdmaBenchError> {
        let mut memory = self.memory(bytes)?;
        // Memory is registered, and connections are made, before anything is measured.
        (_, memory) = self
            .client
            .get_into_buffer(BUCKET, &key(bytes), &GetOptions::default(), memory)
            .await
            .map_err(|error| failed(&error))?;
        let began = Instant::now();
        let mut samples = Vec::new();
        while began.elapsed() < time || samples.len() < 3 {
            let get = Instant::now();
            (_, memory) = self
                .client
                .get_into_buffer(BUCKET, &key(bytes), &GetOptions::default(), memory)
                .await
                .map_err(|error| failed(&error))?;
            samples.push(get.elapsed().as_secs_f64() * 1e6);
        }
        Ok(samples)
    }

    /// Bytes that were moved, and how long it took, with `at_a_time` operations under way.
    pub(crate) async fn many(
        &self,
        op: Op,
        bytes: usize,
        at_a_time: usize,
        time: Duration,
    ) -> Result<(u64, Duration), RdmaBenchError> {
        let mut memories = Vec::new();
        for _ in 0..at_a_time {
            let memory = self.memory(bytes)?;
            let warm = self
                .client
                .get_into_buffer(BUCKET, &key(bytes), &GetOptions::default(), memory)
                .await
                .map_err(|error| failed(&error))?;
            memories.push(warm.1);
        }
        let (source, key, whole) = (self.source(bytes)?, key(bytes), GetOptions::default());
        let began = Instant::now();
        let lanes = memories.into_iter().enumerate().map(|(lane, mut memory)| {
            let (source, key, whole) = (source.clone(), key.as_str(), &whole);
            async move {
                let (mut moved, mut rounds) = (0, 0);
                while began.elapsed() < time || rounds < 2 {
                    match op {
                        Op::Get => {
                            let get = self.client.get_into_buffer(BUCKET, key, whole, memory);
                            (_, memory) = get.await.map_err(|error| failed(&error))?;
                        }
                        Op::Put => {
                            let name = format!("written-{lane}");
                            let put = self.client.put_buffer(BUCKET, &name, &source, PutOptions::default());
                            put.await.map_err(|error| failed(&error))?;
                        }
                    }
                    moved += bytes as u64;
                    rounds += 1;
                }
                Ok::<u64, RdmaBenchError>(moved)
            }
        });
        let moved = futures::future::try_join_all(lanes).await?.into_iter().sum();
        Ok((moved, began.elapsed()))
    }

    /// Whether all payload went the way that rows say.
    pub(crate) fn check(&self) -> Result<(), RdmaBenchError> {
        let stats = self.client.stats();
        let mut others = stats.read_bytes.keys().chain(stats.written_bytes.keys());
        match others.find(|name| **name != self.way.transport()) {
            Some(other) => {
                Err(RdmaBenchError::Wrong(format!("payload of {} went over {other}: {stats:?}", self.way.contender())))
            }
            None if stats.copied_bytes > 0 => Err(RdmaBenchError::Wrong(format!(
                "{} copied {} bytes, and none should be",
                self.way.contender(),
                stats.copied_bytes
            ))),
            None => Ok(()),
        }
    }
}
