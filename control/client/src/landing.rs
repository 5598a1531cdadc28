//! Memory that bytes land in: the pool's; when callers hold all of that, memory of its own.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use penstock_buf::{Buf, BufMut};

use crate::client::Inner;

/// How long a read waits for pool memory before it takes other memory: callers who keep what they have read, as a program that
/// trains does, must not bring reads to a halt.
const POOL_WAIT: Duration = Duration::from_millis(20);

/// A buffer that is written to once.
pub(crate) enum Landing {
    Pool(BufMut),
    Heap(Vec<u8>),
}

impl Landing {
    /// `bytes` of it, no more than the pool's largest buffer.
    pub(crate) async fn new(inner: &Inner, bytes: usize) -> Self {
        match inner.buffers.acquire(bytes, POOL_WAIT).await {
            Ok(buffer) => Self::Pool(buffer),
            Err(_exhausted) => {
                inner.stats.count(|stats| stats.heap_bytes += bytes as u64);
                Self::Heap(vec![0; bytes])
            }
        }
    }

    /// Forgets what is past `bytes`.
    pub(crate) fn truncate(&mut self, bytes: usize) {
        match self {
            Self::Pool(buffer) => buffer.truncate(bytes),
            Self::Heap(buffer) => buffer.truncate(bytes),
        }
    }
}

impl Deref for Landing {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Pool(buffer) => buffer,
            Self::Heap(buffer) => buffer,
        }
    }
}

impl DerefMut for Landing {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Pool(buffer) => buffer,
            Self::Heap(buffer) => buffer,
        }
    }
}

impl From<Landing> for Buf {
    fn from(landing: Landing) -> Self {
        match landing {
            Landing::Pool(buffer) => buffer.freeze(),
            Landing::Heap(buffer) => buffer.into(),
        }
    }
}
