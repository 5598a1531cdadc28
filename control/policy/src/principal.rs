//! Principals: who a statement of a bucket policy or a role's trust policy is about.

use std::fmt;

/// An IAM or STS ARN that names a principal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PrincipalArn {
    /// `arn:aws:iam::ACCOUNT:root`, or the account's id alone: everybody whom that account lets.
    Account(String),
    /// `arn:aws:iam::ACCOUNT:user/PATH/NAME`; the path is kept with the name.
    User(String, String),
    /// `arn:aws:iam::ACCOUNT:role/PATH/NAME`.
    Role(String, String),
    /// `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`.
    Session(String, String, String),
}

impl PrincipalArn {
    /// Reads an ARN or an account id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if is_account(text) && text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Self::Account(text.to_owned()));
        }
        let mut parts = text.splitn(6, ':');
        let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account, name) = (parts.next()?, parts.next()?, parts.next()?);
        if arn != "arn" || !partition.starts_with("aws") || !region.is_empty() || !is_account(account) {
            return None;
        }
        let account = account.to_owned();
        match (service, name) {
            ("iam", "root") => Some(Self::Account(account)),
            ("iam", name) => match name.split_once('/')? {
                ("user", name) if is_path(name) => Some(Self::User(account, name.to_owned())),
                ("role", name) if is_path(name) => Some(Self::Role(account, name.to_owned())),
                _ => None,
            },
            ("sts", name) => {
                let (role, session) = name.strip_prefix("assumed-role/")?.split_once('/')?;
                (is_path(role) && is_path(session) && !session.contains('/'))
                    .then(|| Self::Session(account, role.to_owned(), session.to_owned()))
            }
            _ => None,
        }
    }

    /// The account it belongs to.
    #[must_use]
    pub fn account(&self) -> &str {
        match self {
            Self::Account(account) | Self::User(account, _) | Self::Role(account, _) | Self::Session(account, ..) => {
                account
            }
        }
    }
}

impl fmt::Display for PrincipalArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(account) => write!(f, "arn:aws:iam::{account}:root"),
            Self::User(account, name) => write!(f, "arn:aws:iam::{account}:user/{name}"),
            Self::Role(account, name) => write!(f, "arn:aws:iam::{account}:role/{name}"),
            Self::Session(account, role, session) => write!(f, "arn:aws:sts::{account}:assumed-role/{role}/{session}"),
        }
    }
}

/// Twelve digits at AWS; other stores have names here, and policies written for them are taken.
fn is_account(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn is_path(text: &str) -> bool {
    (1..=577).contains(&text.len())
        && !text.starts_with('/')
        && !text.ends_with('/')
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"*?:".contains(&byte))
}

/// One entry of a `Principal` or `NotPrincipal` element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedPrincipal {
    /// `*`, `{"AWS": "*"}`: everybody, strangers included.
    Everybody,
    /// `{"AWS": ARN}`.
    Aws(PrincipalArn),
    /// `{"CanonicalUser": id}`: the account with this canonical id.
    Canonical(String),
    /// A service or federated identity. There are none here: it matches nobody.
    Foreign(String),
}

/// `Principal` or `NotPrincipal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PrincipalElement {
    These(Vec<NamedPrincipal>),
    AllBut(Vec<NamedPrincipal>),
}
