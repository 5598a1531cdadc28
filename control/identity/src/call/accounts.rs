//! Accounts: what AWS has in another service. The store's own account makes and removes the others.

use super::{Call, Result, list_end};
use crate::directory::Change;
use crate::error::{ErrorKind, IdentityError};
use crate::rows::AccountRow;
use crate::seal::random;
use crate::xml;

/// Most accounts of one store.
const ACCOUNTS_MAX: usize = 1_000;

impl Call<'_> {
    fn allow_accounts(&self, action: &str) -> Result<()> {
        if self.account() != self.all.root_account_id() {
            let why = "Only the store's own account sees to accounts.";
            return Err(IdentityError::new(ErrorKind::AccessDenied, why));
        }
        self.allow(action, "*")
    }

    pub(super) async fn create_account(&self, out: &mut String) -> Result<()> {
        self.params.only(&["AccountName"])?;
        let name = self.name("AccountName")?;
        self.allow_accounts("penstock:CreateAccount")?;
        let _changing = self.all.changing.lock().await;
        let view = self.all.view();
        if view.accounts.values().any(|account| account.name == name) {
            let why = format!("An account with name {name} already exists.");
            return Err(IdentityError::new(ErrorKind::EntityAlreadyExists, why));
        }
        if view.accounts.len() >= ACCOUNTS_MAX {
            let why = format!("There are {ACCOUNTS_MAX} accounts, and no more can be.");
            return Err(IdentityError::new(ErrorKind::LimitExceeded, why));
        }
        let id = loop {
            let id = format!("{:012}", u64::from_le_bytes(random::<8>()?) % 1_000_000_000_000);
            if !view.accounts.contains_key(&id) {
                break id;
            }
        };
        let row = AccountRow {
            name: name.to_owned(),
            canonical_id: hex::encode(random::<32>()?),
            created_unix_s: self.now_unix_s,
        };
        let (key_id, secret, key) = self.new_key(&id, None)?;
        let changes = vec![Change::Account(id.clone(), Some(row.clone())), Change::Key(key_id.clone(), Some(key))];
        self.all.commit(changes).await?;
        xml::element(out, "Account", |out| {
            xml::text(out, "Id", &id);
            xml::text(out, "Name", name);
            xml::text(out, "CanonicalId", &row.canonical_id);
            xml::text(out, "AccessKeyId", &key_id);
            xml::text(out, "SecretAccessKey", secret.expose());
        });
        Ok(())
    }

    pub(super) fn list_accounts(&self, out: &mut String) -> Result<()> {
        self.params.only(&["MaxItems", "Marker"])?;
        self.allow_accounts("penstock:ListAccounts")?;
        let view = self.all.view();
        let all: Vec<_> = view.accounts.iter().map(|(id, account)| (id.clone(), account.clone())).collect();
        let (page, more) = self.page(&all)?;
        xml::element(out, "Accounts", |out| {
            for (id, account) in page {
                xml::element(out, "member", |out| {
                    xml::text(out, "Id", id);
                    xml::text(out, "Name", &account.name);
                    xml::text(out, "CanonicalId", &account.canonical_id);
                    xml::text(out, "CreateDate", &xml::date(account.created_unix_s));
                });
            }
        });
        list_end(out, page, more);
        Ok(())
    }

    /// Removes an account that has no users and roles. Its root's keys go with it. Its buckets, if it has any, stay, and are nobody's.
    pub(super) async fn delete_account(&self) -> Result<()> {
        self.params.only(&["AccountId"])?;
        let id = self.params.need("AccountId")?;
        self.allow_accounts("penstock:DeleteAccount")?;
        let _changing = self.all.changing.lock().await;
        let view = self.all.view();
        if id == self.all.root_account_id() {
            return Err(IdentityError::new(ErrorKind::DeleteConflict, "The store's own account can't be deleted."));
        }
        if !view.accounts.contains_key(id) {
            return Err(IdentityError::new(ErrorKind::NoSuchEntity, format!("There is no account {id}.")));
        }
        let used = view.users.keys().chain(view.roles.keys()).any(|(account, _)| account == id);
        if used {
            return Err(IdentityError::new(ErrorKind::DeleteConflict, "Delete the account's users and roles first."));
        }
        let keys = view.keys.iter().filter(|(_, key)| key.row.account == id);
        let mut changes: Vec<Change> = keys.map(|(key, _)| Change::Key(key.clone(), None)).collect();
        changes.push(Change::Account(id.to_owned(), None));
        self.all.commit(changes).await
    }
}
