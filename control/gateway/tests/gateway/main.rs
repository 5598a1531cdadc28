//! The gateway over real parts: storage nodes with stores on disk behind the in-memory transport, the metadata in memory
//! or in fjall.

// clippy.toml allows it in test functions; all of this is one, helpers included.
#![allow(clippy::unwrap_used)]

mod bodies;
mod conditions;
mod copies;
mod encryption;
mod failures;
mod garbage;
mod hashing;
mod house;
mod lifecycle;
mod listings;
mod model;
mod multipart;
mod objects;
mod packing;
mod placing;
mod races;
mod rename;
mod rot;
mod upkeep;
mod versions;
