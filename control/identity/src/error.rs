//! What an identity call fails with: AWS's code, its status, a sentence.

/// Coarse kinds, each with the code that IAM or STS has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// 403.
    AccessDenied,
    /// 404: no such user, role, key or policy.
    NoSuchEntity,
    /// 409: it is there already.
    EntityAlreadyExists,
    /// 409: something hangs on it still.
    DeleteConflict,
    /// 409: more than may be.
    LimitExceeded,
    /// 400: a value that can't be.
    ValidationError,
    /// 400: a policy that was not understood.
    MalformedPolicyDocument,
    /// 400: an action that there is not.
    InvalidAction,
    /// 400: a parameter that is missing.
    MissingParameter,
    /// 403: no such access key.
    InvalidAccessKeyId,
    /// 403: a signature that is not the key's.
    SignatureDoesNotMatch,
    /// 400: a token that is not ours, or another key's.
    InvalidToken,
    /// 400: a token whose time is over.
    ExpiredToken,
    /// 400: more calls than the rate limit lets through.
    Throttling,
    /// 500: the metadata failed, or a row can't be read.
    Internal,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct IdentityError {
    /// Its kind.
    pub kind: ErrorKind,
    /// What is wrong, and what to do.
    pub message: String,
}

impl IdentityError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// AWS's code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        use ErrorKind as K;
        match self.kind {
            K::AccessDenied => "AccessDenied",
            K::NoSuchEntity => "NoSuchEntity",
            K::EntityAlreadyExists => "EntityAlreadyExists",
            K::DeleteConflict => "DeleteConflict",
            K::LimitExceeded => "LimitExceeded",
            K::ValidationError => "ValidationError",
            K::MalformedPolicyDocument => "MalformedPolicyDocument",
            K::InvalidAction => "InvalidAction",
            K::MissingParameter => "MissingParameter",
            K::InvalidAccessKeyId => "InvalidAccessKeyId",
            K::SignatureDoesNotMatch => "SignatureDoesNotMatch",
            K::InvalidToken => "InvalidToken",
            K::ExpiredToken => "ExpiredToken",
            K::Throttling => "Throttling",
            K::Internal => "ServiceFailure",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        use ErrorKind as K;
        match self.kind {
            K::AccessDenied | K::InvalidAccessKeyId | K::SignatureDoesNotMatch => 403,
            K::NoSuchEntity => 404,
            K::EntityAlreadyExists | K::DeleteConflict | K::LimitExceeded => 409,
            K::Internal => 500,
            _ => 400,
        }
    }

    /// Whether the same call may succeed a little later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Internal | ErrorKind::Throttling)
    }
}

impl From<penstock_meta::tables::TablesError> for IdentityError {
    fn from(error: penstock_meta::tables::TablesError) -> Self {
        Self::new(ErrorKind::Internal, error.to_string())
    }
}
