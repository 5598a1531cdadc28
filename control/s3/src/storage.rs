//! What `penstock admin storage-policy` asks: calls of the same kind as IAM's, for the store's own account, that the gateway
//! answers.
//!
//! | action | parameters | permission |
//! |---|---|---|
//! | PenstockListStoragePolicies | Bucket, Class (both optional) | penstock:ListStoragePolicies |
//! | PenstockSetStoragePolicy | Class, Code, Bucket (optional) | penstock:SetStoragePolicy |
//! | PenstockDeleteStoragePolicy | Class, Bucket (optional) | penstock:SetStoragePolicy |

use std::fmt::Write as _;

use penstock_gateway::error::ErrorKind as GatewayErrorKind;
use penstock_gateway::policies::PolicySource;
use penstock_identity::{ErrorKind, IdentityError, Params, Principal};
use penstock_policy::{Context, Request, evaluate};
use penstock_proto::Code;

use crate::server::Front;

fn error(kind: ErrorKind, message: impl Into<String>) -> IdentityError {
    IdentityError { kind, message: message.into() }
}

fn of_gateway(failure: penstock_gateway::error::Error) -> IdentityError {
    let kind = match failure.kind {
        GatewayErrorKind::NoSuchBucket => ErrorKind::NoSuchEntity,
        GatewayErrorKind::InvalidArgument | GatewayErrorKind::InvalidRequest => ErrorKind::ValidationError,
        GatewayErrorKind::SlowDown => ErrorKind::Throttling,
        _ => ErrorKind::Internal,
    };
    error(kind, failure.message)
}

fn allow(front: &Front, caller: &Principal, context: &Context, action: &str) -> Result<(), IdentityError> {
    if caller.account_id() != front.identities.root_account_id() {
        return Err(error(ErrorKind::AccessDenied, "Only the store's own account sees to storage policies."));
    }
    let request = Request { caller: caller.caller(), action, resource: "*", context, bucket: None, object: None };
    if evaluate(&request).allowed {
        return Ok(());
    }
    let arn = caller.caller_arn();
    Err(error(ErrorKind::AccessDenied, format!("User: {arn} is not authorized to perform: {action} on resource: *")))
}

async fn list(front: &Front, params: &Params) -> Result<String, IdentityError> {
    params.only(&["Bucket", "Class"])?;
    let policies = front.gateway.storage_policies(params.get("Bucket")).await.map_err(of_gateway)?;
    let mut out = String::new();
    let mut found = false;
    for policy in policies {
        if params.get("Class").is_some_and(|class| class != policy.class) {
            continue;
        }
        found = true;
        let source = match policy.source {
            PolicySource::Configuration => "configuration",
            PolicySource::Store => "store",
            PolicySource::Bucket => "bucket",
        };
        // A code's name and a class's have no characters that XML minds.
        let (class, code) = (&policy.class, policy.code);
        let _ = write!(
            out,
            "<member><Class>{class}</Class><Code>{code}</Code><Nodes>{}</Nodes><LossesSurvived>{}</LossesSurvived>\
             <Source>{source}</Source></member>",
            code.n(),
            code.losses_survived()
        );
    }
    match params.get("Class") {
        Some(class) if !found => Err(error(ErrorKind::NoSuchEntity, format!("{class} has no storage policy."))),
        _ => Ok(out),
    }
}

async fn set(front: &Front, params: &Params, delete: bool) -> Result<String, IdentityError> {
    params.only(if delete { &["Bucket", "Class"] } else { &["Bucket", "Class", "Code"] })?;
    let code = match delete {
        true => None,
        false => {
            let code = params.need("Code")?.parse::<Code>();
            Some(code.map_err(|bad| error(ErrorKind::ValidationError, bad.to_string()))?)
        }
    };
    let (bucket, class) = (params.get("Bucket"), params.need("Class")?);
    front.gateway.set_storage_policy(bucket, class, code).await.map_err(of_gateway)?;
    Ok(String::new())
}

/// Performs a call of these, if it is one. The document.
pub(crate) async fn perform(
    front: &Front,
    caller: &Principal,
    params: &Params,
    context: &Context,
    request_id: &str,
) -> Option<Result<String, IdentityError>> {
    let action = params.get("Action")?;
    let done = match action {
        "PenstockListStoragePolicies" => match allow(front, caller, context, "penstock:ListStoragePolicies") {
            Ok(()) => list(front, params).await,
            Err(denied) => Err(denied),
        },
        "PenstockSetStoragePolicy" | "PenstockDeleteStoragePolicy" => {
            match allow(front, caller, context, "penstock:SetStoragePolicy") {
                Ok(()) => set(front, params, action == "PenstockDeleteStoragePolicy").await,
                Err(denied) => Err(denied),
            }
        }
        _ => return None,
    };
    Some(done.map(|out| {
        format!(
            "<{action}Response xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><{action}Result>{out}</{action}Result>\
             <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
        )
    }))
}
