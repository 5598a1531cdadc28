//! RenameObject.

use http::StatusCode;
use penstock_gateway::api::{ObjectName, RenameObject};
use percent_encoding::percent_decode_str;

use super::Call;
use crate::failure::Failure;
use crate::respond::{self, Answer};

const SOURCE: &str = "x-amz-rename-source";

impl Call {
    /// What is renamed, where something is.
    ///
    /// # Errors
    /// InvalidArgument.
    pub(super) fn rename_source(&self) -> Result<Option<ObjectName>, Failure> {
        let Some(text) = self.header(SOURCE)? else { return Ok(None) };
        let key = parse_source(text, &self.bucket())?;
        Ok(Some(ObjectName { bucket: self.bucket(), key, version_id: None }))
    }
}

/// The key in `[/][bucket/]key`, percent-encoded. What begins with the bucket's name names the bucket.
fn parse_source(text: &str, bucket: &str) -> Result<String, Failure> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| Failure::argument(SOURCE, text, "The rename source is not valid UTF-8."))?;
    let path = decoded.strip_prefix('/').unwrap_or(&decoded);
    let key = path.strip_prefix(bucket).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path);
    if key.is_empty() {
        return Err(Failure::argument(SOURCE, text, "The rename source is /bucket/key, or /key, percent-encoded."));
    }
    Ok(key.to_owned())
}

pub(super) async fn object(call: Call) -> Result<Answer, Failure> {
    let Some(source) = call.rename_source()? else {
        return Err(Failure::argument(SOURCE, "", "RenameObject needs the header x-amz-rename-source."));
    };
    let request = RenameObject {
        bucket: call.bucket(),
        source: source.key,
        key: call.key(),
        conditions: call.conditions("")?,
        source_conditions: call.conditions("x-amz-rename-source-")?,
        token: call.header("x-amz-client-token")?.map(str::to_owned),
    };
    call.gateway().rename_object(request).await?;
    Ok(respond::empty(StatusCode::OK))
}

#[cfg(test)]
mod tests {
    use super::parse_source;

    #[test]
    fn sources() {
        for (text, want) in [
            ("b/k", Some("k")),
            ("/b/k", Some("k")),
            ("/k", Some("k")),
            ("k", Some("k")),
            ("/b/b/k", Some("b/k")),
            ("other/k", Some("other/k")),
            ("b%2Fa%20c+d", Some("a c+d")),
            ("/", None),
            ("", None),
            ("b/", None),
            ("/%ff", None),
        ] {
            assert_eq!(parse_source(text, "b").ok().as_deref(), want, "{text}");
        }
    }
}
