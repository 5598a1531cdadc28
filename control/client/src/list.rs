//! Listings, as a stream.

use std::collections::VecDeque;

use futures::Stream;
use futures::stream::try_unfold;
use penstock_proto::limits;
use percent_encoding::percent_decode_str;

use crate::client::{Client, Request};
use crate::error::ClientError;

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Only keys that start so.
    pub prefix: String,
    /// Keys are rolled up to the first of these after the prefix.
    pub delimiter: String,
    /// Only keys after this one.
    pub start_after: String,
    /// Most entries of one page; 0: as many as the server gives, a thousand with S3. For paging by hand, and tests.
    pub page_entries: usize,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// In the order of the keys.
    pub entries: Vec<ListEntry>,
    /// By which the next page is asked for; `None` at the end.
    pub next: Option<String>,
}

/// One key, or one common prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListEntry {
    /// An object.
    Object {
        /// Its key.
        key: String,
        /// Its size.
        size_bytes: u64,
        /// Its ETag, without quotes.
        etag: String,
        /// When it became visible (ISO 8601).
        last_modified: String,
        /// Its storage class; empty when the server does not say.
        storage_class: String,
    },
    /// Keys that start so, rolled up.
    Prefix(String),
}

struct State {
    client: Client,
    bucket: String,
    options: ListOptions,
    page: VecDeque<ListEntry>,
    token: Option<String>,
    ended: bool,
}

/// Longest page: a thousand keys of a kilobyte, percent-encoded, with what is about them.
const PAGE_BYTES_MAX: usize = 16 << 20;

impl Client {
    /// The objects of a bucket, in the order of their keys, fetched page by page as they are taken.
    pub fn list(
        &self,
        bucket: &str,
        options: ListOptions,
    ) -> impl Stream<Item = Result<ListEntry, ClientError>> + Send + use<> {
        let (client, bucket) = (self.clone(), bucket.to_owned());
        let state = State { client, bucket, options, page: VecDeque::new(), token: None, ended: false };
        Box::pin(try_unfold(state, |mut state| async move {
            loop {
                if let Some(entry) = state.page.pop_front() {
                    return Ok(Some((entry, state)));
                }
                if state.ended {
                    return Ok(None);
                }
                state.fetch().await?;
            }
        }))
    }
}

impl State {
    async fn fetch(&mut self) -> Result<(), ClientError> {
        let page = self.client.list_page(&self.bucket, &self.options, self.token.as_deref()).await?;
        self.ended = page.next.is_none();
        self.page = page.entries.into();
        self.token = page.next;
        Ok(())
    }
}

impl Client {
    /// One page of a listing: the first, or what `token` of the page before leads to.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_page(
        &self,
        bucket: &str,
        options: &ListOptions,
        token: Option<&str>,
    ) -> Result<ListPage, ClientError> {
        let inner = &*self.inner;
        let mut query = vec![("list-type", "2".to_owned()), ("encoding-type", "url".to_owned())];
        let optional =
            [("prefix", &options.prefix), ("delimiter", &options.delimiter), ("start-after", &options.start_after)];
        query.extend(
            optional.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.clone())),
        );
        query.extend(token.map(|token| ("continuation-token", token.to_owned())));
        let most = if options.page_entries == 0 { limits::LIST_KEYS_MAX } else { options.page_entries };
        query.push(("max-keys", most.min(limits::LIST_KEYS_MAX).to_string()));
        let request = Request { method: "GET", bucket, query, ..Request::default() };
        let (_, document) = self.bounded("a page of a listing", inner.document(&request, PAGE_BYTES_MAX)).await?;
        let encoded = document.child_text("EncodingType") == Some("url");
        let name = |text: &str| if encoded { decoded(text) } else { text.to_owned() };
        let mut page: Vec<(String, ListEntry)> = Vec::new();
        for object in document.all("Contents") {
            let text = |name: &str| object.child_text(name).unwrap_or_default();
            let key = name(text("Key"));
            let size_bytes = text("Size").parse().map_err(|_| inner.protocol("a listing whose Size is no number"))?;
            let entry = ListEntry::Object {
                key: key.clone(),
                size_bytes,
                etag: text("ETag").trim_matches('"').to_owned(),
                last_modified: text("LastModified").to_owned(),
                storage_class: text("StorageClass").to_owned(),
            };
            page.push((key, entry));
        }
        for prefix in document.all("CommonPrefixes") {
            let prefix = name(prefix.child_text("Prefix").unwrap_or_default());
            page.push((prefix.clone(), ListEntry::Prefix(prefix)));
        }
        page.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
        let more = document.child_text("IsTruncated") == Some("true");
        let next = document.child_text("NextContinuationToken").filter(|_| more).map(str::to_owned);
        if more && next.is_none() {
            return Err(inner.protocol("a listing that goes on and does not say where"));
        }
        Ok(ListPage { entries: page.into_iter().map(|(_, entry)| entry).collect(), next })
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}
