//! Operations that may take longer than a client waits for a head: copies and completions.
//!
//! S3's way: when the answer takes long, 200 and an XML declaration are sent, then a space now and then, then the document,
//! which is an error document when it failed after all. SDKs know that these operations can fail so. What is answered
//! within [`HEAD_WAIT`] is answered plainly.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::Call;
use crate::failure::Failure;
use crate::respond::{self, Answer, AnswerBody};
use crate::xml::DECLARATION;

/// How long the answer's head waits for the operation. Well under the shortest read timeout of the SDKs (60 s).
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// How often a space is sent after that.
const SPACE_EVERY: Duration = Duration::from_secs(5);

/// Answers with the document that `work` makes, before it is there if need be.
pub(super) async fn document(
    call: &Call,
    resource: String,
    mut work: BoxFuture<'static, Result<String, Failure>>,
) -> Result<Answer, Failure> {
    if let Ok(done) = tokio::time::timeout(HEAD_WAIT, work.as_mut()).await {
        return done.map(respond::xml);
    }
    let exchange = call.exchange.clone();
    let waiting = futures::stream::unfold(Some(work), move |work| {
        let (exchange, resource) = (exchange.clone(), resource.clone());
        async move {
            let mut work = work?;
            let Ok(done) = tokio::time::timeout(SPACE_EVERY, work.as_mut()).await else {
                return Some((Bytes::from_static(b" "), Some(work)));
            };
            let document = done.unwrap_or_else(|failure| {
                tracing::warn!(request_id = exchange.id, code = %failure.code, "failed after 200 was sent");
                respond::error_document(&failure, &resource, &exchange)
            });
            let rest = document.strip_prefix(DECLARATION).unwrap_or(&document);
            Some((Bytes::copy_from_slice(rest.as_bytes()), None))
        }
    });
    let declaration = futures::stream::once(async { Bytes::from_static(DECLARATION.as_bytes()) });
    let mut answer = Answer::new(AnswerBody::Growing(Box::pin(declaration.chain(waiting))));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    Ok(answer)
}
