//! Metrics for Prometheus: what every room counts, gathered when somebody asks, as text over plain HTTP.
//!
//! **Names** are `penstock_<area>_<what>_<unit>`; counters get `_total` behind that. Labels are few and bounded: a node, a
//! transport, a state; never a bucket or a key, of which there may be millions. `tests.rs` holds every name to that.
//!
//! **How.** The rooms count for themselves; nothing here is on the path of a request. A scrape makes a fresh registry
//! (prometheus-client) of the counts as they are.
//!
//! **How it fails.** A scrape that takes too long is cut off; metrics never hold up anything else.

mod collect;
mod serve;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use penstock_executor::Rebuilder;
use penstock_gateway::Gateway;
use penstock_node::StorageNode;
use penstock_rdma_transport::{RdmaMessenger, RdmaNode};
use penstock_s3::RequestCounts;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The rooms of this process that count.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    pub(crate) gateway: Option<Gateway>,
    pub(crate) requests: Option<Arc<RequestCounts>>,
    pub(crate) nodes: Vec<Arc<StorageNode>>,
    pub(crate) rebuilders: Vec<Arc<Rebuilder>>,
    pub(crate) calls: Option<Arc<RdmaMessenger>>,
    pub(crate) served: Option<Arc<RdmaNode>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

/// One number.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: f64,
}

/// Samples in the making.
#[derive(Default)]
pub(crate) struct Page {
    pub(crate) samples: Vec<Sample>,
    labels: Vec<(&'static str, String)>,
}

impl Page {
    /// With these labels from here on.
    pub(crate) fn of(&mut self, labels: &[(&'static str, String)]) -> &mut Self {
        self.labels = labels.to_vec();
        self
    }

    pub(crate) fn count(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.add(name, help, Kind::Counter, value as f64);
    }

    pub(crate) fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.add(name, help, Kind::Gauge, value);
    }

    fn add(&mut self, name: &'static str, help: &'static str, kind: Kind, value: f64) {
        self.samples.push(Sample { name, help, kind, labels: self.labels.clone(), value });
    }
}

type Labels = Vec<(String, String)>;
type FloatCounter = Counter<f64, std::sync::atomic::AtomicU64>;
type FloatGauge = Gauge<f64, std::sync::atomic::AtomicU64>;

/// The samples as Prometheus reads them.
pub(crate) fn text(samples: &[Sample]) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    let mut names: Vec<&'static str> = samples.iter().map(|sample| sample.name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let mut of_name = samples.iter().filter(|sample| sample.name == name).peekable();
        let Some(first) = of_name.peek().copied() else { continue };
        let labels = |sample: &Sample| -> Labels {
            sample.labels.iter().map(|(label, value)| ((*label).to_owned(), value.clone())).collect()
        };
        // The registry ends help with a full stop by itself.
        let help = first.help.trim_end_matches('.');
        match first.kind {
            Kind::Counter if first.labels.is_empty() => {
                let counter = FloatCounter::default();
                counter.inc_by(first.value);
                registry.register(name, help, counter);
            }
            Kind::Gauge if first.labels.is_empty() => {
                let gauge = FloatGauge::default();
                gauge.set(first.value);
                registry.register(name, help, gauge);
            }
            Kind::Counter => {
                let family = Family::<Labels, FloatCounter>::default();
                of_name.for_each(|sample| {
                    family.get_or_create(&labels(sample)).inc_by(sample.value);
                });
                registry.register(name, help, family);
            }
            Kind::Gauge => {
                let family = Family::<Labels, FloatGauge>::default();
                of_name.for_each(|sample| {
                    family.get_or_create(&labels(sample)).set(sample.value);
                });
                registry.register(name, help, family);
            }
        }
    }
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}
