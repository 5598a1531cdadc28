//! The rows: JSON behind the metadata's version byte. `docs/formats/identity.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// At `account/ID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccountRow {
    pub(crate) name: String,
    /// 64 hex digits.
    pub(crate) canonical_id: String,
    pub(crate) created_unix_s: u64,
}

/// At `user/ACCOUNT/NAME` and `role/ACCOUNT/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HolderRow {
    /// `AIDA...` of a user, `AROA...` of a role: never used again.
    pub(crate) id: String,
    /// `/` or `/team/`.
    pub(crate) path: String,
    pub(crate) created_unix_s: u64,
    /// Inline policies: name, JSON.
    pub(crate) policies: BTreeMap<String, String>,
    /// Attached managed policies, by ARN.
    pub(crate) attached: Vec<String>,
    /// A role's trust policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trust: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// A role's longest session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session_seconds_max: Option<u32>,
}

/// At `key/ACCESS_KEY_ID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRow {
    pub(crate) account: String,
    /// None: the account's root.
    pub(crate) user: Option<String>,
    pub(crate) active: bool,
    pub(crate) created_unix_s: u64,
    /// Hex of the sealed secret, about the access key's id.
    pub(crate) sealed: String,
}
