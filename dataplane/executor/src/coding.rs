//! The work on bytes, apart from all waiting: parity and checksums of a chunk, and lost shards from others that are enough.

use std::sync::Arc;

use penstock_buf::{Buf, BufMut};
use penstock_digest::{crc64nvme, crc64nvme_combine};
use penstock_erasure::{Code as ErasureCode, ErasureError, Lrc, ReedSolomon};

use crate::chunk::SealedChunk;
use crate::layout::{Layout, ZEROS, column, columns};

/// A stripe, ready to be sent.
pub(crate) struct Encoded {
    /// Of each shard, the pieces it is made of, one after the other.
    pub(crate) shards: Vec<Vec<Buf>>,
    /// Of each whole shard, pad included.
    pub(crate) shard_crc64s: Vec<u64>,
    /// Of the chunk, pad excluded.
    pub(crate) chunk_crc64: u64,
    pub(crate) layout: Layout,
}

/// Parity, checksums and pieces of a chunk. Touches every byte of it: not for an async thread when the chunk is long.
pub(crate) fn encode(code: &dyn ErasureCode, chunk: SealedChunk) -> Result<Encoded, ErasureError> {
    let SealedChunk { code: name, chunk_bytes, data, mut parity } = chunk;
    let layout = Layout::new(name, chunk_bytes);
    let (k, shard_bytes) = (name.k(), layout.shard_bytes);
    // What of the pad is past the block is in no memory.
    let stored = data.len();

    let in_memory = |shard: usize| layout.start(shard).min(stored)..(layout.start(shard) + shard_bytes).min(stored);
    let valid = |shard: usize| {
        let start = layout.start(shard).min(chunk_bytes);
        &data[start..start + layout.valid_bytes(shard)]
    };
    let mut shard_crc64s;
    if name.m() > 0 {
        // Parity and every shard's checksum in one pass over the data.
        shard_crc64s = vec![0; name.n()];
        let shards: Vec<&[u8]> = (0..k).map(|shard| &data[in_memory(shard)]).collect();
        for range in columns(shards.iter().map(|shard| shard.len()), shard_bytes) {
            let from: Vec<&[u8]> = shards.iter().map(|shard| column(shard, range.clone())).collect();
            let mut to: Vec<&mut [u8]> = parity.iter_mut().map(|shard| &mut shard[range.clone()]).collect();
            code.encode_with_crc64(&from, &mut to, &mut shard_crc64s)?;
        }
    } else {
        shard_crc64s = (0..k).map(|shard| layout.whole_crc64(shard, crc64nvme(valid(shard)))).collect();
    }
    let mut chunk_crc64 = crc64nvme(&[]);
    for (shard, &whole_crc64) in shard_crc64s[..k].iter().enumerate() {
        let bytes = valid(shard);
        if !bytes.is_empty() {
            // Only the last shard that has any bytes can end in a pad.
            let crc64 = if bytes.len() == shard_bytes { whole_crc64 } else { crc64nvme(bytes) };
            chunk_crc64 = crc64nvme_combine(chunk_crc64, crc64, bytes.len() as u64);
        }
    }

    let mut shards: Vec<Vec<Buf>> = (0..k)
        .map(|shard| {
            let bytes = data.slice(in_memory(shard));
            let pad = Buf::from(&ZEROS[..shard_bytes - bytes.len()]);
            [bytes, pad].into_iter().filter(|piece| !piece.is_empty()).collect()
        })
        .collect();
    shards.extend(parity.into_iter().map(|shard| vec![shard.freeze()]));
    Ok(Encoded { shards, shard_crc64s, chunk_crc64, layout })
}

/// Computes the shards `lost` into `room` (as many buffers, of `shard_bytes` each) from whole shards
/// `present` that are enough for them, which may end before their pad. Returns them with their checksums.
pub(crate) fn decode(
    code: &dyn ErasureCode,
    layout: &Layout,
    present: &[(usize, Buf)],
    lost: &[usize],
    mut room: Vec<BufMut>,
) -> Result<Vec<(Buf, u64)>, ErasureError> {
    for range in columns(present.iter().map(|(_, bytes)| bytes.len()), layout.shard_bytes) {
        let from: Vec<(usize, &[u8])> =
            present.iter().map(|(shard, bytes)| (*shard, column(bytes, range.clone()))).collect();
        let mut to: Vec<(usize, &mut [u8])> =
            lost.iter().copied().zip(room.iter_mut().map(|shard| &mut shard[range.clone()])).collect();
        code.reconstruct(&from, &mut to)?;
    }
    Ok(room
        .into_iter()
        .map(|shard| {
            let crc64 = crc64nvme(&shard);
            (shard.freeze(), crc64)
        })
        .collect())
}

/// Runs work on `bytes` bytes: here when it is short, on a thread for blocking work when it would hold up others.
/// Dropping the future lets work that has begun run to its end; it gives back its buffers then.
pub(crate) async fn off_thread<T: Send + 'static>(
    bytes: usize,
    inline_bytes_max: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    if bytes <= inline_bytes_max {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|stopped| format!("a coding thread stopped: {stopped}"))
}

/// The codes in use, each with its matrices, made once.
#[derive(Default)]
pub(crate) struct Codes(parking_lot::Mutex<std::collections::HashMap<penstock_proto::Code, Arc<dyn ErasureCode>>>);

impl Codes {
    /// At most as many as there are codes: some thousand, a handful in practice.
    pub(crate) fn get(&self, code: penstock_proto::Code) -> Result<Arc<dyn ErasureCode>, ErasureError> {
        let mut codes = self.0.lock();
        if let Some(known) = codes.get(&code) {
            return Ok(Arc::clone(known));
        }
        let made: Arc<dyn ErasureCode> = match code.groups() {
            0 => Arc::new(ReedSolomon::new(code.k(), code.m())?),
            groups => Arc::new(Lrc::new(code.k(), groups, code.globals())?),
        };
        codes.insert(code, Arc::clone(&made));
        Ok(made)
    }
}
