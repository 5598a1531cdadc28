//! What was served, and what was declined why.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! reasons {
    ($($name:ident = $text:literal, $doc:literal;)*) => {
        /// Why a request was not served.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = $doc] $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name in metrics, logs and the header `x-penstock-rdma-reason`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    NoDevice = "no-device", "There is no RDMA device here.";
    DcDescriptor = "dc-descriptor", "The token is a descriptor of DC transport.";
    V1Token = "v1-token", "The token is of hipobj v1.";
    Protocol = "unknown-protocol", "Another protocol was asked for.";
    Agent = "unknown-agent", "The descriptor is of an unknown library.";
    Header = "unknown-header", "A header that is not understood.";
    Malformed = "malformed", "A token or header is malformed.";
    GidFamily = "gid-family", "The device has no GID of the client's family.";
    MessageSize = "message-size", "The PUT is larger than one message of the device.";
    TooLarge = "too-large", "The transfer is larger than the dialect or the staging memory.";
    Busy = "busy", "A limit was reached.";
    NoSession = "no-session", "No such session or connection, or not any more.";
    NotYours = "not-yours", "The cookie or the access key does not fit.";
    Refused = "refused", "The object operation failed.";
    Mismatch = "mismatch", "Other bytes came than were announced.";
    TimedOut = "timed-out", "The transfer took too long.";
    Transfer = "transfer-failed", "The transfer failed.";
    Cancelled = "cancelled", "The client cancelled.";
    Device = "device-failed", "The device could not make a queue pair.";
}

/// Counters of one front.
#[derive(Debug, Default)]
pub struct RdmaStats {
    declined: [AtomicU64; Reason::ALL.len()],
    gets: AtomicU64,
    puts: AtomicU64,
    bytes_out: AtomicU64,
    bytes_in: AtomicU64,
}

impl RdmaStats {
    /// How often `reason` was given.
    #[must_use]
    pub fn declined(&self, reason: Reason) -> u64 {
        self.declined[reason as usize].load(Ordering::Relaxed)
    }

    /// GETs served, and their bytes.
    #[must_use]
    pub fn gets(&self) -> (u64, u64) {
        (self.gets.load(Ordering::Relaxed), self.bytes_out.load(Ordering::Relaxed))
    }

    /// PUTs served, and their bytes.
    #[must_use]
    pub fn puts(&self) -> (u64, u64) {
        (self.puts.load(Ordering::Relaxed), self.bytes_in.load(Ordering::Relaxed))
    }

    /// All of it by name, for metrics.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let ((gets, bytes_out), (puts, bytes_in)) = (self.gets(), self.puts());
        let mut all = vec![("gets", gets), ("bytes_out", bytes_out), ("puts", puts), ("bytes_in", bytes_in)];
        all.extend(Reason::ALL.iter().map(|reason| (reason.name(), self.declined(*reason))));
        all
    }

    pub(crate) fn count(&self, reason: Reason) {
        self.declined[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_get(&self, bytes: u64) {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_put(&self, bytes: u64) {
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }
}
