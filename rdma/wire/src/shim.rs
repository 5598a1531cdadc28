//! The RC shim's two calls: connect and disconnect.

use http::HeaderMap;

use crate::endpoint::{EndpointToken, TRANSPORT_RC};
use crate::error::WireError;
use crate::headers::{required, set};
use crate::hex;
use crate::names;
use crate::rc_token::SessionId;

/// `POST /.s3rdma-rc/connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The client's queue pair: transport 1, a number, a GID.
    pub peer: EndpointToken,
    /// Where the client's packet numbers begin.
    pub psn: u32,
}

impl Connect {
    /// Reads the request.
    ///
    /// # Errors
    /// [`WireError::Malformed`].
    pub fn parse(headers: &HeaderMap) -> Result<Self, WireError> {
        let bad = |why| WireError::malformed(names::TOKEN, why);
        let peer = EndpointToken::parse(required(headers, names::TOKEN)?)?;
        if peer.transport != TRANSPORT_RC {
            return Err(bad("the transport is not 1 (RC)"));
        }
        if peer.gid.is_zero() {
            return Err(bad("the GID is zero"));
        }
        if !(1..=0xff_ffff).contains(&peer.qpn) {
            return Err(bad("the queue pair's number is not in 1 to ffffff"));
        }
        let psn = hex::exact(required(headers, names::PSN)?, 6)
            .filter(|psn| *psn != 0)
            .ok_or(WireError::malformed(names::PSN, "a PSN is 6 hex digits, 000001 to ffffff"))?;
        Ok(Self { peer, psn: psn as u32 })
    }

    /// The headers of the request.
    #[must_use]
    pub fn to_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        set(&mut headers, names::TOKEN, self.peer.to_string());
        set(&mut headers, names::PSN, format!("{:06x}", self.psn));
        headers
    }
}

/// The answer to [`Connect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The connection.
    pub session: SessionId,
    /// Our queue pair, ready to send.
    pub endpoint: EndpointToken,
    /// Where our packet numbers begin.
    pub psn: u32,
}

impl Connected {
    /// The headers of the 200.
    #[must_use]
    pub fn to_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        set(&mut headers, names::SESSION, self.session.to_string());
        set(&mut headers, names::REPLY, format!("200:{}", self.endpoint));
        set(&mut headers, names::PSN, format!("{:06x}", self.psn));
        headers
    }
}

/// The connection that `POST /.s3rdma-rc/disconnect` names; none when it names none that could be.
#[must_use]
pub fn disconnect(headers: &HeaderMap) -> Option<SessionId> {
    required(headers, names::SESSION).ok().and_then(SessionId::parse)
}
