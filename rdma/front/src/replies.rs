//! Refusals in the forms that clients understand.

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use penstock_offload::Reply;
use penstock_rdma_wire::{WireError, names};

use crate::nic::NicError;
use crate::stats::Reason;

/// What a client that is told to slow down should wait, in seconds.
const RETRY_AFTER_S: u64 = 1;
/// Says why, for people; no client acts on it.
const REASON: &str = "x-penstock-rdma-reason";

/// A refusal: what the client is told, and what is counted.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) reply: Box<Reply>,
}

pub(crate) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl Refusal {
    pub(crate) fn new(reason: Reason, code: u16, name: &str, message: impl Into<String>) -> Self {
        Self { reason, reply: Box::new(Reply::error(status(code), name, message)) }
    }

    /// 501 that tells the client to use HTTP. The calls of hipobj-rc-v2 carry no `x-amz-rdma-reply`: its client would take that for a
    /// malformed success.
    pub(crate) fn unsupported(reason: Reason, message: impl Into<String>) -> Self {
        let mut refusal = Self::new(reason, 501, "RDMANotSupported", message);
        refusal.reply.headers = unsupported_headers(reason, false);
        refusal
    }

    /// The same for object requests, which have the reply header.
    pub(crate) fn unsupported_object(reason: Reason, message: impl Into<String>) -> Self {
        let mut refusal = Self::new(reason, 501, "RDMANotSupported", message);
        refusal.reply.headers = unsupported_headers(reason, true);
        refusal
    }

    /// 500 of an object request: bytes did not move. The object was not made, or not all of it reached the client.
    pub(crate) fn transfer_failed(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(reason, 500, "RDMATransferFailed", message).with_reply(500)
    }

    pub(crate) fn with_reply(mut self, code: u16) -> Self {
        set(&mut self.reply.headers, names::REPLY, &code.to_string());
        self
    }

    /// 503 with Retry-After.
    pub(crate) fn slow_down(message: impl Into<String>) -> Self {
        let mut refusal = Self::new(Reason::Busy, 503, "SlowDown", message);
        refusal.reply.headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        refusal
    }

    pub(crate) fn of_nic(error: &NicError) -> Self {
        match error {
            NicError::Full(_) => Self::slow_down(error.to_string()),
            _ => Self::new(Reason::Device, 500, "InternalError", error.to_string()),
        }
    }
}

/// What stands beside a decline.
pub(crate) fn unsupported_headers(reason: Reason, with_reply: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    set(&mut headers, names::PROTOCOL_STATUS, names::UNSUPPORTED);
    set(&mut headers, REASON, reason.name());
    if with_reply {
        set(&mut headers, names::REPLY, "501");
    }
    headers
}

impl From<WireError> for Refusal {
    /// As hipobj-rc-v2 has it; object requests have their own for tokens and connections.
    fn from(error: WireError) -> Self {
        let message = error.to_string();
        match error {
            WireError::Malformed { .. } => Self::new(Reason::Malformed, 400, "InvalidArgument", message),
            WireError::TooLarge { .. } => Self::new(Reason::TooLarge, 413, "EntityTooLarge", message),
            WireError::Protocol { .. } => Self::unsupported(Reason::Protocol, message),
            WireError::UnknownSession | WireError::Expired | WireError::AlreadyReady | WireError::Busy => {
                Self::new(Reason::NoSession, 409, "InvalidSession", message)
            }
            WireError::CookieMismatch | WireError::OtherCredential => {
                Self::new(Reason::NotYours, 403, "AccessDenied", message)
            }
            WireError::Full { .. } => Self::slow_down(message),
        }
    }
}
