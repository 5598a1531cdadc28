//! How two sides meet: one ordinary call over TCP, whose header is an offer and whose answer accepts or declines it
//! (docs/formats/rdma-transport.md). Sans I/O.

use bytes::{BufMut as _, Bytes, BytesMut};
use penstock_verbs::{Gid, Mtu};

const MAGIC: [u8; 8] = *b"PSRDMA\0\0";
/// Version of the bootstrap and of all that follows.
const VERSION: u16 = super::message::VERSION as u16;
/// Addresses in an offer.
pub(crate) const GIDS_MAX: usize = 16;
const REASON_BYTES_MAX: usize = 1024;
const NUMBER_MAX: u32 = 0xff_ffff;

const OFFER: u8 = 1;
const ACCEPT: u8 = 2;
const DECLINE: u8 = 3;

/// The caller's queue pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Calls at a time.
    pub(crate) slots: u16,
    pub(crate) number: u32,
    pub(crate) psn: u32,
    pub(crate) mtu: Mtu,
    /// READs that it serves at a time.
    pub(crate) read_depth: u8,
    /// Its port's addresses, the preferred one first.
    pub(crate) gids: Vec<Gid>,
}

/// The node's queue pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accept {
    /// Calls at a time: at most what was offered.
    pub(crate) slots: u16,
    pub(crate) number: u32,
    pub(crate) psn: u32,
    /// The smaller of both sides'.
    pub(crate) mtu: Mtu,
    /// READs that it sends at a time: at most what was offered.
    pub(crate) read_depth: u8,
    /// Which of the offered addresses it talks to.
    pub(crate) chosen: u8,
    pub(crate) gid: Gid,
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Accept(Accept),
    /// Why not, and what to do.
    Decline(String),
}

/// Whether a call is an offer, and not for the node's handler.
pub(crate) fn is_offer(header: &[u8]) -> bool {
    header.starts_with(&MAGIC)
}

fn start(kind: u8) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_slice(&MAGIC);
    out.put_u16_le(VERSION);
    out.put_u8(kind);
    out.put_u8(0);
    out
}

fn seal(mut out: BytesMut) -> Bytes {
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    out.freeze()
}

impl Offer {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = start(OFFER);
        out.put_u16_le(self.slots);
        out.put_u16_le(self.mtu.bytes() as u16);
        out.put_u32_le(self.number);
        out.put_u32_le(self.psn);
        out.put_u8(self.read_depth);
        let gids = &self.gids[..self.gids.len().min(GIDS_MAX)];
        out.put_u8(gids.len() as u8);
        for gid in gids {
            out.put_slice(&gid.0);
        }
        seal(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::open(bytes, &[OFFER])?.1;
        let slots = reader.number(2)? as u16;
        let mtu = reader.mtu()?;
        let number = reader.packet_number("queue pair number", 1)?;
        let psn = reader.packet_number("first packet number", 0)?;
        let read_depth = reader.number(1)? as u8;
        let count = reader.number(1)? as usize;
        if slots == 0 || count == 0 || count > GIDS_MAX {
            return Err(format!("an offer of {slots} calls at a time by {count} addresses"));
        }
        let gids = (0..count).map(|_| reader.gid()).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self { slots, number, psn, mtu, read_depth, gids })
    }
}

impl Answer {
    pub(crate) fn encode(&self) -> Bytes {
        match self {
            Self::Accept(accept) => {
                let mut out = start(ACCEPT);
                out.put_u16_le(accept.slots);
                out.put_u16_le(accept.mtu.bytes() as u16);
                out.put_u32_le(accept.number);
                out.put_u32_le(accept.psn);
                out.put_u8(accept.read_depth);
                out.put_u8(accept.chosen);
                out.put_slice(&accept.gid.0);
                seal(out)
            }
            Self::Decline(reason) => {
                let mut out = start(DECLINE);
                let end = (0..=reason.len().min(REASON_BYTES_MAX)).rev().find(|&at| reason.is_char_boundary(at));
                let reason = &reason[..end.unwrap_or(0)];
                out.put_u16_le(reason.len() as u16);
                out.put_slice(reason.as_bytes());
                seal(out)
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (kind, mut reader) = Reader::open(bytes, &[ACCEPT, DECLINE])?;
        if kind == DECLINE {
            let count = reader.number(2)? as usize;
            let reason = String::from_utf8_lossy(reader.take(count)?).into_owned();
            reader.end()?;
            return Ok(Self::Decline(reason));
        }
        let slots = reader.number(2)? as u16;
        let mtu = reader.mtu()?;
        let number = reader.packet_number("queue pair number", 1)?;
        let psn = reader.packet_number("first packet number", 0)?;
        let read_depth = reader.number(1)? as u8;
        let chosen = reader.number(1)? as u8;
        let gid = reader.gid()?;
        reader.end()?;
        if slots == 0 {
            return Err("an answer that allows no call".to_owned());
        }
        Ok(Self::Accept(Accept { slots, number, psn, mtu, read_depth, chosen, gid }))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn open(bytes: &'a [u8], kinds: &[u8]) -> Result<(u8, Self), String> {
        if !is_offer(bytes) {
            return Err("the node does not know RDMA: it runs without it, or another release".to_owned());
        }
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or("a bootstrap message that is cut short")?;
        let mut reader = Self(&body[MAGIC.len().min(body.len())..]);
        let version = reader.number(2)?;
        if version != u64::from(VERSION) {
            return Err(format!(
                "version {version} of the RDMA transport; this program speaks {VERSION}: run the same release"
            ));
        }
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err("a bootstrap message whose checksum does not match".to_owned());
        }
        let kind = reader.number(1)? as u8;
        reader.number(1)?;
        if kinds.contains(&kind) { Ok((kind, reader)) } else { Err(format!("a bootstrap message of kind {kind}")) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("a bootstrap message that is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<u64, String> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn packet_number(&mut self, what: &str, min: u32) -> Result<u32, String> {
        let number = self.number(4)? as u32;
        if (min..=NUMBER_MAX).contains(&number) { Ok(number) } else { Err(format!("a {what} of {number:#x}")) }
    }

    fn mtu(&mut self) -> Result<Mtu, String> {
        let bytes = self.number(2)? as u32;
        Mtu::from_bytes(bytes).ok_or_else(|| format!("an MTU of {bytes} bytes"))
    }

    fn gid(&mut self) -> Result<Gid, String> {
        let bytes: [u8; 16] = self.take(16)?.try_into().expect("invariant: 16 were taken");
        if bytes == [0; 16] { Err("an address of zeros".to_owned()) } else { Ok(Gid(bytes)) }
    }

    fn end(&self) -> Result<(), String> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(format!("a bootstrap message with {} bytes too many", self.0.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn offer() -> Offer {
        Offer {
            slots: 16,
            number: 0x112,
            psn: 0xabcdef,
            mtu: Mtu::M4096,
            read_depth: 16,
            gids: vec![Gid::from(Ipv4Addr::new(192, 0, 2, 10))],
        }
    }

    fn accept() -> Answer {
        Answer::Accept(Accept {
            slots: 8,
            number: 0x113,
            psn: 1,
            mtu: Mtu::M1024,
            read_depth: 4,
            chosen: 0,
            gid: Gid::from(Ipv4Addr::new(192, 0, 2, 11)),
        })
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// docs/formats/rdma-transport.md.
    #[test]
    fn golden_bytes() {
        assert_eq!(
            hex(&offer().encode()),
            "505352444d410000010001001000001012010000efcdab00100100000000000000000000ffffc000020a5fd42188"
        );
        assert_eq!(
            hex(&accept().encode()),
            "505352444d41000001000200080000041301000001000000040000000000000000000000ffffc000020beebf7ff1"
        );
        assert_eq!(hex(&Answer::Decline("no".into()).encode()), "505352444d4100000100030002006e6fbe81885c");
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(Offer::decode(&offer().encode()), Ok(offer()));
        let long = "é".repeat(2000);
        for answer in [accept(), Answer::Decline("why".into())] {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
        let Ok(Answer::Decline(reason)) = Answer::decode(&Answer::Decline(long).encode()) else { panic!("no decline") };
        assert_eq!(reason.len(), REASON_BYTES_MAX);
    }

    #[test]
    fn changed_and_cut_bytes_are_refused() {
        for good in [offer().encode(), accept().encode()] {
            for at in 0..good.len() {
                let mut bad = good.to_vec();
                bad[at] ^= 1;
                assert!(Offer::decode(&bad).is_err() && Answer::decode(&bad).is_err(), "byte {at}");
                assert!(Offer::decode(&good[..at]).is_err() && Answer::decode(&good[..at]).is_err(), "{at} bytes");
            }
        }
        assert!(Offer::decode(&accept().encode()).is_err());
        assert!(Answer::decode(&offer().encode()).is_err());
        assert!(Answer::decode(b"an answer of a node's handler").unwrap_err().contains("does not know RDMA"));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (change, says) in [
            ((|o| o.number = 0) as fn(&mut Offer), "number of 0x0"),
            (|o| o.number = 1 << 24, "number of 0x1000000"),
            (|o| o.psn = 1 << 24, "first packet"),
            (|o| o.slots = 0, "0 calls"),
            (|o| o.gids.clear(), "0 addresses"),
            (|o| o.gids = vec![Gid::default()], "zeros"),
        ] {
            let mut offer = offer();
            change(&mut offer);
            let error = Offer::decode(&offer.encode()).unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
        }
    }
}
