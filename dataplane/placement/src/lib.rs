//! Where shards go: a pure function of a versioned cluster map
