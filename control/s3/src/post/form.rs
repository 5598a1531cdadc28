//! The form of an upload: its fields, and then its file as a stream. What comes after the file is not read.

use std::fmt;

use futures::StreamExt;
use futures::stream::BoxStream;
use multer::Multipart;

use crate::failure::Failure;

/// Most bytes of all fields before the file, their names included: AWS's limit.
const FIELDS_BYTES_MAX: usize = 20 << 10;
/// Most fields before the file.
const FIELDS_MAX: usize = 200;

/// Fields by name in lower case, each once.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pairs: Vec<(String, String)>,
    bytes: usize,
}

impl Fields {
    /// The value of a field, by its name in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Adds a field.
    ///
    /// # Errors
    /// InvalidArgument for one that is there already, MaxPostPreDataLengthExceeded past the limits.
    pub(super) fn add(&mut self, name: &str, value: String) -> Result<(), Failure> {
        let name = name.to_ascii_lowercase();
        self.bytes += name.len() + value.len();
        if self.bytes > FIELDS_BYTES_MAX || self.pairs.len() == FIELDS_MAX {
            return Err(Failure::bad(
                "MaxPostPreDataLengthExceeded",
                "Your POST request fields preceding the upload file were too large.",
            ));
        }
        if self.get(&name).is_some() {
            return Err(Failure::argument(&name, &value, format!("The form field {name} was given more than once.")));
        }
        self.pairs.push((name, value));
        Ok(())
    }
}

/// A form, read up to its file.
pub(super) struct Form {
    pub(super) fields: Fields,
    pub(super) file: multer::Field<'static>,
    /// The last part of the file's name; `key` may refer to it.
    pub(super) file_name: String,
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Form").field("fields", &self.fields.pairs.len()).finish()
    }
}

/// 400: not a form.
pub(super) fn malformed() -> Failure {
    Failure::bad("MalformedPOSTRequest", "The body of your POST request is not well-formed multipart/form-data.")
}

/// Reads the fields.
///
/// # Errors
/// What is wrong with the form.
pub(super) async fn read(
    content_type: &str,
    body: BoxStream<'static, Result<bytes::Bytes, std::io::Error>>,
) -> Result<Form, Failure> {
    let boundary = multer::parse_boundary(content_type).map_err(|_| malformed())?;
    let mut parts = Multipart::new(body, boundary);
    let mut fields = Fields::default();
    loop {
        let Some(mut part) = parts.next_field().await.map_err(|_| malformed())? else {
            return Err(Failure::argument("file", "", "POST requires exactly one file upload per request."));
        };
        let Some(name) = part.name().map(str::to_owned) else { return Err(malformed()) };
        if name.eq_ignore_ascii_case("file") {
            let file_name = part.file_name().unwrap_or_default();
            // Some browsers send a whole path.
            let file_name = file_name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
            return Ok(Form { fields, file: part, file_name });
        }
        let mut value = Vec::new();
        while let Some(bytes) = part.next().await {
            value.extend_from_slice(&bytes.map_err(|_| malformed())?);
            if value.len() > FIELDS_BYTES_MAX {
                // Noticed here, so that a field without end is not read to it.
                return fields.add(&name, String::from_utf8_lossy(&value).into_owned()).and(Err(malformed()));
            }
        }
        let value = String::from_utf8(value).map_err(|_| malformed())?;
        fields.add(&name, value)?;
    }
}
