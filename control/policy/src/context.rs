//! What is known of a request: condition keys and their values.

/// Condition keys and their values. Keys are compared without case, as AWS does; a key may have several values (tag keys).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context(Vec<(String, Vec<String>)>);

impl Context {
    /// Nothing known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The one value of `key`, in place of what it had.
    pub fn set(&mut self, key: &str, value: impl Into<String>) -> &mut Self {
        self.set_all(key, vec![value.into()])
    }

    /// All values of `key`, in place of what it had. An empty list is a key that is there and has no value.
    pub fn set_all(&mut self, key: &str, values: Vec<String>) -> &mut Self {
        match self.0.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(key)) {
            Some((_, known)) => *known = values,
            None => self.0.push((key.to_owned(), values)),
        }
        self
    }

    /// Sets `key` if there is a value.
    pub fn set_some(&mut self, key: &str, value: Option<impl Into<String>>) -> &mut Self {
        match value {
            Some(value) => self.set(key, value),
            None => self,
        }
    }

    /// The values of `key`; none when the request does not have it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[String]> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(key)).map(|(_, values)| values.as_slice())
    }

    /// The value of a policy variable: keys with one value alone have one.
    pub(crate) fn variable(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            [value] => Some(value),
            _ => None,
        }
    }
}
