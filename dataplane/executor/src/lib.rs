//! Stripe reads and writes: encode, fan-out, quorum, any k of n, verify
