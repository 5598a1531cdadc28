//! What passed through this gateway: payload bytes above all. In plan mode there are none, and this is where it shows.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::plan::Declined;

#[derive(Debug, Default)]
pub(crate) struct Traffic {
    payload_in_bytes: AtomicU64,
    payload_out_bytes: AtomicU64,
    read_plans: AtomicU64,
    planned_read_bytes: AtomicU64,
    write_plans: AtomicU64,
    plan_commits: AtomicU64,
    planned_written_bytes: AtomicU64,
    commits_refused: AtomicU64,
    declined: [AtomicU64; Declined::ALL.len()],
}

/// Counts since the gateway's start. Its `Display` is for people: one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayStats {
    /// Bytes of object data that clients sent through the gateway (copies inside the store included).
    pub payload_in_bytes: u64,
    /// Bytes of object data that the gateway sent to clients (copies inside the store included).
    pub payload_out_bytes: u64,
    /// Plans given for reads.
    pub read_plans: u64,
    /// Bytes that those cover.
    pub planned_read_bytes: u64,
    /// Plans given for bodies.
    pub write_plans: u64,
    /// Of those, the ones that were committed.
    pub plan_commits: u64,
    /// Bytes of those.
    pub planned_written_bytes: u64,
    /// Commits whose ticket or receipts were refused.
    pub commits_refused: u64,
    /// Plans declined, with the reasons.
    pub declined: Vec<(&'static str, u64)>,
}

impl Traffic {
    pub(crate) fn payload_in(&self, bytes: usize) {
        self.payload_in_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn payload_out(&self, bytes: usize) {
        self.payload_out_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn read_planned(&self, bytes: u64) {
        self.read_plans.fetch_add(1, Ordering::Relaxed);
        self.planned_read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn write_planned(&self) {
        self.write_plans.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn plan_committed(&self, bytes: u64) {
        self.plan_commits.fetch_add(1, Ordering::Relaxed);
        self.planned_written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn commit_refused(&self) {
        self.commits_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn declined(&self, reason: Declined) {
        self.declined[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> GatewayStats {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        GatewayStats {
            payload_in_bytes: of(&self.payload_in_bytes),
            payload_out_bytes: of(&self.payload_out_bytes),
            read_plans: of(&self.read_plans),
            planned_read_bytes: of(&self.planned_read_bytes),
            write_plans: of(&self.write_plans),
            plan_commits: of(&self.plan_commits),
            planned_written_bytes: of(&self.planned_written_bytes),
            commits_refused: of(&self.commits_refused),
            declined: Declined::ALL.iter().zip(&self.declined).map(|(why, count)| (why.reason(), of(count))).collect(),
        }
    }
}

impl GatewayStats {
    /// Bytes of object data that passed through the gateway, either way.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_in_bytes + self.payload_out_bytes
    }
}

impl fmt::Display for GatewayStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "gateway payload bytes: {} B", self.payload_bytes())?;
        writeln!(f, "gateway payload in: {} B, out: {} B", self.payload_in_bytes, self.payload_out_bytes)?;
        writeln!(f, "read plans: {} for {} B", self.read_plans, self.planned_read_bytes)?;
        writeln!(
            f,
            "write plans: {}, {} committed with {} B, {} commits refused",
            self.write_plans, self.plan_commits, self.planned_written_bytes, self.commits_refused
        )?;
        write!(f, "plans declined:")?;
        for (i, (reason, count)) in self.declined.iter().enumerate() {
            write!(f, "{} {reason} {count}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
