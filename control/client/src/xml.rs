//! The little of S3's XML that a client reads and writes.

use quick_xml::Reader;
use quick_xml::escape::escape;
use quick_xml::events::Event;

/// An element and what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) children: Vec<Element>,
}

/// Deepest nesting that is read: S3's answers have four levels.
const DEPTH_MAX: usize = 16;

impl Element {
    /// The document's root.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(document: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(document).map_err(|_| "the XML is not UTF-8".to_owned())?;
        let mut reader = Reader::from_str(text);
        let mut open: Vec<Element> = vec![Element::default()];
        loop {
            match reader.read_event().map_err(|error| error.to_string())? {
                Event::Start(start) => {
                    if open.len() > DEPTH_MAX {
                        return Err("the XML is nested too deep".to_owned());
                    }
                    let name = start.local_name().as_ref().to_owned();
                    open.push(Element { name, ..Element::default() });
                }
                Event::Empty(start) => {
                    let name = start.local_name().as_ref().to_owned();
                    if let Some(parent) = open.last_mut() {
                        parent.children.push(Element { name, ..Element::default() });
                    }
                }
                Event::End(_) => {
                    let Some(element) = open.pop() else { return Err("the XML ends too often".to_owned()) };
                    match open.last_mut() {
                        Some(parent) => parent.children.push(element),
                        None => return Err("the XML ends too often".to_owned()),
                    }
                }
                Event::Text(piece) => {
                    if let Some(element) = open.last_mut() {
                        element.text.push_str(&piece);
                    }
                }
                Event::GeneralRef(name) => {
                    let text = entity(&name).ok_or_else(|| format!("the XML has the unknown entity {}", &*name))?;
                    if let Some(element) = open.last_mut() {
                        element.text.push(text);
                    }
                }
                Event::CData(data) => {
                    if let Some(element) = open.last_mut() {
                        element.text.push_str(&data);
                    }
                }
                Event::Eof => break,
                _ => {}
            }
        }
        match open.as_slice() {
            [root] if root.children.len() == 1 => Ok(root.children[0].clone()),
            _ => Err("the XML has no root, or no end".to_owned()),
        }
    }

    /// The text of the first child of this name.
    pub(crate) fn child_text(&self, name: &str) -> Option<&str> {
        self.children.iter().find(|child| child.name == name).map(|child| child.text.as_str())
    }

    /// The children of this name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

fn entity(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let digits = name.strip_prefix('#')?;
            let number = match digits.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => digits.parse().ok()?,
            };
            char::from_u32(number)
        }
    }
}

/// The body of CompleteMultipartUpload: parts by number, ETag and CRC64NVME (base64).
pub(crate) fn complete_upload(parts: &[(u32, String, Option<String>)]) -> String {
    let mut out = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (number, etag, crc64) in parts {
        out.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag>", escape(etag.as_str())));
        if let Some(crc64) = crc64 {
            out.push_str(&format!("<ChecksumCRC64NVME>{crc64}</ChecksumCRC64NVME>"));
        }
        out.push_str("</Part>");
    }
    out.push_str("</CompleteMultipartUpload>");
    out
}

/// The body of DeleteObjects: keys, each with a version perhaps.
pub(crate) fn delete_objects<'a>(keys: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let mut out = String::from("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>");
    for (key, version_id) in keys {
        out.push_str(&format!("<Object><Key>{}</Key>", escape(key)));
        if let Some(version_id) = version_id {
            out.push_str(&format!("<VersionId>{}</VersionId>", escape(version_id)));
        }
        out.push_str("</Object>");
    }
    out.push_str("</Delete>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read() {
        let document =
            b"<?xml version=\"1.0\"?>\n<R xmlns=\"u\"><A>x &amp; &#65;&#x42;</A><B/><C><A>1</A></C><C><A>2</A></C></R>";
        let root = Element::parse(document).unwrap();
        assert_eq!((root.name.as_str(), root.child_text("A")), ("R", Some("x & AB")));
        assert_eq!(root.child_text("B"), Some(""));
        assert_eq!(root.all("C").filter_map(|c| c.child_text("A")).collect::<Vec<_>>(), ["1", "2"]);
        for bad in [&b""[..], b"<A>", b"<A></B>", b"text", b"<A/><B/>", b"\xff", &b"<A>".repeat(40)] {
            assert!(Element::parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
