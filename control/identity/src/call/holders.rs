//! Users and roles.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_policy::{Policy, PolicyKind, PrincipalArn};

use super::sts::letters;
use super::{Call, Result, list_end};
use crate::directory::{Change, Holder, full_name};
use crate::error::{ErrorKind, IdentityError};
use crate::principal::Who;
use crate::rows::HolderRow;
use crate::xml;

/// Most users of one account, and most roles.
const HOLDERS_MAX: usize = 5_000;

/// What a policy hangs on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Role,
}

impl Kind {
    pub(super) const fn parameter(self) -> &'static str {
        match self {
            Self::User => "UserName",
            Self::Role => "RoleName",
        }
    }

    fn arn(self, account: &str, full_name: &str) -> String {
        let account = account.to_owned();
        match self {
            Self::User => PrincipalArn::User(account, full_name.to_owned()).to_string(),
            Self::Role => PrincipalArn::Role(account, full_name.to_owned()).to_string(),
        }
    }

    fn missing(self, name: &str) -> IdentityError {
        let what = if self == Self::User { "user" } else { "role" };
        IdentityError::new(ErrorKind::NoSuchEntity, format!("The {what} with name {name} cannot be found."))
    }

    pub(super) fn change(self, account: &str, name: &str, row: Option<HolderRow>) -> Change {
        match self {
            Self::User => Change::User(account.to_owned(), name.to_owned(), row),
            Self::Role => Change::Role(account.to_owned(), name.to_owned(), row),
        }
    }
}

impl Call<'_> {
    pub(super) fn holder(&self, kind: Kind, name: &str) -> Option<Arc<Holder>> {
        let view = self.all.view();
        let holders = if kind == Kind::User { &view.users } else { &view.roles };
        holders.get(&(self.account().to_owned(), name.to_owned())).cloned()
    }

    /// The user or role of that name, if the caller may do this with it.
    pub(super) fn allowed_holder(&self, kind: Kind, name: &str, action: &str) -> Result<Arc<Holder>> {
        let holder = self.holder(kind, name);
        let path = holder.as_ref().map_or("/", |holder| holder.row.path.as_str());
        self.allow(action, &kind.arn(self.account(), &full_name(path, name)))?;
        holder.ok_or_else(|| kind.missing(name))
    }

    fn path(&self) -> Result<String> {
        let path = self.params.get("Path").unwrap_or("/");
        let sound = path.len() <= 512
            && path.starts_with('/')
            && path.ends_with('/')
            && !path.contains("//")
            && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/+=,.@_-".contains(&b));
        if sound {
            return Ok(path.to_owned());
        }
        Err(IdentityError::new(
            ErrorKind::ValidationError,
            "The specified value for path is invalid. It begins and ends with /",
        ))
    }

    fn all_of(&self, kind: Kind) -> Vec<(String, Arc<Holder>)> {
        let view = self.all.view();
        let holders = if kind == Kind::User { &view.users } else { &view.roles };
        let own = holders.iter().filter(|((account, _), _)| account == self.account());
        own.map(|((_, name), holder)| (name.clone(), holder.clone())).collect()
    }

    async fn create(&self, kind: Kind, row: HolderRow, out: &mut String) -> Result<()> {
        let name = self.name(kind.parameter())?;
        let action = if kind == Kind::User { "iam:CreateUser" } else { "iam:CreateRole" };
        self.allow(action, &kind.arn(self.account(), &full_name(&row.path, name)))?;
        let _changing = self.all.changing.lock().await;
        let all = self.all_of(kind);
        // IAM's names are unique without regard to case.
        if all.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            let what = if kind == Kind::User { "User" } else { "Role" };
            let why = format!("{what} with name {name} already exists.");
            return Err(IdentityError::new(ErrorKind::EntityAlreadyExists, why));
        }
        if all.len() >= HOLDERS_MAX {
            let why = format!("Cannot exceed quota of {HOLDERS_MAX} per account");
            return Err(IdentityError::new(ErrorKind::LimitExceeded, why));
        }
        self.all.commit(vec![kind.change(self.account(), name, Some(row.clone()))]).await?;
        self.write(kind, name, &row, out);
        Ok(())
    }

    /// `<User>` or `<Role>`.
    fn write(&self, kind: Kind, name: &str, row: &HolderRow, out: &mut String) {
        xml::element(out, if kind == Kind::User { "User" } else { "Role" }, |out| self.members(kind, name, row, out));
    }

    fn members(&self, kind: Kind, name: &str, row: &HolderRow, out: &mut String) {
        xml::text(out, "Path", &row.path);
        xml::text(out, kind.parameter(), name);
        xml::text(out, if kind == Kind::User { "UserId" } else { "RoleId" }, &row.id);
        xml::text(out, "Arn", &kind.arn(self.account(), &full_name(&row.path, name)));
        xml::text(out, "CreateDate", &xml::date(row.created_unix_s));
        if let Some(trust) = &row.trust {
            xml::text(out, "AssumeRolePolicyDocument", &xml::url(trust));
        }
        if let Some(description) = &row.description {
            xml::text(out, "Description", description);
        }
        if let Some(seconds) = row.session_seconds_max {
            xml::text(out, "MaxSessionDuration", &seconds.to_string());
        }
    }

    fn list(&self, kind: Kind, action: &str, element: &str, out: &mut String) -> Result<()> {
        self.params.only(&["PathPrefix", "MaxItems", "Marker"])?;
        self.allow(action, &kind.arn(self.account(), "*"))?;
        let prefix = self.params.get("PathPrefix").unwrap_or("/");
        let mut all = self.all_of(kind);
        all.retain(|(_, holder)| holder.row.path.starts_with(prefix));
        let (page, more) = self.page(&all)?;
        xml::element(out, element, |out| {
            for (name, holder) in page {
                xml::element(out, "member", |out| self.members(kind, name, &holder.row, out));
            }
        });
        list_end(out, page, more);
        Ok(())
    }

    pub(super) async fn create_user(&self, out: &mut String) -> Result<()> {
        self.params.only(&["UserName", "Path"])?;
        let row = HolderRow {
            id: format!("AIDA{}", letters::<17>()?),
            path: self.path()?,
            created_unix_s: self.now_unix_s,
            policies: BTreeMap::new(),
            attached: Vec::new(),
            trust: None,
            description: None,
            session_seconds_max: None,
        };
        self.create(Kind::User, row, out).await
    }

    pub(super) fn get_user(&self, out: &mut String) -> Result<()> {
        self.params.only(&["UserName"])?;
        // Without a name it is about the caller.
        let name = match (self.params.get("UserName"), &self.caller.who) {
            (Some(_), _) => self.name("UserName")?.to_owned(),
            (None, Who::User(name, _)) => name.clone(),
            (None, Who::Root) => {
                xml::element(out, "User", |out| {
                    xml::text(out, "UserId", self.account());
                    xml::text(out, "Arn", &self.caller.arn().to_string());
                    xml::text(out, "CreateDate", &xml::date(self.caller.account.created_unix_s));
                });
                return Ok(());
            }
            (None, Who::Role(..)) => {
                let why = "Must specify userName when calling with non-User credentials";
                return Err(IdentityError::new(ErrorKind::ValidationError, why));
            }
        };
        let user = self.allowed_holder(Kind::User, &name, "iam:GetUser")?;
        self.write(Kind::User, &name, &user.row, out);
        Ok(())
    }

    pub(super) fn list_users(&self, out: &mut String) -> Result<()> {
        self.list(Kind::User, "iam:ListUsers", "Users", out)
    }

    async fn delete(&self, kind: Kind, action: &str) -> Result<()> {
        self.params.only(&[kind.parameter()])?;
        let name = self.name(kind.parameter())?;
        let _changing = self.all.changing.lock().await;
        let holder = self.allowed_holder(kind, name, action)?;
        let hangs = |why: &str| Err(IdentityError::new(ErrorKind::DeleteConflict, why));
        if !holder.row.policies.is_empty() {
            return hangs("Cannot delete entity, must delete policies first.");
        }
        if !holder.row.attached.is_empty() {
            return hangs("Cannot delete entity, must detach all policies first.");
        }
        let view = self.all.view();
        if kind == Kind::User
            && view.keys.values().any(|key| key.row.account == self.account() && key.row.user.as_deref() == Some(name))
        {
            return hangs("Cannot delete entity, must delete access keys first.");
        }
        self.all.commit(vec![kind.change(self.account(), name, None)]).await
    }

    pub(super) async fn delete_user(&self) -> Result<()> {
        self.delete(Kind::User, "iam:DeleteUser").await
    }

    pub(super) async fn delete_role(&self) -> Result<()> {
        self.delete(Kind::Role, "iam:DeleteRole").await
    }

    pub(super) async fn create_role(&self, out: &mut String) -> Result<()> {
        self.params.only(&["RoleName", "Path", "AssumeRolePolicyDocument", "Description", "MaxSessionDuration"])?;
        let trust = self.trust("AssumeRolePolicyDocument")?;
        let session_seconds_max = match self.params.get("MaxSessionDuration") {
            None => 3_600,
            Some(text) => text.parse().ok().filter(|s| (3_600..=43_200).contains(s)).ok_or_else(|| {
                IdentityError::new(ErrorKind::ValidationError, "MaxSessionDuration must be between 3600 and 43200")
            })?,
        };
        let row = HolderRow {
            id: format!("AROA{}", letters::<17>()?),
            path: self.path()?,
            created_unix_s: self.now_unix_s,
            policies: BTreeMap::new(),
            attached: Vec::new(),
            trust: Some(trust),
            description: self.params.get("Description").map(|text| text.chars().take(1_000).collect()),
            session_seconds_max: Some(session_seconds_max),
        };
        self.create(Kind::Role, row, out).await
    }

    fn trust(&self, parameter: &str) -> Result<String> {
        let text = self.params.need(parameter)?;
        Policy::parse(text, PolicyKind::Trust)
            .map_err(|error| IdentityError::new(ErrorKind::MalformedPolicyDocument, error.to_string()))?;
        Ok(text.to_owned())
    }

    pub(super) fn get_role(&self, out: &mut String) -> Result<()> {
        self.params.only(&["RoleName"])?;
        let name = self.name("RoleName")?;
        let role = self.allowed_holder(Kind::Role, name, "iam:GetRole")?;
        self.write(Kind::Role, name, &role.row, out);
        Ok(())
    }

    pub(super) fn list_roles(&self, out: &mut String) -> Result<()> {
        self.list(Kind::Role, "iam:ListRoles", "Roles", out)
    }

    pub(super) async fn update_trust(&self) -> Result<()> {
        self.params.only(&["RoleName", "PolicyDocument"])?;
        let name = self.name("RoleName")?;
        let trust = self.trust("PolicyDocument")?;
        let _changing = self.all.changing.lock().await;
        let role = self.allowed_holder(Kind::Role, name, "iam:UpdateAssumeRolePolicy")?;
        let row = HolderRow { trust: Some(trust), ..role.row.clone() };
        self.all.commit(vec![Kind::Role.change(self.account(), name, Some(row))]).await
    }
}
