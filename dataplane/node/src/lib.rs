//! The storage node: transport in front, store behind
