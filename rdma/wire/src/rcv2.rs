//! hipobj-rc-v2: the headers of PREPARE, READY and CANCEL, and of their answers.
//!
//! Where peers differ, every known one is understood: the PSN in 1 to 8 digits of either case, the token with or without
//! `:address:size`, a cookie of zero, no offset. Answers are in the form that all of them read.

use http::HeaderMap;

use crate::checksum::{self, Algorithm};
use crate::endpoint::{EndpointToken, TRANSPORT_RC};
use crate::error::WireError;
use crate::headers::{optional, required, set};
use crate::hex::{self, Decimal};
use crate::names;
use crate::rc_token::SessionId;

/// The protocol's name in `x-amz-rdma-protocol`.
pub const PROTOCOL: &str = "hipobj-rc-v2";
/// Most bytes of one transfer.
pub const SIZE_BYTES_MAX: u64 = (1 << 31) - 1;
/// Highest PSN and QPN: 24 bits.
const BITS24_MAX: u64 = 0xff_ffff;

/// `x-amz-rdma-op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// From the store to the client.
    Get,
    /// From the client to the store.
    Put,
}

/// PREPARE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// The client's queue pair; none when the client is on our own HCA and leaves it to us which GID that is.
    pub peer: Option<EndpointToken>,
    /// Where the client's packet numbers begin.
    pub psn: u32,
    /// What the immediate data will say.
    pub cookie: u32,
    /// Which way.
    pub operation: Operation,
    /// `/bucket/key[?query]`, encoded as on a request line.
    pub target: String,
    /// Bytes to move, 1 to [`SIZE_BYTES_MAX`].
    pub size: u64,
    /// GET: where in the object they begin.
    pub offset: u64,
    /// Which checksum the client wants to see.
    pub checksum: Algorithm,
}

/// READY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Which session.
    pub session: SessionId,
    /// Its cookie.
    pub cookie: u32,
    /// The client's queue pair.
    pub qpn: u32,
    /// The client's memory: address and rkey, neither of them zero. GET can't do without.
    pub memory: Option<(u64, u32)>,
}

/// CANCEL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// Which session.
    pub session: SessionId,
    /// Its cookie, where the client says it.
    pub cookie: Option<u32>,
}

/// Whether the client speaks this protocol.
///
/// # Errors
/// [`WireError::Protocol`]: answered with 501 and no `x-amz-rdma-reply`.
pub fn check_protocol(headers: &HeaderMap) -> Result<(), WireError> {
    match optional(headers, names::PROTOCOL) {
        Ok(Some(PROTOCOL)) => Ok(()),
        _ => Err(WireError::Protocol { spoken: PROTOCOL }),
    }
}

fn psn(text: &str) -> Result<u32, WireError> {
    hex::up_to(text, 8)
        .filter(|psn| (1..=BITS24_MAX).contains(psn))
        .map(|psn| psn as u32)
        .ok_or(WireError::malformed(names::PSN, "a PSN is 6 hex digits, 000001 to ffffff"))
}

fn cookie(text: &str) -> Result<u32, WireError> {
    hex::exact(text, 8)
        .map(|cookie| cookie as u32)
        .ok_or(WireError::malformed(names::COOKIE, "a cookie is 8 hex digits"))
}

fn session(headers: &HeaderMap) -> Result<SessionId, WireError> {
    SessionId::parse(required(headers, names::SESSION)?)
        .ok_or(WireError::malformed(names::SESSION, "a session is 32 hex digits"))
}

/// A client's own endpoint, for connections of our making.
pub(crate) fn peer(text: &str) -> Result<Option<EndpointToken>, WireError> {
    let token = EndpointToken::parse(text)?;
    if token.is_zero() {
        return Ok(None);
    }
    if token.transport != TRANSPORT_RC {
        return Err(WireError::malformed(names::TOKEN, "the transport is not 1 (RC)"));
    }
    if token.gid.is_zero() {
        return Err(WireError::malformed(names::TOKEN, "the GID is zero"));
    }
    Ok(Some(token))
}

impl Prepare {
    /// Reads a PREPARE whose protocol was checked.
    ///
    /// # Errors
    /// [`WireError::Malformed`]; [`WireError::TooLarge`] past [`SIZE_BYTES_MAX`].
    pub fn parse(headers: &HeaderMap) -> Result<Self, WireError> {
        let peer = peer(required(headers, names::TOKEN)?)?;
        let psn = psn(required(headers, names::PSN)?)?;
        let cookie = cookie(required(headers, names::COOKIE)?)?;
        let operation = match required(headers, names::OP)? {
            op if op.eq_ignore_ascii_case("GET") => Operation::Get,
            op if op.eq_ignore_ascii_case("PUT") => Operation::Put,
            _ => return Err(WireError::malformed(names::OP, "an operation is GET or PUT")),
        };
        let target = target(required(headers, names::TARGET)?)?;
        let size = match hex::decimal(required(headers, names::SIZE)?) {
            None | Some(Decimal::Number(0)) => {
                return Err(WireError::malformed(names::SIZE, "a size is 1 to 2147483647 in decimal digits"));
            }
            Some(Decimal::Number(size)) if size <= SIZE_BYTES_MAX => size,
            Some(_) => return Err(WireError::TooLarge { max: SIZE_BYTES_MAX }),
        };
        let offset = match optional(headers, names::OFFSET)?.map(hex::decimal) {
            None => 0,
            Some(Some(Decimal::Number(offset))) if offset.checked_add(size).is_some() => offset,
            Some(_) => {
                return Err(WireError::malformed(names::OFFSET, "an offset is a number of bytes in decimal digits"));
            }
        };
        if operation == Operation::Put && offset != 0 {
            return Err(WireError::malformed(names::OFFSET, "a PUT has no offset: objects are written whole"));
        }
        let checksum = match optional(headers, names::CHECKSUM_ALGORITHM)? {
            None => Algorithm::Crc64Nvme,
            Some(name) if name.eq_ignore_ascii_case("CRC64NVME") => Algorithm::Crc64Nvme,
            Some(name) if name.eq_ignore_ascii_case("CRC32C") => Algorithm::Crc32c,
            Some(_) => return Err(WireError::malformed(names::CHECKSUM_ALGORITHM, "CRC64NVME or CRC32C")),
        };
        Ok(Self { peer, psn, cookie, operation, target, size, offset, checksum })
    }

    /// The headers of the request, protocol included.
    #[must_use]
    pub fn to_headers(&self) -> HeaderMap {
        let mut headers = with_protocol();
        set(&mut headers, names::TOKEN, self.peer.unwrap_or_default().to_string());
        set(&mut headers, names::PSN, format!("{:06x}", self.psn));
        set(&mut headers, names::COOKIE, format!("{:08x}", self.cookie));
        set(&mut headers, names::OP, if self.operation == Operation::Get { "GET" } else { "PUT" });
        set(&mut headers, names::TARGET, self.target.clone());
        set(&mut headers, names::SIZE, self.size.to_string());
        if self.offset > 0 {
            set(&mut headers, names::OFFSET, self.offset.to_string());
        }
        if self.checksum == Algorithm::Crc32c {
            set(&mut headers, names::CHECKSUM_ALGORITHM, "CRC32C");
        }
        headers
    }
}

/// `/bucket/key[?query]`: what a request line could say.
fn target(text: &str) -> Result<String, WireError> {
    let bad = WireError::malformed(names::TARGET, "a target is /bucket/key, percent-encoded, with or without ?query");
    let path = text.split('?').next().unwrap_or_default();
    let Some((bucket, key)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else { return Err(bad) };
    let fine = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`');
    // No bucket's name begins with a dot: a dialect's own paths are no targets.
    if bucket.is_empty() || bucket.starts_with('.') || key.is_empty() || !text.bytes().all(fine) {
        return Err(bad);
    }
    Ok(text.to_owned())
}

impl Ready {
    /// Reads a READY whose protocol was checked.
    ///
    /// # Errors
    /// [`WireError::Malformed`].
    pub fn parse(headers: &HeaderMap) -> Result<Self, WireError> {
        let session = session(headers)?;
        let cookie = cookie(required(headers, names::COOKIE)?)?;
        let qpn = hex::up_to(required(headers, names::QPN)?, 8)
            .filter(|qpn| (1..=BITS24_MAX).contains(qpn))
            .ok_or(WireError::malformed(names::QPN, "a queue pair's number is hex, 1 to ffffff"))?;
        let field = |name, digits| -> Result<Option<u64>, WireError> {
            let Some(text) = optional(headers, name)? else { return Ok(None) };
            let number = hex::up_to(text, digits).ok_or(WireError::malformed(name, "not hex, or too long"))?;
            Ok((number != 0).then_some(number))
        };
        let (address, rkey) = (field(names::MR_ADDR, 16)?, field(names::MR_RKEY, 8)?);
        Ok(Self { session, cookie, qpn: qpn as u32, memory: address.zip(rkey.map(|rkey| rkey as u32)) })
    }

    /// The headers of the request, protocol included.
    #[must_use]
    pub fn to_headers(&self) -> HeaderMap {
        let mut headers = with_protocol();
        set(&mut headers, names::SESSION, self.session.to_string());
        set(&mut headers, names::COOKIE, format!("{:08x}", self.cookie));
        set(&mut headers, names::QPN, format!("{:x}", self.qpn));
        if let Some((address, rkey)) = self.memory {
            set(&mut headers, names::MR_ADDR, format!("{address:x}"));
            set(&mut headers, names::MR_RKEY, format!("{rkey:x}"));
        }
        headers
    }
}

impl Cancel {
    /// Reads a CANCEL whose protocol was checked. A cookie of zero is none.
    ///
    /// # Errors
    /// [`WireError::Malformed`].
    pub fn parse(headers: &HeaderMap) -> Result<Self, WireError> {
        let cookie = optional(headers, names::COOKIE)?.map(cookie).transpose()?.filter(|cookie| *cookie != 0);
        Ok(Self { session: session(headers)?, cookie })
    }

    /// The headers of the request, protocol included.
    #[must_use]
    pub fn to_headers(&self) -> HeaderMap {
        let mut headers = with_protocol();
        set(&mut headers, names::SESSION, self.session.to_string());
        if let Some(cookie) = self.cookie {
            set(&mut headers, names::COOKIE, format!("{cookie:08x}"));
        }
        headers
    }
}

/// Headers that begin with the protocol's name.
#[must_use]
pub fn with_protocol() -> HeaderMap {
    let mut headers = HeaderMap::new();
    set(&mut headers, names::PROTOCOL, PROTOCOL);
    headers
}

/// The answer to PREPARE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Our queue pair; `rkey`, `address` and `length` are those of the staging memory, for PUT.
    pub endpoint: EndpointToken,
    /// The session.
    pub session: SessionId,
    /// Where our packet numbers begin.
    pub psn: u32,
}

impl Prepared {
    /// The headers of the 200.
    #[must_use]
    pub fn to_headers(&self) -> HeaderMap {
        let mut headers = with_protocol();
        set(&mut headers, names::REPLY, format!("200:{}", self.endpoint));
        set(&mut headers, names::SESSION, self.session.to_string());
        set(&mut headers, names::PSN, format!("{:06x}", self.psn));
        set(&mut headers, names::QPN, format!("{:x}", self.endpoint.qpn));
        if self.endpoint.length > 0 {
            set(&mut headers, names::MR_ADDR, format!("{:x}", self.endpoint.address));
            set(&mut headers, names::MR_RKEY, format!("{:x}", self.endpoint.rkey));
        }
        headers
    }
}

/// What was moved, in the checksum that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// 64 bits.
    Crc64Nvme(u64),
    /// 32 bits.
    Crc32c(u32),
}

/// The answer to READY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Final {
    /// The request's.
    pub cookie: u32,
    /// Bytes moved.
    pub bytes: u64,
    /// The object's ETag, in its quotes.
    pub etag: Option<String>,
    /// The object's version.
    pub version_id: Option<String>,
    /// Of the bytes moved.
    pub checksum: Checksum,
}

impl Final {
    /// The headers of the 200.
    #[must_use]
    pub fn to_headers(&self) -> HeaderMap {
        let mut headers = with_protocol();
        set(&mut headers, names::COOKIE, format!("{:08x}", self.cookie));
        set(&mut headers, names::BYTES_TRANSFERRED, self.bytes.to_string());
        if let Some(etag) = &self.etag {
            set(&mut headers, names::ETAG, etag.clone());
        }
        if let Some(version) = &self.version_id {
            set(&mut headers, names::VERSION_ID, version.clone());
            set(&mut headers, names::S3_VERSION_ID, version.clone());
        }
        match self.checksum {
            Checksum::Crc64Nvme(crc) => {
                set(&mut headers, names::CHECKSUM, checksum::crc64nvme_header(crc));
                set(&mut headers, names::CHECKSUM_CRC64NVME, checksum::crc64nvme_base64(crc));
            }
            Checksum::Crc32c(crc) => set(&mut headers, names::CHECKSUM_CRC32C, checksum::crc32c_base64(crc)),
        }
        headers
    }
}
