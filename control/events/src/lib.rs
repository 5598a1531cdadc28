//! Delivers events: from the metadata's outbox to webhooks, NATS and AMQP.
//!
//! **What.** `penstock_meta`'s transactions write a row for each event and target; [`Events`] runs a [`worker`] for each target of
//! the [`config`], which turns rows into AWS's records ([`record`]), sends them, and removes them once the target has
//! confirmed them.
//!
//! **What is promised.** At least once: a row goes after its confirmation, so a crash in between sends it again. In order for
//! each key: events of one key are sent one after the other, and the next only after the last was confirmed; those of other
//! keys overtake. What can't be delivered stays and is tried again, with pauses up to [`worker::PAUSE_MAX`], until it is older
//! than the target's `max_age_hours`; then it is given up, counted and logged.
//!
//! **How it fails.** A target that can't be reached holds up its own events and nobody else's; its queue is bounded
//! ([`penstock_meta::tables::EVENTS_QUEUED_MAX`]). Metadata that can't be read is logged and tried again.
#![forbid(unsafe_code)]

mod amqp;
pub mod config;
mod nats;
pub mod record;
pub mod target;
mod webhook;
pub mod worker;

pub use config::{ConfigError, EventsConfig, TargetConfig};
pub use worker::Events;
