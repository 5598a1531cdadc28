//! The schema: buckets, objects, versions and uploads as rows of the [`crate::kv`] store.
