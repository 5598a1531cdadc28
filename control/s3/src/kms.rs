//! Named encryption keys, for administrators: calls of the query protocol, beside those of IAM (`penstock admin kms`).
//!
//! They are the store's, not an account's: only its own account sees to them, by the actions `kms:CreateKey`,
//! `kms:ListKeys`, `kms:EnableKey`, `kms:DisableKey` and `kms:RotateKeyOnDemand`. No call shows key material.

use penstock_gateway::encryption::{KeyInfo, KeyName, VaultError};
use penstock_identity::{ErrorKind, IdentityError, Params, Principal};
use penstock_policy::{Context, Request, evaluate};

use crate::server::Front;
use crate::wire;
use crate::xml::Xml;

const NAME: &str = "KeyName";

/// The action of IAM's that a call is, and whether it names a key.
fn known(action: &str) -> Option<(&'static str, bool)> {
    Some(match action {
        "PenstockCreateKmsKey" => ("kms:CreateKey", true),
        "PenstockListKmsKeys" => ("kms:ListKeys", false),
        "PenstockEnableKmsKey" => ("kms:EnableKey", true),
        "PenstockDisableKmsKey" => ("kms:DisableKey", true),
        "PenstockRotateKmsKey" => ("kms:RotateKeyOnDemand", true),
        _ => return None,
    })
}

/// Performs the call, if it is one of these.
///
/// # Errors
/// IAM's kinds.
pub(crate) async fn call(
    front: &Front,
    caller: &Principal,
    params: &Params,
    context: &Context,
    now_unix_s: u64,
    request_id: &str,
) -> Option<Result<String, IdentityError>> {
    let action = params.get("Action")?;
    let (needed, named) = known(action)?;
    Some(perform(front, caller, params, context, (action, needed, named), now_unix_s, request_id).await)
}

fn error(kind: ErrorKind, message: impl Into<String>) -> IdentityError {
    IdentityError { kind, message: message.into() }
}

fn of_vault(failed: VaultError) -> IdentityError {
    let kind = match &failed {
        VaultError::NoSuchKey(_) => ErrorKind::NoSuchEntity,
        VaultError::KeyExists(_) => ErrorKind::EntityAlreadyExists,
        VaultError::TooMany(_) => ErrorKind::LimitExceeded,
        VaultError::BadName(_) => ErrorKind::ValidationError,
        _ => ErrorKind::Internal,
    };
    error(kind, failed.to_string())
}

async fn perform(
    front: &Front,
    caller: &Principal,
    params: &Params,
    context: &Context,
    (action, needed, named): (&str, &'static str, bool),
    now_unix_s: u64,
    request_id: &str,
) -> Result<String, IdentityError> {
    params.only(if named { &[NAME] } else { &["MaxItems"] })?;
    let resource = match params.get(NAME) {
        Some(name) => format!("arn:aws:kms:{}:{}:key/{name}", front.options.region, caller.account_id()),
        None => "*".to_owned(),
    };
    if caller.account_id() != front.identities.root_account_id() {
        return Err(error(ErrorKind::AccessDenied, "Only the store's own account sees to encryption keys."));
    }
    let request =
        Request { caller: caller.caller(), action: needed, resource: &resource, context, bucket: None, object: None };
    if !evaluate(&request).allowed {
        let message =
            format!("User: {} is not authorized to perform: {needed} on resource: {resource}", caller.caller_arn());
        return Err(error(ErrorKind::AccessDenied, message));
    }
    let keys = front.gateway.key_store().map_err(|failed| error(ErrorKind::Internal, failed.message))?;
    let name = match params.get(NAME) {
        Some(text) => Some(KeyName::parse(text).map_err(of_vault)?),
        None if named => {
            let message = format!("The request must contain the parameter {NAME}.");
            return Err(error(ErrorKind::MissingParameter, message));
        }
        None => None,
    };
    let done = match (needed, &name) {
        ("kms:CreateKey", Some(name)) => vec![keys.create(name, now_unix_s * 1000).await.map_err(of_vault)?],
        ("kms:EnableKey", Some(name)) => vec![keys.set_enabled(name, true).await.map_err(of_vault)?],
        ("kms:DisableKey", Some(name)) => vec![keys.set_enabled(name, false).await.map_err(of_vault)?],
        ("kms:RotateKeyOnDemand", Some(name)) => vec![keys.rotate(name).await.map_err(of_vault)?],
        _ => keys.list().await.map_err(of_vault)?,
    };
    tracing::info!(action, key = name.as_ref().map(KeyName::as_str), by = %caller.caller_arn(), "encryption keys");
    Ok(document(action, &done, request_id))
}

fn document(action: &str, keys: &[KeyInfo], request_id: &str) -> String {
    Xml::bare_document("PenstockKmsResponse", |xml| {
        xml.element(&format!("{action}Result"), |xml| {
            for key in keys {
                xml.element("Key", |xml| {
                    xml.text(NAME, &key.name);
                    xml.value("Status", if key.enabled { "Enabled" } else { "Disabled" });
                    xml.value("Versions", key.versions);
                    xml.value("CreateDate", wire::format_iso_date(key.created_unix_ms));
                });
            }
        });
        xml.element("ResponseMetadata", |xml| xml.text("RequestId", request_id));
    })
}
