//! Keeping what is stored: its settings, and what runs beside nodes for it, an executor for rebuilds and the scrub.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use penstock_executor::{Executor, ExecutorOptions, Rebuilder};
use penstock_gateway::upkeep::UpkeepOptions;
use penstock_node::ScrubOptions;
use penstock_proto::{ClusterKey, SystemClock};
use penstock_transport::{Beside as Near, Handler, MemTransport, Messenger};
use serde::Deserialize;
use tokio_util::task::AbortOnDropHandle;

use crate::Fatal;
use crate::assemble::{self, OpenNode};
use crate::config::Size;

/// Memory of the executor beside nodes: four rebuilds of the widest stripes.
const REBUILD_BUFFERS_BYTES: u64 = 48 << 20;
/// How far a node's scrub is, beside its device.
const SCRUB_FILE: &str = "scrub";
const DAY_SECONDS: u64 = 24 * 3600;

/// How what is stored is kept: the same for `serve` and, from their file, for `gateway` and `node`.
#[derive(Clone, Debug, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Keep {
    /// How long a node may be gone before its shards are rebuilt on others.
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub(crate) node_lost_after_seconds: u64,
    /// How often metadata and nodes are compared.
    #[arg(long, value_name = "SECONDS", default_value_t = DAY_SECONDS)]
    pub(crate) survey_seconds: u64,
    /// How long what nothing refers to stays on a node after it was first seen there.
    #[arg(long, value_name = "SECONDS", default_value_t = DAY_SECONDS)]
    pub(crate) stray_grace_seconds: u64,
    /// What the network carries a second, for the part of it that repairs may take.
    #[arg(long, value_name = "SIZE", default_value = "1250MB")]
    pub(crate) bandwidth: Size,
    /// That part, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 20)]
    pub(crate) repair_percent: u64,
    /// How long a scrub of everything on a node takes.
    #[arg(long, value_name = "DAYS", default_value_t = 14)]
    pub(crate) scrub_days: u64,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            node_lost_after_seconds: 900,
            survey_seconds: DAY_SECONDS,
            stray_grace_seconds: DAY_SECONDS,
            bandwidth: Size(1_250_000_000),
            repair_percent: 20,
            scrub_days: 14,
        }
    }
}

impl Keep {
    /// The gateway's part of it.
    ///
    /// # Errors
    /// Numbers that make no sense.
    pub(crate) fn upkeep(&self) -> Result<UpkeepOptions, Fatal> {
        if !(1..=100).contains(&self.repair_percent) {
            return Err(Fatal(format!("repair_percent is 1 to 100, not {}", self.repair_percent)));
        }
        if self.survey_seconds == 0 {
            return Err(Fatal("survey_seconds is 1 at least".to_owned()));
        }
        Ok(UpkeepOptions {
            survey_interval: Duration::from_secs(self.survey_seconds),
            node_lost_after: Duration::from_secs(self.node_lost_after_seconds),
            repair_bytes_per_s: (self.bandwidth.0 / 100 * self.repair_percent).max(1),
            stray_grace: Duration::from_secs(self.stray_grace_seconds),
            ..UpkeepOptions::default()
        })
    }

    /// The nodes' part: how long a scrub takes.
    ///
    /// # Errors
    /// No time at all.
    pub(crate) fn scrub(&self) -> Result<Duration, Fatal> {
        match self.scrub_days {
            0 => Err(Fatal("scrub_days is 1 at least".to_owned())),
            days => Ok(Duration::from_secs(days.saturating_mul(DAY_SECONDS))),
        }
    }
}

/// What runs beside nodes, until it is dropped.
pub(crate) struct Beside {
    /// In the nodes' order: each in front of its node.
    pub(crate) rebuilders: Vec<Arc<Rebuilder>>,
    _scrubs: Vec<AbortOnDropHandle<()>>,
}

impl Beside {
    /// Beside nodes of this process that reach each other through `transport`, where the executors take their places.
    pub(crate) fn start(
        nodes: &[OpenNode],
        transport: &MemTransport,
        key: &ClusterKey,
        scrub: Duration,
    ) -> Result<Self, Fatal> {
        let pool = assemble::pool(REBUILD_BUFFERS_BYTES, "the nodes' rebuilds")?;
        let executor = Executor::new(Arc::new(transport.clone()), pool, ExecutorOptions::default());
        let rebuilders: Vec<_> = nodes.iter().map(|node| rebuilder(node, executor.clone(), key)).collect();
        for (node, beside) in nodes.iter().zip(&rebuilders) {
            transport.attach(node.handler.id(), beside.clone());
        }
        Ok(Self { rebuilders, _scrubs: nodes.iter().map(|node| scrubbing(node, scrub)).collect() })
    }

    /// Beside the one node of this process, which reaches its peers through `messenger`.
    pub(crate) fn of_process(
        node: &OpenNode,
        messenger: Arc<dyn Messenger>,
        key: &ClusterKey,
        scrub: Duration,
    ) -> Result<Self, Fatal> {
        let pool = assemble::pool(REBUILD_BUFFERS_BYTES, "the node's rebuilds")?;
        let near = Near::new(node.handler.id(), node.handler.clone(), messenger);
        let executor = Executor::new(Arc::new(near), pool, ExecutorOptions::default());
        Ok(Self { rebuilders: vec![rebuilder(node, executor, key)], _scrubs: vec![scrubbing(node, scrub)] })
    }
}

fn rebuilder(node: &OpenNode, executor: Executor, key: &ClusterKey) -> Arc<Rebuilder> {
    let behind: Arc<dyn Handler> = node.handler.clone();
    Arc::new(Rebuilder::new(node.handler.id(), executor, key.clone(), Arc::new(SystemClock), behind))
}

fn scrubbing(node: &OpenNode, period: Duration) -> AbortOnDropHandle<()> {
    let options = ScrubOptions { period, file: Some(node.folder.join(SCRUB_FILE)) };
    let handler = node.handler.clone();
    AbortOnDropHandle::new(tokio::spawn(async move { handler.scrub_forever(options).await }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_the_file_are_those_of_the_command_line() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            keep: Keep,
        }
        let line = <Line as clap::Parser>::parse_from(["penstock"]).keep;
        assert_eq!(format!("{line:?}"), format!("{:?}", Keep::default()));
        assert_eq!(Keep::default().upkeep().unwrap().repair_bytes_per_s, 250_000_000);
        assert!(Keep { repair_percent: 0, ..Keep::default() }.upkeep().is_err());
        assert!(Keep { scrub_days: 0, ..Keep::default() }.scrub().is_err());
    }
}
