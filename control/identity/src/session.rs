//! Session tokens: sealed records of who temporary credentials speak for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, IdentityError};
use crate::seal::Sealer;

/// What temporary access keys start with: those of others never do.
pub(crate) const TEMPORARY_PREFIX: &str = "ASIA";
const ABOUT: &[u8] = b"penstock session token";
/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 32 << 10;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Session {
    /// The access key that the token goes with.
    pub(crate) access_key: String,
    pub(crate) account: String,
    pub(crate) issued_unix_s: u64,
    pub(crate) expires_unix_s: u64,
    /// Whom it speaks for.
    pub(crate) subject: Subject,
    /// JSON of the session's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<String>,
}

/// Ids are compared, so that a user made again under an old name does not inherit old sessions.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Subject {
    Root,
    User { name: String, id: String },
    Role { name: String, id: String, session: String },
}

impl Session {
    pub(crate) fn token(&self, sealer: &Sealer) -> Result<String, IdentityError> {
        let plain = serde_json::to_vec(self)
            .map_err(|error| IdentityError::new(ErrorKind::Internal, format!("a session token: {error}")))?;
        Ok(URL_SAFE_NO_PAD.encode(sealer.seal(&plain, ABOUT)?))
    }

    /// # Errors
    /// InvalidToken, ExpiredToken.
    pub(crate) fn open(token: &str, access_key: &str, now_unix_s: u64, sealer: &Sealer) -> Result<Self, IdentityError> {
        let invalid =
            || IdentityError::new(ErrorKind::InvalidToken, "The provided token is malformed or otherwise invalid.");
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid());
        }
        let sealed = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
        let plain = sealer.open(&sealed, ABOUT).ok_or_else(invalid)?;
        let session: Self = serde_json::from_slice(&plain).map_err(|_| invalid())?;
        if session.access_key != access_key {
            return Err(invalid());
        }
        if session.expires_unix_s <= now_unix_s {
            return Err(IdentityError::new(ErrorKind::ExpiredToken, "The provided token has expired."));
        }
        Ok(session)
    }
}
