//! Buckets, objects, uploads: rows over one ordered transactional key-value trait
