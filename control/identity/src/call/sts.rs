//! STS: who am I, and temporary credentials.

use penstock_policy::{IDENTITY_POLICY_BYTES_MAX, Policy, PolicyKind, PrincipalArn, role_can_be_assumed};

use super::{Call, Result};
use crate::directory::full_name;
use crate::error::{ErrorKind, IdentityError};
use crate::principal::Who;
use crate::seal::random;
use crate::session::{Session, Subject, TEMPORARY_PREFIX};
use crate::xml;

/// Bounds of sessions, in seconds: STS's.
const SESSION_TOKEN_S: std::ops::RangeInclusive<u64> = 900..=129_600;
const SESSION_TOKEN_DEFAULT_S: u64 = 43_200;
/// Root's sessions are no longer than an hour.
const ROOT_SESSION_S_MAX: u64 = 3_600;
const ASSUMED_ROLE_S_MIN: u64 = 900;
const ASSUMED_ROLE_DEFAULT_S: u64 = 3_600;

/// Random letters and digits of base 32: five bits each.
pub(super) fn letters<const N: usize>() -> Result<String> {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    Ok(random::<N>()?.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect())
}

impl Call<'_> {
    pub(super) fn get_caller_identity(&self, out: &mut String) -> Result<()> {
        self.params.only(&[])?;
        xml::text(out, "Arn", &self.caller.caller_arn().to_string());
        xml::text(out, "UserId", &self.caller.user_id);
        xml::text(out, "Account", self.account());
        Ok(())
    }

    /// `DurationSeconds` within bounds.
    fn duration(&self, default_s: u64, bounds: std::ops::RangeInclusive<u64>) -> Result<u64> {
        let Some(text) = self.params.get("DurationSeconds") else { return Ok(default_s.min(*bounds.end())) };
        text.parse().ok().filter(|seconds| bounds.contains(seconds)).ok_or_else(|| {
            let (low, high) = (bounds.start(), bounds.end());
            IdentityError::new(
                ErrorKind::ValidationError,
                format!("The requested DurationSeconds must be between {low} and {high}, this is {text:?}"),
            )
        })
    }

    pub(super) fn get_session_token(&self, out: &mut String) -> Result<()> {
        self.params.only(&["DurationSeconds"])?;
        let (subject, seconds) = match &self.caller.who {
            _ if self.caller.issued_unix_s.is_some() => {
                let why = "Cannot call GetSessionToken with session credentials";
                return Err(IdentityError::new(ErrorKind::AccessDenied, why));
            }
            Who::Root => {
                // STS shortens root's sessions instead of refusing them.
                let asked = self.duration(ROOT_SESSION_S_MAX, SESSION_TOKEN_S)?;
                (Subject::Root, asked.min(ROOT_SESSION_S_MAX))
            }
            Who::User(name, _) => {
                let subject = Subject::User { name: name.clone(), id: self.caller.user_id.clone() };
                (subject, self.duration(SESSION_TOKEN_DEFAULT_S, SESSION_TOKEN_S)?)
            }
            Who::Role(..) => return Err(IdentityError::new(ErrorKind::AccessDenied, "a role's session has no user")),
        };
        self.issue(self.account(), subject, seconds, None, out)
    }

    pub(super) fn assume_role(&self, out: &mut String) -> Result<()> {
        self.params.only(&["RoleArn", "RoleSessionName", "DurationSeconds", "Policy", "ExternalId"])?;
        let arn_text = self.params.need("RoleArn")?;
        let session_name = self.name("RoleSessionName")?;
        if session_name.len() < 2 {
            return Err(IdentityError::new(ErrorKind::ValidationError, "RoleSessionName has 2 to 64 characters"));
        }
        if self.caller.who == Who::Root {
            let why = "Roles may not be assumed by root accounts.";
            return Err(IdentityError::new(ErrorKind::AccessDenied, why));
        }
        let Some(PrincipalArn::Role(account, full)) = PrincipalArn::parse(arn_text) else {
            return Err(IdentityError::new(ErrorKind::ValidationError, format!("{arn_text} is invalid")));
        };
        // Whether the role is not there or does not trust the caller is not the caller's business.
        let denied = || {
            IdentityError::new(
                ErrorKind::AccessDenied,
                format!(
                    "User: {} is not authorized to perform: sts:AssumeRole on resource: {arn_text}",
                    self.caller.caller_arn()
                ),
            )
        };
        let name = full.rsplit('/').next().unwrap_or(&full).to_owned();
        let view = self.all.view();
        let role = view.roles.get(&(account.clone(), name.clone())).ok_or_else(denied)?;
        let trust = role.trust.as_ref().ok_or_else(denied)?;
        let mut context = self.context.clone();
        context.set_some("sts:ExternalId", self.params.get("ExternalId")).set("sts:RoleSessionName", session_name);
        if full_name(&role.row.path, &name) != full
            || !role_can_be_assumed(trust, &account, arn_text, self.caller.caller(), &context)
        {
            return Err(denied());
        }
        // A session of a session lives an hour at most: role chaining.
        let most = match self.caller.issued_unix_s {
            Some(_) => 3_600,
            None => u64::from(role.row.session_seconds_max.unwrap_or(3_600)),
        };
        let seconds = self.duration(ASSUMED_ROLE_DEFAULT_S, ASSUMED_ROLE_S_MIN..=most)?;
        let policy = self.params.get("Policy");
        if let Some(text) = policy {
            if text.len() > 2048.min(IDENTITY_POLICY_BYTES_MAX) {
                let why = "The session policy has more than 2048 characters";
                return Err(IdentityError::new(ErrorKind::ValidationError, why));
            }
            Policy::parse(text, PolicyKind::Session)
                .map_err(|error| IdentityError::new(ErrorKind::MalformedPolicyDocument, error.to_string()))?;
        }
        let id = role.row.id.clone();
        let subject = Subject::Role { name: name.clone(), id: id.clone(), session: session_name.to_owned() };
        self.issue(&account, subject, seconds, policy, out)?;
        xml::element(out, "AssumedRoleUser", |out| {
            xml::text(out, "AssumedRoleId", &format!("{id}:{session_name}"));
            xml::text(out, "Arn", &PrincipalArn::Session(account, name, session_name.to_owned()).to_string());
        });
        Ok(())
    }

    fn issue(
        &self,
        account: &str,
        subject: Subject,
        seconds: u64,
        policy: Option<&str>,
        out: &mut String,
    ) -> Result<()> {
        let access_key = format!("{TEMPORARY_PREFIX}{}", letters::<16>()?);
        let session = Session {
            access_key: access_key.clone(),
            account: account.to_owned(),
            issued_unix_s: self.now_unix_s,
            expires_unix_s: self.now_unix_s + seconds,
            subject,
            policy: policy.map(str::to_owned),
        };
        let token = session.token(&self.all.tokens)?;
        xml::element(out, "Credentials", |out| {
            xml::text(out, "AccessKeyId", &access_key);
            xml::text(out, "SecretAccessKey", self.all.deriver.secret_of(&access_key).expose());
            xml::text(out, "SessionToken", &token);
            xml::text(out, "Expiration", &xml::date(session.expires_unix_s));
        });
        Ok(())
    }
}
