//! All identities: in memory as they are asked for, in the metadata as they are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use penstock_meta::tables::Tables;
use penstock_policy::{NamedPrincipal, Policy, PolicyKind, PrincipalArn};
use tokio::sync::Mutex;

use crate::error::{ErrorKind, IdentityError};
use crate::principal::{Account, Principal, Who};
use crate::rows::{AccountRow, HolderRow, KeyRow};
use crate::seal::{Deriver, MasterKey, Sealer};
use crate::secret::Secret;
use crate::session::{Session, Subject, TEMPORARY_PREFIX};

type Result<T> = std::result::Result<T, IdentityError>;

/// The store's own account, whose root key pair is in a file or the environment and not among the rows.
#[derive(Clone, Debug)]
pub struct RootAccount {
    /// Twelve digits.
    pub account_id: String,
    /// 64 hex digits.
    pub canonical_id: String,
    /// What listings call it.
    pub name: String,
    /// The root's access key.
    pub access_key: String,
    /// Its secret.
    pub secret: Secret,
    /// A second key pair of the root, while keys are being changed.
    pub other: Option<(String, Secret)>,
}

impl RootAccount {
    /// The store's account with this root key pair.
    #[must_use]
    pub fn new(access_key: impl Into<String>, secret: Secret) -> Self {
        Self {
            account_id: "000000000000".to_owned(),
            canonical_id: "0".repeat(64),
            name: "penstock".to_owned(),
            access_key: access_key.into(),
            secret,
            other: None,
        }
    }
}

/// A user or role, ready to be asked.
#[derive(Clone)]
pub(crate) struct Holder {
    pub(crate) row: HolderRow,
    pub(crate) policies: Arc<[Policy]>,
    pub(crate) trust: Option<Arc<Policy>>,
}

#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) row: KeyRow,
    pub(crate) secret: Secret,
}

/// Everything, as of one moment. Maps are by (account, name), and keys by id.
#[derive(Clone, Default)]
pub(crate) struct View {
    pub(crate) accounts: BTreeMap<String, Arc<Account>>,
    pub(crate) users: BTreeMap<(String, String), Arc<Holder>>,
    pub(crate) roles: BTreeMap<(String, String), Arc<Holder>>,
    pub(crate) keys: BTreeMap<String, Arc<Key>>,
}

/// One row's change.
pub(crate) enum Change {
    Account(String, Option<AccountRow>),
    User(String, String, Option<HolderRow>),
    Role(String, String, Option<HolderRow>),
    Key(String, Option<KeyRow>),
}

/// All identities. Shared as an `Arc`.
pub struct Identities {
    tables: Tables,
    pub(crate) root: RootAccount,
    view: RwLock<Arc<View>>,
    /// Held by whoever changes something, from its look at the view to its commit.
    pub(crate) changing: Mutex<()>,
    pub(crate) secrets: Sealer,
    pub(crate) tokens: Sealer,
    pub(crate) deriver: Deriver,
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identities").field("root", &self.root.access_key).finish_non_exhaustive()
    }
}

/// AWS's managed policies that are known here.
pub(crate) const MANAGED: &[(&str, &str)] = &[
    (
        "arn:aws:iam::aws:policy/AdministratorAccess",
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
    ),
    (
        "arn:aws:iam::aws:policy/AmazonS3FullAccess",
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*","s3-object-lambda:*"],"Resource":"*"}]}"#,
    ),
    (
        "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess",
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:Get*","s3:List*","s3:Describe*","s3-object-lambda:Get*","s3-object-lambda:List*"],"Resource":"*"}]}"#,
    ),
    (
        "arn:aws:iam::aws:policy/IAMFullAccess",
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:*"],"Resource":"*"}]}"#,
    ),
];

fn holder(row: HolderRow) -> Result<Holder> {
    let unreadable = |error: penstock_policy::PolicyError| {
        IdentityError::new(ErrorKind::Internal, format!("a stored policy can't be read: {error}"))
    };
    let attached = row.attached.iter().filter_map(|arn| MANAGED.iter().find(|(known, _)| known == arn));
    let texts = row.policies.values().map(String::as_str).chain(attached.map(|(_, text)| *text));
    let policies: std::result::Result<Vec<_>, _> =
        texts.map(|text| Policy::parse(text, PolicyKind::Identity)).collect();
    let trust = row.trust.as_deref().map(|text| Policy::parse(text, PolicyKind::Trust)).transpose();
    Ok(Holder { policies: policies.map_err(unreadable)?.into(), trust: trust.map_err(unreadable)?.map(Arc::new), row })
}

fn from_json<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| IdentityError::new(ErrorKind::Internal, format!("the stored identity {name}: {error}")))
}

impl Identities {
    /// Reads them all. The root account is always there.
    ///
    /// # Errors
    /// When the metadata can't be read, a row is not understood, or a secret was sealed under another master key.
    pub async fn open(tables: Tables, root: RootAccount, key: &MasterKey) -> Result<Arc<Self>> {
        let secrets = Sealer::new(key, "penstock secrets at rest v1");
        let mut view = View::default();
        let own = Account {
            id: root.account_id.clone(),
            canonical_id: root.canonical_id.clone(),
            name: root.name.clone(),
            created_unix_s: 0,
        };
        view.accounts.insert(own.id.clone(), Arc::new(own));
        for (name, bytes) in tables.identities().await? {
            let change = match name.split('/').collect::<Vec<_>>().as_slice() {
                ["account", id] => Change::Account((*id).to_owned(), Some(from_json(&name, &bytes)?)),
                ["user", account, user] => {
                    Change::User((*account).to_owned(), (*user).to_owned(), Some(from_json(&name, &bytes)?))
                }
                ["role", account, role] => {
                    Change::Role((*account).to_owned(), (*role).to_owned(), Some(from_json(&name, &bytes)?))
                }
                ["key", id] => Change::Key((*id).to_owned(), Some(from_json(&name, &bytes)?)),
                _ => return Err(IdentityError::new(ErrorKind::Internal, format!("{name:?} is no identity's row"))),
            };
            view.apply(change, &secrets)?;
        }
        Ok(Arc::new(Self {
            tables,
            root,
            view: RwLock::new(Arc::new(view)),
            changing: Mutex::new(()),
            secrets,
            tokens: Sealer::new(key, "penstock session tokens v1"),
            deriver: Deriver::new(key),
        }))
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.read().clone()
    }

    /// Writes changes, and shows them once they are durable. The caller holds `changing`.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<()> {
        let mut rows = Vec::with_capacity(changes.len());
        for change in &changes {
            rows.push(change.row()?);
        }
        // Parsed before it is written: what can't be read back must not be stored.
        let mut view = (*self.view()).clone();
        for change in changes {
            view.apply(change, &self.secrets)?;
        }
        self.tables.change_identities(&rows).await?;
        *self.view.write() = Arc::new(view);
        Ok(())
    }

    /// The secret of an access key, for the check of a signature; none when there is no such key or it is inactive. Never
    /// waits. For a temporary key there always is one: whether anybody holds it is what its token says.
    #[must_use]
    pub fn secret_of(&self, access_key: &str) -> Option<Secret> {
        if access_key == self.root.access_key {
            return Some(self.root.secret.clone());
        }
        if let Some((_, secret)) = self.root.other.as_ref().filter(|(other, _)| other == access_key) {
            return Some(secret.clone());
        }
        if access_key.starts_with(TEMPORARY_PREFIX) {
            return Some(self.deriver.secret_of(access_key));
        }
        self.view().keys.get(access_key).filter(|key| key.row.active).map(|key| key.secret.clone())
    }

    /// Who holds this access key. Its signature must have been good.
    ///
    /// # Errors
    /// InvalidAccessKeyId, InvalidToken, ExpiredToken; AccessDenied for a session whose user or role is gone.
    pub fn principal(&self, access_key: &str, token: Option<&str>, now_unix_s: u64) -> Result<Principal> {
        let view = self.view();
        let unknown = || {
            IdentityError::new(
                ErrorKind::InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist in our records.",
            )
        };
        if access_key.starts_with(TEMPORARY_PREFIX) {
            let session = Session::open(token.ok_or_else(unknown)?, access_key, now_unix_s, &self.tokens)?;
            return view.of_session(session);
        }
        if token.is_some() {
            // A token belongs to temporary credentials alone.
            return Err(IdentityError::new(
                ErrorKind::InvalidToken,
                "The provided token is malformed or otherwise invalid: this access key is not a temporary one.",
            ));
        }
        if access_key == self.root.access_key || self.root.other.as_ref().is_some_and(|(other, _)| other == access_key)
        {
            return view.root_of(&self.root.account_id).ok_or_else(unknown);
        }
        let key = view.keys.get(access_key).filter(|key| key.row.active).ok_or_else(unknown)?;
        let found = match &key.row.user {
            None => view.root_of(&key.row.account),
            Some(name) => view.user(&key.row.account, name),
        };
        found.ok_or_else(unknown)
    }

    /// The canonical id and name of an account; none when there is no such account. Empty is the store's own.
    #[must_use]
    pub fn account(&self, id: &str) -> Option<(String, String)> {
        let id = if id.is_empty() { &self.root.account_id } else { id };
        self.view().accounts.get(id).map(|account| (account.canonical_id.clone(), account.name.clone()))
    }

    /// The name of the account with this canonical id.
    #[must_use]
    pub fn name_of_canonical(&self, canonical_id: &str) -> Option<String> {
        let view = self.view();
        view.accounts.values().find(|account| account.canonical_id == canonical_id).map(|account| account.name.clone())
    }

    /// The store's own account.
    #[must_use]
    pub fn root_account_id(&self) -> &str {
        &self.root.account_id
    }

    /// Whether a principal that a bucket policy names may be named: whoever is of an account that exists must exist.
    #[must_use]
    pub fn knows(&self, named: &NamedPrincipal) -> bool {
        let view = self.view();
        match named {
            NamedPrincipal::Everybody | NamedPrincipal::Foreign(_) => true,
            NamedPrincipal::Canonical(id) => view.accounts.values().any(|account| account.canonical_id == *id),
            NamedPrincipal::Aws(arn) => {
                let account = arn.account();
                let last = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
                if !view.accounts.contains_key(account) {
                    // Names that are no ids are other stores' (RGW's tenants): they match nobody here.
                    return !(account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()));
                }
                let holds = |holders: &BTreeMap<(String, String), Arc<Holder>>, name: &str| {
                    let key = (account.to_owned(), last(name));
                    holders.get(&key).is_some_and(|holder| full_name(&holder.row.path, &key.1) == name)
                };
                match arn {
                    PrincipalArn::Account(_) => true,
                    PrincipalArn::User(_, name) => holds(&view.users, name),
                    PrincipalArn::Role(_, name) => holds(&view.roles, name),
                    PrincipalArn::Session(_, role, _) => view.roles.contains_key(&(account.to_owned(), role.clone())),
                }
            }
        }
    }
}

/// `team/jane`: path and name as ARNs have them.
pub(crate) fn full_name(path: &str, name: &str) -> String {
    format!("{}{name}", path.strip_prefix('/').unwrap_or(path))
}

impl View {
    fn apply(&mut self, change: Change, secrets: &Sealer) -> Result<()> {
        match change {
            Change::Account(id, Some(row)) => {
                let account = Account {
                    id: id.clone(),
                    canonical_id: row.canonical_id,
                    name: row.name,
                    created_unix_s: row.created_unix_s,
                };
                self.accounts.insert(id, Arc::new(account));
            }
            Change::Account(id, None) => drop(self.accounts.remove(&id)),
            Change::User(account, name, Some(row)) => {
                self.users.insert((account, name), Arc::new(holder(row)?));
            }
            Change::User(account, name, None) => drop(self.users.remove(&(account, name))),
            Change::Role(account, name, Some(row)) => {
                self.roles.insert((account, name), Arc::new(holder(row)?));
            }
            Change::Role(account, name, None) => drop(self.roles.remove(&(account, name))),
            Change::Key(id, Some(row)) => {
                let opened = hex::decode(&row.sealed).ok().and_then(|sealed| secrets.open(&sealed, id.as_bytes()));
                let secret = opened.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| {
                    IdentityError::new(
                        ErrorKind::Internal,
                        format!(
                            "the secret of access key {id} can't be opened: it was sealed under another identity key; \
                             put back the identity.key that this metadata was made with"
                        ),
                    )
                })?;
                self.keys.insert(id, Arc::new(Key { row, secret: Secret::new(secret) }));
            }
            Change::Key(id, None) => drop(self.keys.remove(&id)),
        }
        Ok(())
    }

    fn root_of(&self, account: &str) -> Option<Principal> {
        let account = self.accounts.get(account)?.clone();
        Some(Principal {
            who: Who::Root,
            full_name: String::new(),
            user_id: account.id.clone(),
            policies: Arc::new([]),
            session_policy: None,
            issued_unix_s: None,
            session_token: false,
            account,
        })
    }

    fn user(&self, account: &str, name: &str) -> Option<Principal> {
        let user = self.users.get(&(account.to_owned(), name.to_owned()))?;
        Some(Principal {
            account: self.accounts.get(account)?.clone(),
            who: Who::User(name.to_owned(), user.row.path.clone()),
            full_name: full_name(&user.row.path, name),
            user_id: user.row.id.clone(),
            policies: user.policies.clone(),
            session_policy: None,
            issued_unix_s: None,
            session_token: false,
        })
    }

    fn of_session(&self, session: Session) -> Result<Principal> {
        let gone =
            || IdentityError::new(ErrorKind::AccessDenied, "Whom these temporary credentials were issued to is gone.");
        let mut principal = match &session.subject {
            Subject::Root => self.root_of(&session.account).ok_or_else(gone)?,
            Subject::User { name, id } => {
                self.user(&session.account, name).filter(|user| user.user_id == *id).ok_or_else(gone)?
            }
            Subject::Role { name, id, session: session_name } => {
                let role = self.roles.get(&(session.account.clone(), name.clone()));
                let role = role.filter(|role| role.row.id == *id).ok_or_else(gone)?;
                Principal {
                    account: self.accounts.get(&session.account).ok_or_else(gone)?.clone(),
                    who: Who::Role(name.clone(), role.row.path.clone(), session_name.clone()),
                    full_name: full_name(&role.row.path, name),
                    user_id: format!("{id}:{session_name}"),
                    policies: role.policies.clone(),
                    session_policy: None,
                    issued_unix_s: None,
                    session_token: false,
                }
            }
        };
        principal.issued_unix_s = Some(session.issued_unix_s);
        principal.session_token = !matches!(session.subject, Subject::Role { .. });
        if let Some(text) = &session.policy {
            let policy = Policy::parse(text, PolicyKind::Session)
                .map_err(|error| IdentityError::new(ErrorKind::InvalidToken, error.to_string()))?;
            principal.session_policy = Some(Arc::new(policy));
        }
        Ok(principal)
    }
}

impl Change {
    fn row(&self) -> Result<(String, Option<Vec<u8>>)> {
        fn json<T: serde::Serialize>(row: Option<&T>) -> Result<Option<Vec<u8>>> {
            row.map(serde_json::to_vec)
                .transpose()
                .map_err(|error| IdentityError::new(ErrorKind::Internal, format!("an identity's row: {error}")))
        }
        Ok(match self {
            Self::Account(id, row) => (format!("account/{id}"), json(row.as_ref())?),
            Self::User(account, name, row) => (format!("user/{account}/{name}"), json(row.as_ref())?),
            Self::Role(account, name, row) => (format!("role/{account}/{name}"), json(row.as_ref())?),
            Self::Key(id, row) => (format!("key/{id}"), json(row.as_ref())?),
        })
    }
}
