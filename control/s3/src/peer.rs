//! Who is at the other end of a connection.

use std::net::{IpAddr, SocketAddr};

/// The other end of a connection, as far as the connection itself tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its address (`aws:SourceIp`).
    pub(crate) address: SocketAddr,
    /// The version of TLS, `None` over plain TCP (`aws:SecureTransport`, `s3:TlsVersion`).
    pub(crate) tls: Option<TlsVersion>,
}

impl Peer {
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// How URLs of this server begin for it.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Its IP address; one of IPv4 that came over an IPv6 socket as what it is.
    pub(crate) fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsVersion {
    /// 1.2.
    V1_2,
    /// 1.3.
    V1_3,
}

impl TlsVersion {
    /// As access logs have it: `TLSv1.3`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V1_2 => "TLSv1.2",
            Self::V1_3 => "TLSv1.3",
        }
    }
}
