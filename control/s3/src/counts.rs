//! How many requests were answered, by operation and class of status: a few hundred counts, whatever clients do.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Requests answered since the start.
#[derive(Debug, Default)]
pub struct RequestCounts(Mutex<BTreeMap<(&'static str, u16), u64>>);

impl RequestCounts {
    /// One more, of an operation (`-` for requests that are none) with this status.
    pub fn count(&self, operation: &'static str, status: u16) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((operation, status / 100)).or_default() += 1;
    }

    /// All counts: operation, and 2 for 2xx.
    pub fn read(&self) -> Vec<((&'static str, u16), u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(place, count)| (*place, *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_operation_and_class() {
        let counts = RequestCounts::default();
        for status in [200, 206, 404] {
            counts.count("GetObject", status);
        }
        counts.count("-", 501);
        assert_eq!(counts.read(), [(("-", 5), 1), (("GetObject", 2), 2), (("GetObject", 4), 1)]);
    }
}
