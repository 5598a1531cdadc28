//! Whether a commit is what was planned, and what nodes have signed for. Pure: records in, rows out.
//!
//! Nothing that the client says is taken on trust: the ticket is the gateway's own, signed; every shard that counts has the
//! receipt of the node that the ticket names for it, over its length and checksum; and the body's checksum is computed from
//! those of the data shards. What is left to the client is that parity is the parity of the data: a client that gets that
//! wrong has written an object that can't be repaired, as it could have written one of noise.

use penstock_digest::{crc64nvme_combine, crc64nvme_zeros};
use penstock_meta::tables::StripeRow;
use penstock_proto::plan::{CommitStripe, GROUP_STRIPES, PlanError, Record, WriteCommit, WriteTicket};
use penstock_proto::{Clock, ClusterKey, Code, ShardKey, StoredShard, limits};

/// What the request that brings a commit is about.
pub(crate) struct Expected<'a> {
    pub(crate) access_key: &'a str,
    pub(crate) bucket_id: u64,
    pub(crate) key: &'a str,
    pub(crate) part: Option<(&'a str, u32)>,
}

/// A commit that holds.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) ticket: WriteTicket,
    pub(crate) stripes: Vec<StripeRow>,
    /// Of the whole body.
    pub(crate) crc64: u64,
}

/// Why a commit does not hold: a sentence for people.
pub(crate) type Refusal = String;

/// How many stripes a body has.
pub(crate) fn stripes_of(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(limits::CHUNK_BYTES as u64)
}

/// Checks all of it.
pub(crate) fn verify(
    commit: &[u8],
    expected: &Expected<'_>,
    key: &ClusterKey,
    clock: &dyn Clock,
) -> Result<Verified, Refusal> {
    let unreadable = |error: PlanError| format!("The commit can't be taken: {error}.");
    let WriteCommit { ticket, stripes } = WriteCommit::decode(commit).map_err(unreadable)?;
    let ticket = WriteTicket::open(&ticket, key).map_err(unreadable)?;
    let part = ticket.part.as_ref().map(|(upload, number)| (upload.as_str(), *number));
    if ticket.access_key != expected.access_key
        || ticket.bucket_id != expected.bucket_id
        || ticket.key != expected.key
        || part != expected.part
    {
        return Err("The ticket is for another request than this.".to_owned());
    }
    if clock.now_unix_ms() >= ticket.expires_unix_ms {
        return Err("The plan's time has run out; ask for another.".to_owned());
    }
    let count = stripes_of(ticket.size_bytes);
    if stripes.len() as u64 != count {
        return Err(format!("The body has {count} stripes, not {}.", stripes.len()));
    }
    let (mut rows, mut crc64) = (Vec::with_capacity(stripes.len()), 0);
    for (stripe, number) in stripes.into_iter().zip(0u32..) {
        let begin = u64::from(number) * limits::CHUNK_BYTES as u64;
        let chunk_bytes = (ticket.size_bytes - begin).min(limits::CHUNK_BYTES as u64);
        if u64::from(stripe.chunk_bytes) != chunk_bytes {
            return Err(format!("Stripe {number} has {chunk_bytes} bytes, not {}.", stripe.chunk_bytes));
        }
        let (row, chunk_crc64) = verify_stripe(&ticket, number, &stripe, key, clock)?;
        crc64 = if number == 0 { chunk_crc64 } else { crc64nvme_combine(crc64, chunk_crc64, chunk_bytes) };
        rows.push(row);
    }
    Ok(Verified { ticket, stripes: rows, crc64 })
}

fn verify_stripe(
    ticket: &WriteTicket,
    number: u32,
    stripe: &CommitStripe,
    key: &ClusterKey,
    clock: &dyn Clock,
) -> Result<(StripeRow, u64), Refusal> {
    let code = ticket.code;
    let nodes = ticket.groups.get((number / GROUP_STRIPES) as usize).ok_or("The ticket has too few groups.")?;
    if stripe.shard_crc64s.len() != code.n() || stripe.receipts.len() != code.n() || nodes.len() != code.n() {
        return Err(format!("Stripe {number} needs {} checksums and receipts, or none in their place.", code.n()));
    }
    let shard_bytes = code.shard_bytes(stripe.chunk_bytes as usize) as u32;
    let mut missing = 0u64;
    for (shard, receipt) in stripe.receipts.iter().enumerate() {
        let Some(receipt) = receipt else {
            missing |= 1 << shard;
            continue;
        };
        let shard_key = ShardKey { data: ticket.data, stripe: number, shard: shard as u8 };
        let stored = StoredShard { key: shard_key, shard_bytes, crc64: stripe.shard_crc64s[shard].0 };
        receipt
            .check(key, &stored, nodes[shard], clock)
            .map_err(|error| format!("Shard {shard} of stripe {number} on {}: {error}.", nodes[shard]))?;
    }
    let durable = code.n() - missing.count_ones() as usize;
    if durable < code.write_quorum() {
        return Err(format!(
            "Stripe {number} has receipts for {durable} shards, and {} must be durable.",
            code.write_quorum()
        ));
    }
    let shard_crc64s: Vec<u64> = stripe.shard_crc64s.iter().map(|crc64| crc64.0).collect();
    let chunk_crc64 = chunk_crc64(code, stripe.chunk_bytes as usize, &shard_crc64s);
    Ok((StripeRow { chunk_bytes: stripe.chunk_bytes, missing, shard_crc64s }, chunk_crc64))
}

/// The CRC64NVME of a chunk from those of its data shards, whose last ones end in zeros.
fn chunk_crc64(code: Code, chunk_bytes: usize, shard_crc64s: &[u64]) -> u64 {
    let shard_bytes = code.shard_bytes(chunk_bytes) as u64;
    let mut padded = shard_crc64s[0];
    for crc64 in &shard_crc64s[1..code.k()] {
        padded = crc64nvme_combine(padded, *crc64, shard_bytes);
    }
    without_zeros(padded, shard_bytes * code.k() as u64 - chunk_bytes as u64)
}

/// The CRC64NVME of some bytes, from that of the same bytes with `zeros` zeros behind them.
///
/// To append zeros is an affine map of the CRC, which is undone bit by bit: with the linear part of it as 64 columns,
/// solved by elimination. A pad has at most some kilobytes, and a body at most one stripe with one.
fn without_zeros(padded: u64, zeros: u64) -> u64 {
    if zeros == 0 {
        return padded;
    }
    let tail = crc64nvme_zeros(zeros);
    let constant = crc64nvme_combine(0, tail, zeros);
    let wanted = padded ^ constant;
    // Rows (image, preimage) in echelon form by the image's highest bit.
    let mut rows = [(0u64, 0u64); 64];
    for bit in 0..64 {
        let (mut image, mut preimage) = (crc64nvme_combine(1 << bit, tail, zeros) ^ constant, 1u64 << bit);
        while image != 0 {
            let top = 63 - image.leading_zeros() as usize;
            if rows[top].0 == 0 {
                rows[top] = (image, preimage);
                break;
            }
            image ^= rows[top].0;
            preimage ^= rows[top].1;
        }
    }
    let (mut rest, mut out) = (wanted, 0);
    while rest != 0 {
        let (image, preimage) = rows[63 - rest.leading_zeros() as usize];
        assert!(image != 0, "invariant: appending zeros to a CRC is a bijection");
        rest ^= image;
        out ^= preimage;
    }
    out
}

#[cfg(test)]
mod tests {
    use penstock_digest::crc64nvme;
    use penstock_proto::plan::Crc64;
    use penstock_proto::{DataId, ManualClock, NodeId, Receipt};

    use super::*;

    const NOW_MS: u64 = 1_000_000;

    fn cluster_key() -> ClusterKey {
        ClusterKey::new([7; 32])
    }

    fn code() -> Code {
        Code::new(2, 1).unwrap()
    }

    fn ticket(size_bytes: u64) -> WriteTicket {
        WriteTicket {
            data: DataId(9),
            size_bytes,
            code: code(),
            epoch: 1,
            groups: vec![vec![NodeId(0), NodeId(1), NodeId(2)]],
            expires_unix_ms: NOW_MS + 1000,
            access_key: "AK".to_owned(),
            bucket_id: 4,
            key: "k".to_owned(),
            part: None,
        }
    }

    const EXPECTED: Expected<'static> = Expected { access_key: "AK", bucket_id: 4, key: "k", part: None };

    fn receipt(stripe: u32, shard: u8, chunk_bytes: usize, crc64: u64, node: u16) -> Receipt {
        let key = ShardKey { data: DataId(9), stripe, shard };
        let stored = StoredShard { key, shard_bytes: code().shard_bytes(chunk_bytes) as u32, crc64 };
        Receipt::sign(&cluster_key(), &stored, NodeId(node), NOW_MS + 500)
    }

    /// A commit as an honest client makes it (its parity is noise: nobody here can tell).
    fn commit(body: &[u8]) -> WriteCommit {
        let stripes = body.chunks(limits::CHUNK_BYTES).zip(0..).map(|(chunk, number)| {
            let shard_bytes = code().shard_bytes(chunk.len());
            let mut padded = chunk.to_vec();
            padded.resize(2 * shard_bytes, 0);
            let crc64s = [crc64nvme(&padded[..shard_bytes]), crc64nvme(&padded[shard_bytes..]), 77];
            let receipts = (0..3u8)
                .map(|shard| Some(receipt(number, shard, chunk.len(), crc64s[usize::from(shard)], u16::from(shard))));
            CommitStripe {
                chunk_bytes: chunk.len() as u32,
                shard_crc64s: crc64s.map(Crc64).to_vec(),
                receipts: receipts.collect(),
            }
        });
        WriteCommit { ticket: ticket(body.len() as u64).seal(&cluster_key()).unwrap(), stripes: stripes.collect() }
    }

    fn check(commit: &WriteCommit, expected: &Expected<'_>, clock: &ManualClock) -> Result<Verified, Refusal> {
        verify(&commit.encode().unwrap(), expected, &cluster_key(), clock)
    }

    #[track_caller]
    fn refused(commit: &WriteCommit, says: &str) {
        let refusal = check(commit, &EXPECTED, &ManualClock::at(NOW_MS)).unwrap_err();
        assert!(refusal.contains(says), "{refusal}");
    }

    #[test]
    fn an_honest_commit_holds_and_its_checksum_is_that_of_the_body() {
        for length in [1, 63, 64, 129, 4096, limits::CHUNK_BYTES - 1, limits::CHUNK_BYTES, limits::CHUNK_BYTES + 5] {
            let body: Vec<u8> = (0..length).map(|i| ((i * 31) >> 3) as u8).collect();
            let verified = check(&commit(&body), &EXPECTED, &ManualClock::at(NOW_MS)).unwrap();
            assert_eq!(verified.crc64, crc64nvme(&body), "{length} bytes");
            assert!(verified.stripes.iter().all(|stripe| stripe.missing == 0));
            assert_eq!(verified.stripes.iter().map(|stripe| stripe.chunk_bytes as usize).sum::<usize>(), length);
        }
    }

    #[test]
    fn zeros_are_taken_off_again() {
        for zeros in [1, 2, 63, 1000, 4096] {
            for text in [&b""[..], b"a", b"hello"] {
                let padded = [text, &vec![0; zeros]].concat();
                assert_eq!(without_zeros(crc64nvme(&padded), zeros as u64), crc64nvme(text));
            }
        }
    }

    #[test]
    fn receipts_for_anything_else_are_refused() {
        let good = commit(b"hello");
        let with = |change: &dyn Fn(&mut CommitStripe)| {
            let mut changed = good.clone();
            change(&mut changed.stripes[0]);
            changed
        };
        refused(&with(&|stripe| stripe.receipts.swap(0, 1)), "not a node's word");
        refused(&with(&|stripe| stripe.shard_crc64s[2] = Crc64(78)), "not a node's word");
        let crc64 = good.stripes[0].shard_crc64s[0].0;
        refused(&with(&|stripe| stripe.receipts[0] = Some(receipt(1, 0, 5, crc64, 0))), "not a node's word");
        refused(&with(&|stripe| stripe.receipts[0] = Some(receipt(0, 0, 5, crc64, 1))), "not a node's word");
        refused(&with(&|stripe| stripe.receipts[0] = Some(receipt(0, 0, 500, crc64, 0))), "not a node's word");
        refused(&with(&|stripe| stripe.receipts[0] = None), "3 must be durable");
        refused(&with(&|stripe| stripe.receipts.truncate(2)), "needs 3");
        refused(&with(&|stripe| stripe.chunk_bytes = 6), "has 5 bytes");
        refused(&WriteCommit { stripes: Vec::new(), ..good.clone() }, "1 stripes");
        let late = check(&good, &EXPECTED, &ManualClock::at(NOW_MS + 600)).unwrap_err();
        assert!(late.contains("receipt has expired"), "{late}");
    }

    #[test]
    fn tickets_for_anything_else_are_refused() {
        let good = commit(b"hello");
        let clock = ManualClock::at(NOW_MS);
        for other in [
            Expected { access_key: "other", ..EXPECTED },
            Expected { bucket_id: 5, ..EXPECTED },
            Expected { key: "K", ..EXPECTED },
            Expected { part: Some(("u", 1)), ..EXPECTED },
        ] {
            assert!(check(&good, &other, &clock).unwrap_err().contains("another request"));
        }
        clock.advance_ms(1000);
        assert!(check(&good, &EXPECTED, &clock).unwrap_err().contains("time has run out"));
        let mut forged = good.clone();
        let other_key = ClusterKey::new([8; 32]);
        forged.ticket = ticket(5).seal(&other_key).unwrap();
        refused(&forged, "not one that this cluster has signed");
        assert!(verify(b"junk", &EXPECTED, &cluster_key(), &clock).unwrap_err().contains("can't be taken"));
    }
}
