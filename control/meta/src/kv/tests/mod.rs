//! Tests of the key-value layer.

mod send;
