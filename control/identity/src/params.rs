//! The parameters of a query call: `Action=CreateUser&UserName=jane&Version=2010-05-08`.

use crate::error::{ErrorKind, IdentityError};

/// Most parameters of one call.
const PARAMETERS_MAX: usize = 128;

/// Parameters, decoded, each once.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Reads a form body.
    ///
    /// # Errors
    /// ValidationError for what is no form.
    pub fn parse(body: &str) -> Result<Self, IdentityError> {
        let invalid = |why: &str| IdentityError::new(ErrorKind::ValidationError, why);
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in body.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = decode(key).zip(decode(value));
            let (key, value) = decoded.ok_or_else(|| invalid("the body is not form-encoded UTF-8"))?;
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(invalid("a parameter may be given only once"));
            }
            if pairs.len() == PARAMETERS_MAX {
                return Err(invalid("too many parameters"));
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    /// A parameter's value; none when it is absent or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    ///
    /// # Errors
    /// MissingParameter.
    pub fn need(&self, name: &str) -> Result<&str, IdentityError> {
        self.get(name).ok_or_else(|| {
            let message = format!("The request must contain the parameter {name}.");
            IdentityError::new(ErrorKind::MissingParameter, message)
        })
    }

    /// Refuses parameters that the call does not know: what is not understood must not seem to be heeded.
    ///
    /// # Errors
    /// ValidationError that names the stranger.
    pub fn only(&self, known: &[&str]) -> Result<(), IdentityError> {
        let common = ["Action", "Version"];
        let stranger = self.0.iter().find(|(key, _)| {
            let base = key.split(".member.").next().unwrap_or(key);
            !common.contains(&key.as_str()) && !known.contains(&key.as_str()) && !known.contains(&base)
        });
        match stranger {
            None => Ok(()),
            Some((key, _)) => Err(IdentityError::new(
                ErrorKind::ValidationError,
                format!("the parameter {key} of this action is not implemented"),
            )),
        }
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (hex(rest.next()?)?, hex(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
