//! Headers in and out: one value each, ASCII, trimmed.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::WireError;

/// The value of `name`, if it is there. An empty value counts as absent.
pub(crate) fn optional<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, WireError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(WireError::malformed(name, "given more than once"));
    }
    let text = value.to_str().map_err(|_| WireError::malformed(name, "not ASCII text"))?.trim();
    Ok((!text.is_empty()).then_some(text))
}

/// The value of `name`.
pub(crate) fn required<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h str, WireError> {
    optional(headers, name)?.ok_or(WireError::malformed(name, "missing"))
}

/// Sets `name`. Values are ours: ASCII without control characters, or the header is left out.
pub(crate) fn set(headers: &mut HeaderMap, name: &'static str, value: impl Into<String>) {
    if let Ok(value) = HeaderValue::try_from(value.into()) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
