//! What `penstock admin status|repair|drain|scrub` asks: calls of the same kind as IAM's, for the store's own account, that
//! the gateway answers. Their answers are JSON within the document.
//!
//! | action | parameters | permission |
//! |---|---|---|
//! | PenstockStatus | | penstock:Status |
//! | PenstockRepair | | penstock:Repair |
//! | PenstockDrainNode | Node, Draining (true or false) | penstock:DrainNode |
//! | PenstockScrub | Node (optional), BytesPerSecond | penstock:Scrub |

use penstock_gateway::error::ErrorKind as GatewayErrorKind;
use penstock_identity::{ErrorKind, IdentityError, Params, Principal};
use penstock_policy::{Context, Request, evaluate};
use penstock_proto::NodeId;

use crate::server::Front;

/// What scrubs that are asked for read a second, unless the call says otherwise.
const SCRUB_BYTES_PER_S: u64 = 256 << 20;

fn error(kind: ErrorKind, message: impl Into<String>) -> IdentityError {
    IdentityError { kind, message: message.into() }
}

fn invalid(message: impl Into<String>) -> IdentityError {
    error(ErrorKind::ValidationError, message)
}

fn of_gateway(failure: penstock_gateway::error::Error) -> IdentityError {
    let kind = match failure.kind {
        GatewayErrorKind::InvalidArgument => ErrorKind::ValidationError,
        _ => ErrorKind::Internal,
    };
    error(kind, failure.message)
}

fn allow(front: &Front, caller: &Principal, context: &Context, action: &str) -> Result<(), IdentityError> {
    if caller.account_id() != front.identities.root_account_id() {
        return Err(error(ErrorKind::AccessDenied, "Only the store's own account sees to the store."));
    }
    let request = Request { caller: caller.caller(), action, resource: "*", context, bucket: None, object: None };
    if evaluate(&request).allowed {
        return Ok(());
    }
    let arn = caller.caller_arn();
    Err(error(ErrorKind::AccessDenied, format!("User: {arn} is not authorized to perform: {action} on resource: *")))
}

fn node(params: &Params) -> Result<Option<NodeId>, IdentityError> {
    let Some(text) = params.get("Node") else { return Ok(None) };
    let number = text.strip_prefix("node-").unwrap_or(text).parse();
    number.map(|number| Some(NodeId(number))).map_err(|_| invalid(format!("{text:?} is no node: write its number")))
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
    let allow = |permission| allow(front, caller, context, permission);
    let gateway = &front.gateway;
    let outcome = async {
        match action {
            "PenstockStatus" => {
                params.only(&[])?;
                allow("penstock:Status")?;
            }
            "PenstockRepair" => {
                params.only(&[])?;
                allow("penstock:Repair")?;
                gateway.ask_for_survey();
            }
            "PenstockDrainNode" => {
                params.only(&["Node", "Draining"])?;
                allow("penstock:DrainNode")?;
                let node = node(params)?.ok_or_else(|| invalid("Node says which node to drain"))?;
                let draining = match params.get("Draining") {
                    None | Some("true") => true,
                    Some("false") => false,
                    Some(other) => return Err(invalid(format!("Draining is true or false, not {other:?}"))),
                };
                gateway.drain_node(node, draining).await.map_err(of_gateway)?;
            }
            _ => {
                params.only(&["Node", "BytesPerSecond"])?;
                allow("penstock:Scrub")?;
                let bytes_per_s = match params.get("BytesPerSecond") {
                    None => SCRUB_BYTES_PER_S,
                    Some(text) => text
                        .parse()
                        .ok()
                        .filter(|bytes| *bytes > 0)
                        .ok_or_else(|| invalid(format!("BytesPerSecond is a number above 0, not {text:?}")))?,
                };
                gateway.scrub_now(node(params)?, bytes_per_s).await.map_err(of_gateway)?;
            }
        }
        let report = gateway.upkeep_report();
        serde_json::to_string(&report).map_err(|problem| error(ErrorKind::Internal, problem.to_string()))
    };
    if !["PenstockStatus", "PenstockRepair", "PenstockDrainNode", "PenstockScrub"].contains(&action) {
        return None;
    }
    Some(outcome.await.map(|json| {
        let json = json.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        format!(
            "<{action}Response xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><{action}Result><Json>{json}</Json>\
             </{action}Result><ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
        )
    }))
}
