//! What is wrong with a policy document, and where.

/// A document that is refused. `element` is a path such as `Statement[2].Condition.StringEquals`, empty for the whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", if element.is_empty() { String::new() } else { format!("{element}: ") })]
pub struct PolicyError {
    /// Which element.
    pub element: String,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

impl PolicyError {
    pub(crate) fn new(element: impl Into<String>, message: impl Into<String>) -> Self {
        Self { element: element.into(), message: message.into() }
    }

    /// Never: the same document is refused again.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }
}
