//! `x-amz-rdma-token` on an object request: which of the three kinds is it?

use crate::descriptor::DcDescriptor;
use crate::endpoint::EndpointToken;
use crate::error::WireError;
use crate::names;
use crate::rc_token::RcToken;

/// Longest token that is looked at: the longest good one, an endpoint with `:address:size`, has 122 characters.
const TOKEN_CHARS_MAX: usize = 256;

/// A token, told by its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectToken {
    /// `rc:...`: served.
    Rc(RcToken),
    /// 81 characters: declined.
    Dc(DcDescriptor),
    /// 88 hex digits: declined.
    V1(EndpointToken),
}

impl ObjectToken {
    /// Tells which it is and takes it apart.
    ///
    /// # Errors
    /// [`WireError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, WireError> {
        if text.len() > TOKEN_CHARS_MAX {
            return Err(WireError::malformed(names::TOKEN, "longer than any token"));
        }
        if text.starts_with(RcToken::PREFIX) {
            RcToken::parse(text).map(Self::Rc)
        } else if EndpointToken::looks_like(text) {
            EndpointToken::parse(text).map(Self::V1)
        } else {
            DcDescriptor::parse(text).map(Self::Dc)
        }
    }
}
