//! Buckets: which there are, making and removing them.

use penstock_proto::limits;

use crate::client::{Client, Request};
use crate::error::ClientError;

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// When it was made (ISO 8601).
    pub created: String,
}

impl Client {
    /// The buckets of whoever asks.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_buckets(&self) -> Result<Vec<Bucket>, ClientError> {
        let request = Request { method: "GET", ..Request::default() };
        let (_, document) =
            self.bounded("ListBuckets", self.inner.document(&request, limits::XML_BODY_BYTES_MAX)).await?;
        let text = |bucket: &crate::xml::Element, name: &str| bucket.child_text(name).unwrap_or_default().to_owned();
        let buckets = document.all("Buckets").flat_map(|buckets| buckets.children.iter());
        Ok(buckets.map(|bucket| Bucket { name: text(bucket, "Name"), created: text(bucket, "CreationDate") }).collect())
    }

    /// Makes a bucket. One that is there already and is ours is no error.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_bucket(&self, bucket: &str) -> Result<(), ClientError> {
        let region = &self.inner.options.region;
        let document = format!(
            "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>{region}\
             </LocationConstraint></CreateBucketConfiguration>"
        );
        // AWS's first region is the one that must not be named.
        let body = if region == "us-east-1" { Vec::new() } else { vec![document.as_bytes()] };
        let request = Request { method: "PUT", bucket, body, ..Request::default() };
        match self.bucket_request("CreateBucket", &request).await {
            Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => Ok(()),
            outcome => outcome,
        }
    }

    /// Removes a bucket, which must be empty.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_bucket(&self, bucket: &str) -> Result<(), ClientError> {
        self.bucket_request("DeleteBucket", &Request { method: "DELETE", bucket, ..Request::default() }).await
    }

    /// Whether the bucket is there and may be looked into.
    ///
    /// # Errors
    /// [`ClientError`]: [`ClientError::NotFound`], [`ClientError::AccessDenied`].
    pub async fn head_bucket(&self, bucket: &str) -> Result<(), ClientError> {
        self.bucket_request("HeadBucket", &Request { method: "HEAD", bucket, ..Request::default() }).await
    }

    async fn bucket_request(&self, what: &str, request: &Request<'_>) -> Result<(), ClientError> {
        self.bounded(what, async {
            let answer = self.inner.send(request).await?;
            self.inner.whole(answer, limits::XML_BODY_BYTES_MAX).await.map(drop)
        })
        .await
    }
}
