//! Inline and attached policies of users and roles.

use penstock_policy::{Policy, PolicyKind};

use super::holders::Kind;
use super::{Call, Result, list_end};
use crate::directory::MANAGED;
use crate::error::{ErrorKind, IdentityError};
use crate::xml;

/// Most bytes of all inline policies of one user or role: they are in one row. (IAM: 2,048 of a user, 10,240 of a role.)
const INLINE_BYTES_MAX: usize = 40 << 10;
/// Most attached policies: IAM's.
const ATTACHED_MAX: usize = 10;

fn kind_of(action: &str) -> Kind {
    if action.contains("User") { Kind::User } else { Kind::Role }
}

impl Call<'_> {
    fn missing_policy(&self, name: &str) -> IdentityError {
        IdentityError::new(ErrorKind::NoSuchEntity, format!("The policy with name {name} cannot be found."))
    }

    pub(super) async fn put_policy(&self, action: &str) -> Result<()> {
        let kind = kind_of(action);
        self.params.only(&[kind.parameter(), "PolicyName", "PolicyDocument"])?;
        let (holder_name, name) = (self.name(kind.parameter())?, self.name("PolicyName")?);
        let text = self.params.need("PolicyDocument")?;
        Policy::parse(text, PolicyKind::Identity)
            .map_err(|error| IdentityError::new(ErrorKind::MalformedPolicyDocument, error.to_string()))?;
        let _changing = self.all.changing.lock().await;
        let holder = self.allowed_holder(kind, holder_name, &format!("iam:{action}"))?;
        let mut row = holder.row.clone();
        row.policies.insert(name.to_owned(), text.to_owned());
        if row.policies.values().map(String::len).sum::<usize>() > INLINE_BYTES_MAX {
            let why = format!("Maximum policy size of {INLINE_BYTES_MAX} bytes exceeded for {holder_name}");
            return Err(IdentityError::new(ErrorKind::LimitExceeded, why));
        }
        self.all.commit(vec![kind.change(self.account(), holder_name, Some(row))]).await
    }

    pub(super) fn get_policy(&self, action: &str, out: &mut String) -> Result<()> {
        let kind = kind_of(action);
        self.params.only(&[kind.parameter(), "PolicyName"])?;
        let (holder_name, name) = (self.name(kind.parameter())?, self.name("PolicyName")?);
        let holder = self.allowed_holder(kind, holder_name, &format!("iam:{action}"))?;
        let text = holder.row.policies.get(name).ok_or_else(|| self.missing_policy(name))?;
        xml::text(out, kind.parameter(), holder_name);
        xml::text(out, "PolicyName", name);
        xml::text(out, "PolicyDocument", &xml::url(text));
        Ok(())
    }

    pub(super) fn list_policies(&self, action: &str, out: &mut String) -> Result<()> {
        let kind = kind_of(action);
        self.params.only(&[kind.parameter(), "MaxItems", "Marker"])?;
        let holder = self.allowed_holder(kind, self.name(kind.parameter())?, &format!("iam:{action}"))?;
        let names: Vec<(String, ())> = holder.row.policies.keys().map(|name| (name.clone(), ())).collect();
        let (page, more) = self.page(&names)?;
        xml::element(out, "PolicyNames", |out| page.iter().for_each(|(name, ())| xml::text(out, "member", name)));
        list_end(out, page, more);
        Ok(())
    }

    pub(super) async fn delete_policy(&self, action: &str) -> Result<()> {
        let kind = kind_of(action);
        self.params.only(&[kind.parameter(), "PolicyName"])?;
        let (holder_name, name) = (self.name(kind.parameter())?, self.name("PolicyName")?);
        let _changing = self.all.changing.lock().await;
        let holder = self.allowed_holder(kind, holder_name, &format!("iam:{action}"))?;
        let mut row = holder.row.clone();
        row.policies.remove(name).ok_or_else(|| self.missing_policy(name))?;
        self.all.commit(vec![kind.change(self.account(), holder_name, Some(row))]).await
    }

    pub(super) async fn attach(&self, action: &str) -> Result<()> {
        let kind = kind_of(action);
        self.params.only(&[kind.parameter(), "PolicyArn"])?;
        let (holder_name, arn) = (self.name(kind.parameter())?, self.params.need("PolicyArn")?);
        let _changing = self.all.changing.lock().await;
        let holder = self.allowed_holder(kind, holder_name, &format!("iam:{action}"))?;
        let mut row = holder.row.clone();
        let at = row.attached.iter().position(|known| known == arn);
        if action.starts_with("Attach") {
            if !MANAGED.iter().any(|(known, _)| *known == arn) {
                let known: Vec<_> = MANAGED.iter().map(|(arn, _)| *arn).collect();
                let why = format!("Policy {arn} does not exist or is not attachable; there are {}", known.join(", "));
                return Err(IdentityError::new(ErrorKind::NoSuchEntity, why));
            }
            if at.is_none() {
                row.attached.push(arn.to_owned());
            }
            if row.attached.len() > ATTACHED_MAX {
                let why = format!("Cannot exceed quota for PoliciesPerUser: {ATTACHED_MAX}");
                return Err(IdentityError::new(ErrorKind::LimitExceeded, why));
            }
        } else {
            let why = || IdentityError::new(ErrorKind::NoSuchEntity, format!("Policy {arn} was not found."));
            row.attached.remove(at.ok_or_else(why)?);
        }
        self.all.commit(vec![kind.change(self.account(), holder_name, Some(row))]).await
    }

    pub(super) fn list_attached(&self, action: &str, out: &mut String) -> Result<()> {
        let kind = kind_of(action);
        self.params.only(&[kind.parameter(), "MaxItems", "Marker"])?;
        let holder = self.allowed_holder(kind, self.name(kind.parameter())?, &format!("iam:{action}"))?;
        let mut attached: Vec<(String, ())> = holder.row.attached.iter().map(|arn| (arn.clone(), ())).collect();
        attached.sort();
        let (page, more) = self.page(&attached)?;
        xml::element(out, "AttachedPolicies", |out| {
            for (arn, ()) in page {
                xml::element(out, "member", |out| {
                    xml::text(out, "PolicyName", arn.rsplit('/').next().unwrap_or(arn));
                    xml::text(out, "PolicyArn", arn);
                });
            }
        });
        list_end(out, page, more);
        Ok(())
    }
}
