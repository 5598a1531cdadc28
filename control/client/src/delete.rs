//! Deletes, one by one and by the thousand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, stream};
use penstock_digest::Md5Hasher;
use penstock_proto::limits;

use crate::client::{Client, Request, name_of};
use crate::error::{ClientError, Refusal};
use crate::xml::{Element, delete_objects};

/// What is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteKey {
    /// The object.
    pub key: String,
    /// This version for good, instead of the current one.
    pub version_id: Option<String>,
}

/// What came of one key.
#[derive(Debug)]
pub struct DeleteOutcome {
    /// Which.
    pub key: String,
    /// Whether it is gone. To delete what is not there is no error.
    pub outcome: Result<(), ClientError>,
}

impl From<&str> for DeleteKey {
    fn from(key: &str) -> Self {
        Self { key: key.to_owned(), version_id: None }
    }
}

impl From<String> for DeleteKey {
    fn from(key: String) -> Self {
        Self { key, version_id: None }
    }
}

impl Client {
    /// Deletes the object. To delete what is not there is no error.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), ClientError> {
        self.delete_version(bucket, key, None).await
    }

    /// Deletes the object, or a version of it for good.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_version(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Result<(), ClientError> {
        let query = version_id.iter().map(|id| ("versionId", (*id).to_owned())).collect();
        let request = Request { method: "DELETE", bucket, key, query, ..Request::default() };
        self.bounded("a DELETE", async {
            let answer = self.inner.send(&request).await?;
            self.inner.whole(answer, limits::XML_BODY_BYTES_MAX).await.map(drop)
        })
        .await
    }

    /// Deletes many objects, a thousand a request, [`crate::ClientOptions::parallel_max`] requests at a time. Outcomes in the order
    /// of `keys`.
    ///
    /// # Errors
    /// [`ClientError`] of a request as a whole; what was deleted by others stays so.
    pub async fn delete_many(&self, bucket: &str, keys: &[DeleteKey]) -> Result<Vec<DeleteOutcome>, ClientError> {
        let requests: Vec<_> = keys.chunks(limits::LIST_KEYS_MAX).map(|keys| self.delete_batch(bucket, keys)).collect();
        let mut batches = stream::iter(requests).buffered(self.inner.options.parallel_max.max(1));
        let mut outcomes = Vec::with_capacity(keys.len());
        while let Some(batch) = batches.next().await {
            outcomes.extend(batch?);
        }
        Ok(outcomes)
    }

    async fn delete_batch(&self, bucket: &str, keys: &[DeleteKey]) -> Result<Vec<DeleteOutcome>, ClientError> {
        let document = delete_objects(keys.iter().map(|key| (key.key.as_str(), key.version_id.as_deref())));
        // The one digest that every server takes here.
        let md5 = STANDARD.encode(Md5Hasher::of(document.as_bytes()));
        let headers = vec![("content-md5", md5), ("content-type", "application/xml".to_owned())];
        let query = vec![("delete", String::new())];
        let body = vec![document.as_bytes()];
        let request = Request { method: "POST", bucket, query, headers, body, ..Request::default() };
        let (_, answer) =
            self.bounded("DeleteObjects", self.inner.document(&request, limits::XML_BODY_BYTES_MAX)).await?;
        let errors: Vec<&Element> = answer.all("Error").collect();
        let outcome = |key: &DeleteKey| {
            let of_it = |error: &&&Element| {
                error.child_text("Key") == Some(&key.key)
                    && key
                        .version_id
                        .as_deref()
                        .is_none_or(|id| error.child_text("VersionId").is_none_or(|it| it == id))
            };
            let outcome = match errors.iter().find(of_it) {
                None => Ok(()),
                Some(error) => {
                    let text = |name: &str| error.child_text(name).unwrap_or_default().to_owned();
                    let (code, message) = (text("Code"), text("Message"));
                    let status = if code == "AccessDenied" { 403 } else { 500 };
                    let request = format!("DELETE {}", name_of(bucket, &key.key));
                    Err(ClientError::refused(Refusal { status, code, message, request, request_id: String::new() }))
                }
            };
            DeleteOutcome { key: key.key.clone(), outcome }
        };
        Ok(keys.iter().map(outcome).collect())
    }
}
