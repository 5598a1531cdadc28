//! The front: its tables, its clock, and who is asked what.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use penstock_offload::{Access, Dialects, Direction, Head, Objects, Reply, Verdict};
use penstock_rdma_wire::sessions::{Connections, ConnectionsOptions, Ledger, Prepared, PreparedOptions, Retired};
use penstock_rdma_wire::{Family, Gid, SessionId, names};
use tokio::time::Instant;

use crate::link::Link;
use crate::nic::Nic;
use crate::options::RdmaOptions;
use crate::rcv2::{self, Stop};
use crate::replies::Refusal;
use crate::shim;
use crate::stats::{RdmaStats, Reason};

/// How often what has expired is looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Serves the dialects over one device, or declines them without one. Clone: one front, several handles.
#[derive(Clone)]
pub struct RdmaFront {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    nic: Option<Arc<dyn Nic>>,
    pub(crate) options: RdmaOptions,
    started: Instant,
    /// Locked before `books` where both are.
    pub(crate) tables: Mutex<Tables>,
    pub(crate) books: Mutex<Books>,
    pub(crate) stats: RdmaStats,
}

/// Sessions and connections. What is taken out is dropped after the lock is.
pub(crate) struct Tables {
    pub(crate) sessions: Prepared<Link, Stop>,
    pub(crate) connections: Connections<Link>,
}

/// What links take from and give back to.
pub(crate) struct Books {
    pub(crate) ledger: Ledger,
    pub(crate) retired: Retired,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl RdmaFront {
    /// A front over `nic`; without one, a front that declines everything as each dialect wants it. Call it within a tokio
    /// runtime: it starts a task that ends what expires, which ends with the last handle.
    #[must_use]
    pub fn new(nic: Option<Arc<dyn Nic>>, options: RdmaOptions) -> Self {
        let tables = Tables {
            sessions: Prepared::new(PreparedOptions { prepare_ms_max: millis(options.prepare_timeout) }),
            connections: Connections::new(ConnectionsOptions {
                connections_max: options.connections_max,
                source_connections_max: options.source_connections_max,
                idle_ms_max: millis(options.connection_idle),
            }),
        };
        let books = Books {
            ledger: Ledger::new(options.caps),
            retired: Retired::new(millis(options.retired_rest), options.retired_max),
        };
        let inner = Arc::new(Inner {
            nic,
            options,
            started: Instant::now(),
            tables: Mutex::new(tables),
            books: Mutex::new(books),
            stats: RdmaStats::default(),
        });
        tokio::spawn(sweep(Arc::downgrade(&inner)));
        Self { inner }
    }

    /// What was served and declined.
    #[must_use]
    pub fn stats(&self) -> &RdmaStats {
        &self.inner.stats
    }

    /// Whether there is a device.
    #[must_use]
    pub fn has_device(&self) -> bool {
        self.inner.nic.is_some()
    }

    /// Sessions, connections and queue pairs that are held now.
    #[must_use]
    pub fn held(&self) -> (usize, usize, usize) {
        let tables = self.inner.tables.lock();
        let queue_pairs = self.inner.books.lock().ledger.held().queue_pairs;
        (tables.sessions.len(), tables.connections.len(), queue_pairs)
    }
}

async fn sweep(inner: Weak<Inner>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.sweep();
    }
}

impl Inner {
    pub(crate) fn now_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    pub(crate) fn nic(&self) -> Result<&Arc<dyn Nic>, Refusal> {
        self.nic
            .as_ref()
            .ok_or_else(|| Refusal::unsupported(Reason::NoDevice, "This server has no RDMA device: use S3 over HTTP."))
    }

    pub(crate) fn has_device(&self) -> bool {
        self.nic.is_some()
    }

    /// Our GID for a client at `peer`, and the client's: ours too, when it says that it is on our HCA.
    pub(crate) fn answer_to(&self, gids: &[Gid], peer: Option<Gid>) -> Result<(usize, Gid), Refusal> {
        let index = match peer {
            Some(peer) => peer.match_from(gids),
            None => {
                let good = |family| gids.iter().position(|gid| !gid.is_zero() && gid.family() == family);
                good(Family::Ipv4Mapped).or_else(|| good(Family::Ipv6)).or_else(|| good(Family::LinkLocal))
            }
        };
        let index = index.ok_or_else(|| {
            let from = peer.map_or_else(|| "a client on this machine".to_owned(), |peer| peer.to_string());
            Refusal::unsupported(Reason::GidFamily, format!("This server's RDMA port has no GID that answers {from}."))
        })?;
        Ok((index, peer.unwrap_or(gids[index])))
    }

    /// Counts and logs a refusal, and makes it the answer.
    pub(crate) fn refuse(&self, refusal: Refusal) -> Reply {
        self.stats.count(refusal.reason);
        let message = refusal.reply.error.as_ref().map_or("", |error| error.message.as_str());
        let (reason, status) = (refusal.reason.name(), refusal.reply.status.as_u16());
        tracing::info!(target: "penstock_rdma_front", reason, status, message, "an RDMA request was not served");
        *refusal.reply
    }

    fn sweep(&self) {
        let now_ms = self.now_ms();
        let (sessions, connections) = {
            let mut tables = self.tables.lock();
            (tables.sessions.sweep(now_ms), tables.connections.sweep(now_ms))
        };
        if !sessions.is_empty() || !connections.is_empty() {
            tracing::info!(sessions = sessions.len(), connections = connections.len(), "RDMA sessions have expired");
        }
    }

    /// An id that nobody can guess and nobody has.
    pub(crate) fn new_id() -> SessionId {
        SessionId(rand::random())
    }
}

#[async_trait]
impl Dialects for RdmaFront {
    fn endpoint(&self, path: &str) -> Option<Access> {
        match path {
            names::RCV2_PREPARE | names::RCV2_READY | names::RCV2_CANCEL => Some(Access::Signed),
            names::SHIM_CONNECT | names::SHIM_DISCONNECT => Some(Access::Anonymous),
            _ => None,
        }
    }

    async fn call(&self, head: &Head<'_>, objects: &dyn Objects) -> Verdict {
        if head.method != Method::POST {
            let message = "The calls of the RDMA dialects are POSTs.";
            return Verdict::Answer(Reply::error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message));
        }
        let inner = &self.inner;
        let answered = match head.path {
            names::RCV2_PREPARE => rcv2::prepare(inner, head, objects).await.map(Verdict::Answer),
            names::RCV2_READY => rcv2::ready(inner, head).await,
            names::RCV2_CANCEL => rcv2::cancel(inner, head).await.map(Verdict::Answer),
            names::SHIM_CONNECT => shim::connect(inner, head).map(Verdict::Answer),
            names::SHIM_DISCONNECT => Ok(Verdict::Answer(shim::disconnect(inner, head))),
            _ => return Verdict::NotMine,
        };
        answered.unwrap_or_else(|refusal| Verdict::Answer(inner.refuse(refusal)))
    }

    async fn object(&self, head: &Head<'_>, direction: Direction) -> Verdict {
        match shim::object(&self.inner, head, direction) {
            Ok(verdict) => verdict,
            Err(refusal) => Verdict::Answer(self.inner.refuse(refusal)),
        }
    }
}
