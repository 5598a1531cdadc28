//! The RC shim's token, `rc:<connection>:<address>:<size>:<rkey>`, and the ids of sessions and connections.

use std::fmt;

use crate::error::WireError;
use crate::hex;
use crate::names;

/// 128 random bits in 32 hex digits: a session of hipobj-rc-v2 or a connection of the shim. Who knows it may use it (with
/// the right key), so it is not guessable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u128);

impl SessionId {
    /// 32 hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        hex::bytes(text).map(u128::from_be_bytes).map(Self)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell sessions apart in a log, too little to use one.
        write!(f, "SessionId({:08x}..)", (self.0 >> 96) as u32)
    }
}

/// A window of the memory of a client that has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RcToken {
    /// Which connection.
    pub connection: SessionId,
    /// The window's address.
    pub address: u64,
    /// The window's bytes, 1 at least.
    pub size: u32,
    /// Its remote key.
    pub rkey: u32,
}

impl RcToken {
    /// What every such token begins with.
    pub(crate) const PREFIX: &str = "rc:";

    /// The 70 characters.
    ///
    /// # Errors
    /// [`WireError::Malformed`]; also for a window of no bytes, or one that runs past the end of the address space.
    pub fn parse(text: &str) -> Result<Self, WireError> {
        let bad = |why| WireError::malformed(names::TOKEN, why);
        let rest = text.strip_prefix(Self::PREFIX).ok_or(bad("does not begin with rc:"))?;
        let fields: Vec<&str> = rest.splitn(5, ':').collect();
        let [connection, address, size, rkey] = fields[..] else {
            return Err(bad("rc: is followed by connection, address, size and rkey between colons"));
        };
        let token = Self {
            connection: SessionId::parse(connection).ok_or(bad("the connection is 32 hex digits"))?,
            address: hex::exact(address, 16).ok_or(bad("the address is 16 hex digits"))?,
            size: hex::exact(size, 8).ok_or(bad("the size is 8 hex digits"))? as u32,
            rkey: hex::exact(rkey, 8).ok_or(bad("the rkey is 8 hex digits"))? as u32,
        };
        if token.size == 0 {
            return Err(bad("the window has no bytes"));
        }
        if token.address.checked_add(u64::from(token.size)).is_none() {
            return Err(bad("the window runs past the end of the address space"));
        }
        Ok(token)
    }
}

impl fmt::Display for RcToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rc:{}:{:016x}:{:08x}:{:08x}", self.connection, self.address, self.size, self.rkey)
    }
}
