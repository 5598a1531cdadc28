//! The front over a real gateway and real nodes, spoken to in raw HTTP by a client that signs for itself.

mod auth;
mod bodies;
mod client;
mod connections;
mod house;
mod objects;
mod uploads;
