//! Who may hold how much for how long: pure state machines that are handed the time, in milliseconds since any fixed moment.
//!
//! [`Prepared`] is hipobj-rc-v2's table, [`Connections`] the shim's, [`Ledger`] counts what each access key holds of both, and
//! [`Retired`] remembers which packet numbers must not be used again yet. All of them are bounded; past a bound there is
//! [`crate::WireError::Full`], which is answered with 503 and Retry-After.

mod connections;
mod ledger;
mod prepared;
mod retired;
#[cfg(test)]
mod tests;

pub use connections::{Connections, ConnectionsOptions};
pub use ledger::{Caps, Claim, Ledger};
pub use prepared::{Cancelled, Granted, Prepared, PreparedOptions, Session};
pub use retired::Retired;
