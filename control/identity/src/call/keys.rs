//! Access keys.

use base64::Engine;
use penstock_policy::PrincipalArn;

use super::holders::Kind;
use super::sts::letters;
use super::{Call, Result, list_end};
use crate::directory::Change;
use crate::error::{ErrorKind, IdentityError};
use crate::principal::Who;
use crate::rows::KeyRow;
use crate::seal::random;
use crate::secret::Secret;
use crate::xml;

/// Most access keys of one user: IAM's.
const KEYS_MAX: usize = 2;

impl Call<'_> {
    /// Whose keys the call is about: the user that is named, or the caller. `None` is the account's root.
    fn key_holder(&self, action: &str) -> Result<Option<String>> {
        let name = match (self.params.get("UserName"), &self.caller.who) {
            (Some(_), _) => Some(self.name("UserName")?.to_owned()),
            (None, Who::User(name, _)) => Some(name.clone()),
            (None, Who::Root) => None,
            (None, Who::Role(..)) => {
                let why = "Must specify userName when calling with non-User credentials";
                return Err(IdentityError::new(ErrorKind::ValidationError, why));
            }
        };
        match &name {
            Some(name) => drop(self.allowed_holder(Kind::User, name, action)?),
            None => self.allow(action, &PrincipalArn::Account(self.account().to_owned()).to_string())?,
        }
        Ok(name)
    }

    fn keys_of(&self, user: Option<&str>) -> Vec<(String, KeyRow)> {
        let view = self.all.view();
        let own =
            view.keys.iter().filter(|(_, key)| key.row.account == self.account() && key.row.user.as_deref() == user);
        own.map(|(id, key)| (id.clone(), key.row.clone())).collect()
    }

    /// A new key's row, its id and secret.
    pub(super) fn new_key(&self, account: &str, user: Option<String>) -> Result<(String, Secret, KeyRow)> {
        let id = format!("AKIA{}", letters::<16>()?);
        let secret = Secret::new(base64::engine::general_purpose::STANDARD.encode(random::<30>()?));
        let sealed = self.all.secrets.seal(secret.expose().as_bytes(), id.as_bytes())?;
        let row = KeyRow {
            account: account.to_owned(),
            user,
            active: true,
            created_unix_s: self.now_unix_s,
            sealed: hex::encode(sealed),
        };
        Ok((id, secret, row))
    }

    pub(super) async fn create_access_key(&self, out: &mut String) -> Result<()> {
        self.params.only(&["UserName"])?;
        let _changing = self.all.changing.lock().await;
        let user = self.key_holder("iam:CreateAccessKey")?;
        if self.keys_of(user.as_deref()).len() >= KEYS_MAX {
            let why = format!("Cannot exceed quota for AccessKeysPerUser: {KEYS_MAX}");
            return Err(IdentityError::new(ErrorKind::LimitExceeded, why));
        }
        let (id, secret, row) = self.new_key(self.account(), user.clone())?;
        self.all.commit(vec![Change::Key(id.clone(), Some(row))]).await?;
        xml::element(out, "AccessKey", |out| {
            xml::text(out, "UserName", user.as_deref().unwrap_or("root"));
            xml::text(out, "AccessKeyId", &id);
            xml::text(out, "Status", "Active");
            xml::text(out, "SecretAccessKey", secret.expose());
            xml::text(out, "CreateDate", &xml::date(self.now_unix_s));
        });
        Ok(())
    }

    pub(super) fn list_access_keys(&self, out: &mut String) -> Result<()> {
        self.params.only(&["UserName", "MaxItems", "Marker"])?;
        let user = self.key_holder("iam:ListAccessKeys")?;
        let keys = self.keys_of(user.as_deref());
        let (page, more) = self.page(&keys)?;
        let name = user.as_deref().unwrap_or("root");
        xml::text(out, "UserName", name);
        xml::element(out, "AccessKeyMetadata", |out| {
            for (id, row) in page {
                xml::element(out, "member", |out| {
                    xml::text(out, "UserName", name);
                    xml::text(out, "AccessKeyId", id);
                    xml::text(out, "Status", if row.active { "Active" } else { "Inactive" });
                    xml::text(out, "CreateDate", &xml::date(row.created_unix_s));
                });
            }
        });
        list_end(out, page, more);
        Ok(())
    }

    fn key(&self, user: Option<&str>) -> Result<(String, KeyRow)> {
        let id = self.params.need("AccessKeyId")?;
        let found = self.keys_of(user).into_iter().find(|(known, _)| known == id);
        found.ok_or_else(|| {
            let why = format!("The Access Key with id {id} cannot be found.");
            IdentityError::new(ErrorKind::NoSuchEntity, why)
        })
    }

    pub(super) async fn update_access_key(&self) -> Result<()> {
        self.params.only(&["UserName", "AccessKeyId", "Status"])?;
        let active = match self.params.need("Status")? {
            "Active" => true,
            "Inactive" => false,
            _ => return Err(IdentityError::new(ErrorKind::ValidationError, "Status is Active or Inactive")),
        };
        let _changing = self.all.changing.lock().await;
        let user = self.key_holder("iam:UpdateAccessKey")?;
        let (id, row) = self.key(user.as_deref())?;
        self.all.commit(vec![Change::Key(id, Some(KeyRow { active, ..row }))]).await
    }

    pub(super) async fn delete_access_key(&self) -> Result<()> {
        self.params.only(&["UserName", "AccessKeyId"])?;
        let _changing = self.all.changing.lock().await;
        let user = self.key_holder("iam:DeleteAccessKey")?;
        let (id, _) = self.key(user.as_deref())?;
        self.all.commit(vec![Change::Key(id, None)]).await
    }
}
