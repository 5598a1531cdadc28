//! The native dialect, `penstock-native-1` (`docs/protocol/native.md`): GetObject answered with a plan instead of payload,
//! PutObject and UploadPart in two halves, plan and commit, with the payload between client and nodes in between.
//!
//! Never a 0-byte object: a request that carries any header of the dialect does what the dialect says, or fails.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use penstock_gateway::plan::{Declined, PlanFailure, PlanPut, PlannedGet};

use super::Call;
use super::multipart::part_answer;
use super::object::{put_answer, read_answer, read_failure};
use crate::failure::Failure;
use crate::gate::Op;
use crate::respond::{self, Answer, AnswerBody};
use crate::streams;
use crate::wire;

/// The value of `x-amz-rdma-protocol`.
const PROTOCOL: &str = "penstock-native-1";
const PROTOCOL_HEADER: HeaderName = HeaderName::from_static("x-amz-rdma-protocol");
const PLAN_HEADER: HeaderName = HeaderName::from_static("x-amz-rdma-plan");
const REPLY_HEADER: HeaderName = HeaderName::from_static("x-amz-rdma-reply");
const DECLINE_HEADER: HeaderName = HeaderName::from_static("x-amz-rdma-decline");
const OBJECT_BYTES: &str = "x-amz-rdma-object-bytes";

/// What a request of the dialect is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Get,
    Put,
    Commit,
}

impl Call {
    fn wish(&self, op: Op) -> Result<Option<Wish>, Failure> {
        let Some(plan) = self.header(PLAN_HEADER.as_str())? else {
            if self.headers.contains_key(OBJECT_BYTES) {
                return Err(Failure::request(format!("{OBJECT_BYTES} needs x-amz-rdma-plan: put.")));
            }
            return Ok(None);
        };
        if self.header(PROTOCOL_HEADER.as_str())? != Some(PROTOCOL) {
            return Err(Failure::request(format!("x-amz-rdma-plan needs x-amz-rdma-protocol: {PROTOCOL}.")));
        }
        self.check_signed()?;
        let reads = matches!(op, Op::GetObject);
        match plan.to_ascii_lowercase().as_str() {
            "get" if reads => Ok(Some(Wish::Get)),
            "put" if !reads => Ok(Some(Wish::Put)),
            "commit" if !reads => Ok(Some(Wish::Commit)),
            other => {
                let message = format!("{} has no plan of this kind.", op.name());
                Err(Failure::argument(PLAN_HEADER.as_str(), other, message))
            }
        }
    }

    /// Every header of the dialect must be under the signature, or somebody on the way could turn one request into another.
    fn check_signed(&self) -> Result<(), Failure> {
        let authorization = self.headers.get("authorization").and_then(wire::utf8).unwrap_or_default();
        let in_header =
            authorization.split_once("SignedHeaders=").map(|(_, rest)| rest.split(',').next().unwrap_or(rest));
        let signed = in_header.or(self.query.get("X-Amz-SignedHeaders")).unwrap_or_default();
        let unsigned = |name: &&HeaderName| {
            name.as_str().starts_with("x-amz-rdma-") && !signed.split(';').any(|signed| signed.trim() == name.as_str())
        };
        match self.headers.keys().find(unsigned) {
            Some(name) => Err(Failure::access_denied(format!("The header {name} must be signed."))),
            None => Ok(()),
        }
    }

    fn plan_put(&self) -> Result<PlanPut, Failure> {
        let part = self.part_number().map(|number| (self.text("uploadId"), number));
        let whole = part.is_none();
        Ok(PlanPut {
            access_key: self.access_key.clone(),
            bucket: self.bucket(),
            key: self.key(),
            headers: if whole { self.object_headers()? } else { Default::default() },
            storage_class: self.storage_class()?,
            conditions: if whole { self.write_conditions()? } else { Default::default() },
            digests: self.digests()?,
            tags: if whole { self.tags()? } else { Default::default() },
            lock: if whole { self.lock()? } else { Default::default() },
            encrypted: if whole { self.encryption()?.is_some() } else { self.customer_key()?.is_some() },
            part,
        })
    }
}

/// Says that we speak the dialect, to those who do.
pub(super) fn echo(asked: &HeaderMap, answer: &mut HeaderMap) {
    if asked.contains_key(PROTOCOL_HEADER) {
        answer.insert(PROTOCOL_HEADER, HeaderValue::from_static(PROTOCOL));
    }
}

/// The request, or the answer when it was one of the dialect.
///
/// # Errors
/// What is wrong with it.
pub(super) async fn take(op: Op, mut call: Call) -> Result<Result<Answer, Box<Call>>, Failure> {
    let Some(wish) = call.wish(op)? else { return Ok(Err(Box::new(call))) };
    let mut answer = match wish {
        Wish::Get => get(&call).await,
        Wish::Put => put(&call).await,
        Wish::Commit => {
            let body = std::mem::take(&mut call.body);
            let commit = streams::small_body(body, &call.exchange).await?;
            self::commit(&call, commit).await
        }
    }?;
    echo(&call.headers, answer.headers_mut());
    Ok(Ok(answer))
}

async fn get(call: &Call) -> Result<Answer, Failure> {
    if call.headers.contains_key("if-range") {
        return Err(Failure::header_not_implemented("if-range"));
    }
    let request = call.read_request()?;
    let PlannedGet { read, plan } = match call.gateway().plan_get(request.clone()).await {
        Ok(planned) => planned,
        Err(error) => return Err(read_failure(call, request, error).await),
    };
    let size_bytes = read.info.size_bytes;
    let mut answer = read_answer(call, request.part_number, read)?;
    let status = answer.status();
    let headers = answer.headers_mut();
    match plan {
        Ok(plan) => {
            headers.insert(PLAN_HEADER, HeaderValue::from_static("get"));
            headers.insert(REPLY_HEADER, HeaderValue::from(status.as_u16()));
            headers.insert(HeaderName::from_static(OBJECT_BYTES), HeaderValue::from(size_bytes));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(plan.len()));
            *answer.body_mut() = AnswerBody::Whole(plan.into());
        }
        Err(reason) => {
            headers.insert(PLAN_HEADER, HeaderValue::from_static("declined"));
            headers.insert(REPLY_HEADER, HeaderValue::from_static("501"));
            headers.insert(DECLINE_HEADER, HeaderValue::from_static(reason.reason()));
        }
    }
    Ok(answer)
}

async fn put(call: &Call) -> Result<Answer, Failure> {
    if call.content_bytes()? != Some(0) {
        return Err(Failure::request("A request for a plan has no body: send the payload to the nodes, then commit."));
    }
    let text = call.header(OBJECT_BYTES)?.unwrap_or_default();
    let size_bytes = wire::number(text)
        .ok_or_else(|| Failure::argument(OBJECT_BYTES, text, "The number of bytes to be stored is needed."))?;
    match call.gateway().plan_put(call.plan_put()?, size_bytes).await? {
        Ok(plan) => {
            let mut answer = respond::empty(StatusCode::OK);
            answer.headers_mut().insert(PLAN_HEADER, HeaderValue::from_static("put"));
            *answer.body_mut() = AnswerBody::Whole(Bytes::from(plan));
            Ok(answer)
        }
        Err(reason) => Err(declined(reason)),
    }
}

/// Nobody takes this for a PUT that succeeded: the client sends the body.
fn declined(reason: Declined) -> Failure {
    let message = match reason {
        Declined::Small => "So small a body is sent with the request.",
        Declined::NoAddresses => "The storage nodes can't be reached by clients; send the body with the request.",
        Declined::Encrypted => "What is to be encrypted is sent with the request: the gateway encrypts it.",
        Declined::Digest => "This digest can't be verified by plan; send the body with the request.",
        Declined::Packed => "The body is to be packed with others; send it with the request.",
    };
    let mut failure = Failure::new(StatusCode::NOT_IMPLEMENTED, "RDMANotSupported", message);
    failure.headers.push((PROTOCOL_HEADER, HeaderValue::from_static(PROTOCOL)));
    failure.headers.push((PLAN_HEADER, HeaderValue::from_static("declined")));
    failure.headers.push((REPLY_HEADER, HeaderValue::from_static("501")));
    failure.headers.push((DECLINE_HEADER, HeaderValue::from_static(reason.reason())));
    failure
}

async fn commit(call: &Call, commit: Vec<u8>) -> Result<Answer, Failure> {
    let request = call.plan_put()?;
    let outcome = match request.part {
        None => call.gateway().commit_planned_object(request, commit).await.map(|done| put_answer(call, &done)),
        Some(_) => call.gateway().commit_planned_part(request, commit).await.map(|done| part_answer(call, &done)),
    };
    let mut answer = outcome.map_err(|failure| match failure {
        PlanFailure::Refused(message) => Failure::access_denied(message),
        PlanFailure::Failed(error) => error.into(),
    })?;
    answer.headers_mut().insert(PLAN_HEADER, HeaderValue::from_static("committed"));
    Ok(answer)
}
