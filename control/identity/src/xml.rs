//! XML of IAM's and STS's answers.

use time::OffsetDateTime;
use time::macros::format_description;

/// `<name>text</name>`.
pub(crate) fn text(out: &mut String, name: &str, text: &str) {
    out.push_str(&format!("<{name}>"));
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() && c != '\n' && c != '\t' => out.push_str(&format!("&#x{:x};", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push_str(&format!("</{name}>"));
}

/// `<name>content</name>`.
pub(crate) fn element(out: &mut String, name: &str, content: impl FnOnce(&mut String)) {
    out.push_str(&format!("<{name}>"));
    content(out);
    out.push_str(&format!("</{name}>"));
}

/// `2026-01-31T12:00:00Z`.
pub(crate) fn date(unix_s: u64) -> String {
    let moment = i64::try_from(unix_s).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    moment.unwrap_or(OffsetDateTime::UNIX_EPOCH).format(&format).unwrap_or_default()
}

/// Percent-encoded as IAM returns policy documents (RFC 3986).
pub(crate) fn url(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
