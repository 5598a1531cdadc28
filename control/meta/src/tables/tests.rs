//! The tables on the mem engine, with and without injected faults, against models small enough to read.

mod send;
