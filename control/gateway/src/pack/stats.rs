//! What packing did, counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Counts since the gateway's start. Its `Display` is for people: one line.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct PackStats {
            $($(#[$doc])* pub $name: u64,)+
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counts {
            $(pub(crate) $name: AtomicU64,)+
        }

        impl Counts {
            pub(crate) fn read(&self) -> PackStats {
                PackStats { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }

        impl PackStats {
            /// Every count with its name, for metrics.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

counts! {
    /// Objects that were packed.
    objects_packed,
    /// Their bytes.
    packed_bytes,
    /// Batches written and committed.
    batches_written,
    /// Batches that were written without all of their copies.
    batches_lacking_copies,
    /// Batches that failed, with all of their members.
    batches_failed,
    /// Batches that had to be written to another extent.
    batches_tried_again,
    /// Extents opened.
    extents_opened,
    /// Extents sealed, those of gateways that died included.
    extents_sealed,
    /// Extents encoded, verified and swapped.
    extents_encoded,
    /// Bytes of those.
    encoded_bytes,
    /// Encodings that were given up: they are tried again.
    encodings_failed,
    /// Extents that were emptied because most of them was dead.
    extents_compacted,
    /// Objects moved out of those.
    objects_moved,
    /// Objects that were replaced or deleted while they were moved.
    moves_lost,
    /// Objects that could not be moved now.
    moves_failed,
    /// Empty extents dropped.
    extents_dropped,
    /// Reads of packed objects.
    reads,
    /// Reads whose bytes had not the object's checksum, and that were done again from checked shards.
    reads_mismatched,
}

impl Counts {
    pub(crate) fn add(count: &AtomicU64, n: u64) {
        count.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn one(count: &AtomicU64) {
        Self::add(count, 1);
    }
}

impl fmt::Display for PackStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packing:")?;
        for (i, (name, count)) in self.all().into_iter().enumerate() {
            write!(f, "{} {name} {count}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
