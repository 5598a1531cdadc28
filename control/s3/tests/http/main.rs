//! The front over a real gateway and real nodes, spoken to in raw HTTP by a client that signs for itself.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod auth;
mod bodies;
mod client;
mod connections;
mod guarded;
mod house;
mod objects;
mod uploads;
