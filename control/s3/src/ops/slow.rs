//! Operations that may take longer than a client waits for a head: copies and completions.
//!
//! S3's way: when the answer takes long, 200 and an XML declaration are sent, then a space now and then, then the document,
//! which is an error document when it failed after all. SDKs know that these operations can fail so. What is answered
//! within [`HEAD_WAIT`] is answered plainly.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use penstock_gateway::events;

use super::{set, set_version};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::respond::{self, Answer, AnswerBody};
use crate::xml::DECLARATION;

/// How long the answer's head waits for the operation. Well under the shortest read timeout of the SDKs (60 s).
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// How often a space is sent after that.
const SPACE_EVERY: Duration = Duration::from_secs(5);

/// `x-amz-version-id` and `x-amz-copy-source-version-id`, where there are any to tell.
pub(super) fn version_headers(version_id: Option<&str>, source_version_id: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    set_version(&mut headers, version_id);
    if let Some(id) = source_version_id {
        set(&mut headers, respond::name("x-amz-copy-source-version-id"), id);
    }
    headers
}

/// Answers with the document that `work` makes, before it is there if need be (its headers are lost then).
pub(super) async fn document(
    exchange: Arc<Exchange>,
    resource: String,
    work: BoxFuture<'static, Result<(String, HeaderMap), Failure>>,
) -> Result<Answer, Failure> {
    // What is done after the head was sent is still this request's doing.
    let mut work = Box::pin(events::caused(events::cause(), work));
    if let Ok(done) = tokio::time::timeout(HEAD_WAIT, work.as_mut()).await {
        let (document, headers) = done?;
        let mut answer = respond::xml(document);
        answer.headers_mut().extend(headers);
        return Ok(answer);
    }
    let waiting = futures::stream::unfold(Some(work), move |work| {
        let (exchange, resource) = (exchange.clone(), resource.clone());
        async move {
            let mut work = work?;
            let Ok(done) = tokio::time::timeout(SPACE_EVERY, work.as_mut()).await else {
                return Some((Bytes::from_static(b" "), Some(work)));
            };
            let document = done.map(|(document, _too_late)| document).unwrap_or_else(|failure| {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent for work that takes so long.
    async fn sent(seconds: u64, result: Result<String, Failure>) -> Result<Vec<String>, Failure> {
        let work = async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            result.map(|document| (document, HeaderMap::new()))
        };
        match document(Exchange::new(), "/b/k".to_owned(), Box::pin(work)).await?.into_body() {
            AnswerBody::Whole(bytes) => Ok(vec![String::from_utf8(bytes.to_vec()).unwrap()]),
            AnswerBody::Growing(stream) => {
                Ok(stream.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).collect().await)
            }
            AnswerBody::Object(..) => panic!("a document is no object"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_one_document_all_the_same() {
        let good = || Ok(format!("{DECLARATION}<Done></Done>"));
        assert_eq!(sent(9, good()).await.unwrap(), [good().unwrap()]);
        let pieces = sent(22, good()).await.unwrap();
        assert_eq!(pieces, [DECLARATION, " ", " ", "<Done></Done>"]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_a_status_early_and_a_document_late() {
        let bad = || Err(Failure::malformed_xml());
        assert_eq!(sent(9, bad()).await.unwrap_err().status, 400);
        let pieces = sent(11, bad()).await.unwrap();
        assert_eq!(pieces[0], DECLARATION);
        let document = pieces.last().unwrap();
        assert!(
            document.starts_with("<Error><Code>MalformedXML</Code>") && document.contains("<Resource>/b/k</Resource>")
        );
    }
}
