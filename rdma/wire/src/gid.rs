//! GIDs and their families: which of a port's GIDs may answer a client's.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// 16 bytes in network order. RoCE v2 over IPv4 has `::ffff:a.b.c.d`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Gid(pub [u8; 16]);

/// What a GID is made from. Packets go only between GIDs of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// `::ffff:a.b.c.d`.
    Ipv4Mapped,
    /// `fe80::/10`: good on one link only.
    LinkLocal,
    /// Any other IPv6 address.
    Ipv6,
}

impl Gid {
    /// Of an IPv4 address.
    #[must_use]
    pub fn from_ipv4(address: Ipv4Addr) -> Self {
        Self(address.to_ipv6_mapped().octets())
    }

    /// All zeros: no GID.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }

    /// Its family.
    #[must_use]
    pub fn family(&self) -> Family {
        let address = Ipv6Addr::from(self.0);
        if address.to_ipv4_mapped().is_some() {
            Family::Ipv4Mapped
        } else if self.0[0] == 0xfe && self.0[1] & 0xc0 == 0x80 {
            Family::LinkLocal
        } else {
            Family::Ipv6
        }
    }

    /// Which of `ours` answers a client at `self`: the same GID when the client is on our own port, else the first of its
    /// family.
    #[must_use]
    pub fn match_from(&self, ours: &[Self]) -> Option<usize> {
        let same = ours.iter().position(|own| own == self);
        same.or_else(|| ours.iter().position(|own| !own.is_zero() && own.family() == self.family()))
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv6Addr::from(self.0).fmt(f)
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gid({self})")
    }
}
