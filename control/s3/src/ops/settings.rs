//! Bucket configurations that are put, got and deleted as whole documents.
//!
//! To add one: its operations in `gate/tables.rs` (name, query keys, a line of `SUB_RESOURCES`), a [`Document`] that says
//! what of the body is kept and how it is answered, and a line each in [`super::run`].

use http::StatusCode;
use penstock_gateway::api::BucketSetting;

use super::Call;
use crate::failure::Failure;
use crate::respond::{self, Answer};
use crate::streams;

/// A kind of configuration document.
pub(super) struct Document {
    /// As what it is stored.
    pub(super) kind: BucketSetting,
    /// What is stored of a body that was sent, or what is wrong with it.
    pub(super) accept: fn(&[u8]) -> Result<Vec<u8>, Failure>,
    /// The answer's document for what was stored.
    pub(super) answer: fn(&[u8]) -> Result<String, Failure>,
    /// The answer when the bucket has none: AWS has a 404 for each, or a default.
    pub(super) absent: fn() -> Result<String, Failure>,
    /// The status of a successful put.
    pub(super) put_status: StatusCode,
}

impl Call {
    /// The body as a whole, verified against what the headers say of it.
    pub(super) async fn document(&mut self) -> Result<Vec<u8>, Failure> {
        let body = streams::small_body(std::mem::take(&mut self.body), &self.exchange).await?;
        self.verify_small_body(&body)?;
        Ok(body)
    }
}

pub(super) async fn get(call: Call, document: &Document) -> Result<Answer, Failure> {
    let stored = call.gateway().bucket_setting(&call.bucket(), document.kind).await?;
    let text = match stored {
        Some(stored) => (document.answer)(&stored)?,
        None => (document.absent)()?,
    };
    Ok(respond::xml(text))
}

pub(super) async fn put(mut call: Call, document: &Document) -> Result<Answer, Failure> {
    let stored = (document.accept)(&call.document().await?)?;
    call.gateway().put_bucket_setting(&call.bucket(), document.kind, &stored).await?;
    Ok(respond::empty(document.put_status))
}

pub(super) async fn delete(call: Call, document: &Document) -> Result<Answer, Failure> {
    delete_kind(call, document.kind).await
}

pub(super) async fn delete_kind(call: Call, kind: BucketSetting) -> Result<Answer, Failure> {
    call.gateway().delete_bucket_setting(&call.bucket(), kind).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// 500 for a stored document that this release can't read.
pub(crate) fn unreadable(error: impl std::fmt::Display) -> Failure {
    Failure::internal(format!("A stored bucket setting can't be read: {error}"))
}
