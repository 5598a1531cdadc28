//! The calls of IAM and STS that there are, by AWS's query protocol: `Action` and parameters in, XML out. Names, limits,
//! errors and answers are those of the IAM and STS API references. An action or a parameter that is not here is refused by
//! name.

mod accounts;
mod holders;
mod keys;
mod policies;
mod sts;

use penstock_policy::{Context, Request, evaluate};

use crate::directory::Identities;
use crate::error::{ErrorKind, IdentityError};
use crate::params::Params;
use crate::principal::Principal;
use crate::xml;

type Result<T> = std::result::Result<T, IdentityError>;

/// Which service's answers look how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Users, roles, keys, policies.
    Iam,
    /// Temporary credentials.
    Sts,
}

impl Service {
    const fn namespace(self) -> &'static str {
        match self {
            Self::Iam => "https://iam.amazonaws.com/doc/2010-05-08/",
            Self::Sts => "https://sts.amazonaws.com/doc/2011-06-15/",
        }
    }
}

/// An answer: the document, and what of it the log may say.
#[derive(Debug)]
pub struct Answered {
    /// XML. It may hold a new secret: it is sent and never logged.
    pub document: String,
}

/// One call.
struct Call<'a> {
    all: &'a Identities,
    caller: &'a Principal,
    params: &'a Params,
    context: &'a Context,
    now_unix_s: u64,
}

/// Most characters of a name.
const NAME_CHARS_MAX: usize = 64;

impl Call<'_> {
    /// Whether the caller may do this.
    fn allow(&self, action: &str, resource: &str) -> Result<()> {
        let request = Request {
            caller: self.caller.caller(),
            action,
            resource,
            context: self.context,
            bucket: None,
            object: None,
        };
        if evaluate(&request).allowed {
            return Ok(());
        }
        Err(IdentityError::new(
            ErrorKind::AccessDenied,
            format!(
                "User: {} is not authorized to perform: {action} on resource: {resource}",
                self.caller.caller_arn()
            ),
        ))
    }

    fn account(&self) -> &str {
        self.caller.account_id()
    }

    /// A name as IAM has them: letters, digits and `+=,.@_-`.
    fn name(&self, parameter: &str) -> Result<&str> {
        let name = self.params.need(parameter)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
        if name.len() <= NAME_CHARS_MAX && name.bytes().all(allowed) {
            return Ok(name);
        }
        Err(IdentityError::new(
            ErrorKind::ValidationError,
            format!(
                "The specified value for {parameter} is invalid. It must contain only alphanumeric characters and/or the \
                 following: +=,.@_- and have at most {NAME_CHARS_MAX} characters"
            ),
        ))
    }

    /// A page of what is listed: `MaxItems` and `Marker`.
    fn page<'l, T>(&self, all: &'l [(String, T)]) -> Result<(&'l [(String, T)], bool)> {
        let max =
            match self.params.get("MaxItems") {
                None => 100,
                Some(text) => text.parse().ok().filter(|max| (1..=1000).contains(max)).ok_or_else(|| {
                    IdentityError::new(ErrorKind::ValidationError, "MaxItems must be between 1 and 1000")
                })?,
            };
        let from = match self.params.get("Marker") {
            None => 0,
            Some(marker) => all.partition_point(|(name, _)| name.as_str() <= marker),
        };
        let end = (from + max).min(all.len());
        Ok((&all[from..end], end < all.len()))
    }
}

/// The end of a list's answer.
fn list_end<T>(out: &mut String, page: &[(String, T)], more: bool) {
    xml::text(out, "IsTruncated", if more { "true" } else { "false" });
    if let (true, Some((last, _))) = (more, page.last()) {
        xml::text(out, "Marker", last);
    }
}

impl Identities {
    /// Performs a call. `context` has the condition keys of the request and the caller.
    ///
    /// # Errors
    /// AWS's.
    pub async fn call(
        &self,
        caller: &Principal,
        params: &Params,
        context: &Context,
        now_unix_s: u64,
        request_id: &str,
    ) -> Result<Answered> {
        let action = params.need("Action")?;
        let call = Call { all: self, caller, params, context, now_unix_s };
        let mut out = String::new();
        let service = match action {
            "GetCallerIdentity" | "GetSessionToken" | "AssumeRole" => Service::Sts,
            _ => Service::Iam,
        };
        match action {
            "GetCallerIdentity" => call.get_caller_identity(&mut out)?,
            "GetSessionToken" => call.get_session_token(&mut out)?,
            "AssumeRole" => call.assume_role(&mut out)?,
            "CreateUser" => call.create_user(&mut out).await?,
            "GetUser" => call.get_user(&mut out)?,
            "ListUsers" => call.list_users(&mut out)?,
            "DeleteUser" => call.delete_user().await?,
            "CreateRole" => call.create_role(&mut out).await?,
            "GetRole" => call.get_role(&mut out)?,
            "ListRoles" => call.list_roles(&mut out)?,
            "DeleteRole" => call.delete_role().await?,
            "UpdateAssumeRolePolicy" => call.update_trust().await?,
            "CreateAccessKey" => call.create_access_key(&mut out).await?,
            "ListAccessKeys" => call.list_access_keys(&mut out)?,
            "UpdateAccessKey" => call.update_access_key().await?,
            "DeleteAccessKey" => call.delete_access_key().await?,
            "PutUserPolicy" | "PutRolePolicy" => call.put_policy(action).await?,
            "GetUserPolicy" | "GetRolePolicy" => call.get_policy(action, &mut out)?,
            "ListUserPolicies" | "ListRolePolicies" => call.list_policies(action, &mut out)?,
            "DeleteUserPolicy" | "DeleteRolePolicy" => call.delete_policy(action).await?,
            "AttachUserPolicy" | "AttachRolePolicy" | "DetachUserPolicy" | "DetachRolePolicy" => {
                call.attach(action).await?;
            }
            "ListAttachedUserPolicies" | "ListAttachedRolePolicies" => call.list_attached(action, &mut out)?,
            "PenstockCreateAccount" => call.create_account(&mut out).await?,
            "PenstockListAccounts" => call.list_accounts(&mut out)?,
            "PenstockDeleteAccount" => call.delete_account().await?,
            other => {
                return Err(IdentityError::new(
                    ErrorKind::InvalidAction,
                    format!("Could not find operation {other}: it is not one of those that are implemented here"),
                ));
            }
        }
        let mut document = format!("<{action}Response xmlns=\"{}\">", service.namespace());
        if !out.is_empty() {
            xml::element(&mut document, &format!("{action}Result"), |document| document.push_str(&out));
        }
        xml::element(&mut document, "ResponseMetadata", |document| xml::text(document, "RequestId", request_id));
        document.push_str(&format!("</{action}Response>"));
        Ok(Answered { document })
    }
}

impl IdentityError {
    /// The error document of IAM and STS.
    #[must_use]
    pub fn document(&self, request_id: &str) -> String {
        let mut out = String::from("<ErrorResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\">");
        xml::element(&mut out, "Error", |out| {
            xml::text(out, "Type", if self.status() >= 500 { "Receiver" } else { "Sender" });
            xml::text(out, "Code", self.code());
            xml::text(out, "Message", &self.message);
        });
        xml::text(&mut out, "RequestId", request_id);
        out.push_str("</ErrorResponse>");
        out
    }
}
