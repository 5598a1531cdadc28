//! S3 operations as metadata transactions, placement and stripe plans
