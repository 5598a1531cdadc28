//! A small XML writer.
//!
//! s3s has one too, but it turns a listing whose keys hold control characters into a 500; S3 keys may hold any character.
//! AWS writes those as character references (`&#x1;`), which strict XML 1.0 parsers refuse and lenient ones take; clients that
//! want to be safe ask for `encoding-type=url`. So do we.

use std::fmt::Write as _;

/// The name space of S3's answers.
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// The declaration that AWS begins with.
pub(crate) const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// A document being written. Elements are closed by the closures that write their content, so it is always well-formed.
#[derive(Default)]
pub(crate) struct Xml(String);

impl Xml {
    /// A document of one root element in S3's name space.
    pub(crate) fn document(root: &'static str, content: impl FnOnce(&mut Self)) -> String {
        let mut xml = Self(String::with_capacity(512));
        xml.0.push_str(DECLARATION);
        let _ = write!(xml.0, "<{root} xmlns=\"{NAMESPACE}\">");
        content(&mut xml);
        xml.close(root);
        xml.0
    }

    /// A document whose root has no name space: errors are so.
    pub(crate) fn bare_document(root: &'static str, content: impl FnOnce(&mut Self)) -> String {
        let mut xml = Self(String::with_capacity(512));
        xml.0.push_str(DECLARATION);
        xml.element(root, content);
        xml.0
    }

    /// `<name>content</name>`.
    pub(crate) fn element(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        let _ = write!(self.0, "<{name}>");
        content(self);
        self.close(name);
    }

    /// `<name>text</name>`.
    pub(crate) fn text(&mut self, name: &str, text: &str) {
        self.element(name, |xml| xml.raw_text(text));
    }

    /// `<Grantee>` of an account.
    pub(crate) fn grantee(&mut self, id: &str, name: &str) {
        self.0.push_str("<Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\">");
        self.text("ID", id);
        self.text("DisplayName", name);
        self.close("Grantee");
    }

    /// `<name>number</name>`, or any other value whose text needs no escapes.
    pub(crate) fn value(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = write!(self.0, "<{name}>{value}</{name}>");
    }

    /// Escaped text in the current element.
    pub(crate) fn raw_text(&mut self, text: &str) {
        // Nearly every key is so, and a listing has thousands.
        let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'&' | b'<' | b'>' | b'"');
        if text.bytes().all(plain) {
            self.0.push_str(text);
            return;
        }
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                // Carriage returns are references too: a parser would make line feeds of them.
                '\n' | '\t' => self.0.push(c),
                c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                    let _ = write!(self.0, "&#x{:x};", u32::from(c));
                }
                c => self.0.push(c),
            }
        }
    }

    fn close(&mut self, name: &str) {
        let _ = write!(self.0, "</{name}>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_control_characters_become_references() {
        let document = Xml::bare_document("Error", |xml| {
            xml.text("Key", "a<b>&\"c\"\u{1}\r\n\u{7f}ü");
            xml.value("Size", 7);
        });
        let want = "<Error><Key>a&lt;b&gt;&amp;&quot;c&quot;&#x1;&#xd;\n&#x7f;ü</Key><Size>7</Size></Error>";
        assert_eq!(document.strip_prefix(DECLARATION), Some(want));
    }
}
