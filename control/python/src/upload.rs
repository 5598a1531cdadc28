//! An upload in parts, for writers that don't have all bytes at once.

use std::sync::Mutex;

use penstock_client::{Part, PutOptions, UploadId};
use pyo3::prelude::*;

/// An upload that was begun: plain data, good in any process. Its parts are known to who has put them.
pub(crate) struct Begun {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) id: UploadId,
    pub(crate) options: PutOptions,
}

/// `Begun`, as Python holds it, with the parts that are there.
#[pyclass(frozen, module = "penstock")]
pub(crate) struct Upload {
    pub(crate) begun: std::sync::Arc<Begun>,
    pub(crate) parts: std::sync::Arc<Mutex<Vec<Part>>>,
}

/// The parts in the order of their numbers, the last of each number.
pub(crate) fn in_order(parts: &Mutex<Vec<Part>>) -> Vec<Part> {
    let mut parts = parts.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    parts.reverse();
    parts.sort_by_key(|part| part.number);
    parts.dedup_by_key(|part| part.number);
    parts
}
