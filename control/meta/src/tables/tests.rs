//! The tables on the mem engine, with and without injected faults, and on fjall, against models small enough to read.

mod accounting;
mod audit;
mod basics;
mod crash;
mod extents;
mod golden;
mod listing;
mod listing_scale;
mod many_parts;
mod outbox;
mod races;
mod send;
mod settings;
mod support;
mod upkeep;
mod versions;
