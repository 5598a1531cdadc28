//! GIDs: a port's addresses. Which of ours reaches a peer's is decided here, in pure code; the table is read from sysfs,
//! which says for each entry what RoCE version it is and of which network interface.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::error::{Verb, VerbsError};

/// A port's address: 16 bytes in network order. RoCE v2 over IPv4 has `::ffff:a.b.c.d`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Gid(pub [u8; 16]);

/// What kind of address a GID is. Both ends of a connection must have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GidFamily {
    /// RoCE over IPv4.
    Ipv4Mapped,
    /// `fe80::/10`: reaches the same link only.
    LinkLocal,
    /// Any other IPv6 address, or an InfiniBand GID of a subnet.
    Ipv6,
}

impl fmt::Display for GidFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl GidFamily {
    fn text(self) -> &'static str {
        match self {
            Self::Ipv4Mapped => "IPv4",
            Self::LinkLocal => "link-local",
            Self::Ipv6 => "IPv6",
        }
    }
}

impl Gid {
    /// Of what kind it is.
    pub fn family(&self) -> GidFamily {
        if self.ipv4().is_some() {
            GidFamily::Ipv4Mapped
        } else if self.0[0] == 0xfe && self.0[1] & 0xc0 == 0x80 {
            GidFamily::LinkLocal
        } else {
            GidFamily::Ipv6
        }
    }

    /// Whether it is no address.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }

    /// The IPv4 address in it.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        Ipv6Addr::from(self.0).to_ipv4_mapped()
    }

    /// 32 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// From 32 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }
}

impl From<Ipv4Addr> for Gid {
    fn from(address: Ipv4Addr) -> Self {
        Self(address.to_ipv6_mapped().octets())
    }
}
impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv6Addr::from(self.0), f)
    }
}
impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which protocol an entry of the table speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GidKind {
    /// InfiniBand.
    Ib,
    /// RoCE v1: Ethernet frames, one link.
    RoceV1,
    /// RoCE v2: UDP, port 4791.
    RoceV2,
}

impl GidKind {
    fn parse(text: &str, ethernet: bool) -> Option<Self> {
        match text.trim() {
            "RoCE v2" => Some(Self::RoceV2),
            // The kernel calls both InfiniBand and RoCE v1 so.
            "IB/RoCE v1" => Some(if ethernet { Self::RoceV1 } else { Self::Ib }),
            _ => None,
        }
    }
}

/// One entry of a port's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GidEntry {
    /// Its place in the table, which a queue pair names.
    pub index: u8,
    /// The address.
    pub gid: Gid,
    /// The protocol.
    pub kind: GidKind,
    /// The network interface that it is of.
    pub netdev: Option<String>,
}

/// The entry of ours that reaches `peer`: of its family, RoCE v2 before v1; for IPv6 and IPv4 the one that shares the
/// longest prefix with it, so that of several networks the peer's is taken.
///
/// # Errors
/// [`VerbsError::NoGid`].
pub fn choose_gid(own: &[GidEntry], peer: Gid) -> Result<GidEntry, VerbsError> {
    let family = peer.family();
    let common_bits = |gid: Gid| (u128::from_be_bytes(gid.0) ^ u128::from_be_bytes(peer.0)).leading_zeros();
    own.iter()
        .filter(|entry| entry.gid.family() == family)
        // Of equals, the first in the table: `max_by_key` would give the last.
        .rev()
        .max_by_key(|entry| {
            // Link-local addresses share their prefix whatever link they are of.
            let near = if family == GidFamily::LinkLocal { 0 } else { common_bits(entry.gid) };
            (entry.kind != GidKind::RoceV1, near)
        })
        .cloned()
        .ok_or_else(|| VerbsError::NoGid { peer, family: family.text(), have: describe(own) })
}

/// The entry to name first when nothing is known of the peer: a routable RoCE v2 address before a link-local one.
pub fn preferred_gid(own: &[GidEntry]) -> Option<GidEntry> {
    own.iter()
        .rev()
        .max_by_key(|entry| {
            let family = match entry.gid.family() {
                GidFamily::Ipv4Mapped => 2,
                GidFamily::Ipv6 => 1,
                GidFamily::LinkLocal => 0,
            };
            (entry.kind != GidKind::RoceV1, family)
        })
        .cloned()
}

fn describe(own: &[GidEntry]) -> String {
    if own.is_empty() {
        return "none".to_owned();
    }
    let mut texts = own.iter().map(|entry| format!("{} ({}, {:?})", entry.gid, entry.gid.family(), entry.kind));
    let first = texts.next().unwrap_or_default();
    texts.fold(first, |all, text| format!("{all}, {text}"))
}

/// Entries looked at; devices have 256 or fewer.
const GIDS_MAX: i32 = 256;

/// Reads the table of one port below `/sys/class/infiniband/NAME/ports/PORT`.
pub(crate) fn read_gids(port_folder: &Path, count: i32, ethernet: bool) -> Result<Vec<GidEntry>, VerbsError> {
    let mut entries = Vec::new();
    let gids = port_folder.join("gids");
    if let Err(error) = std::fs::metadata(&gids) {
        return Err(VerbsError::call(Verb::ReadGids, error.raw_os_error().unwrap_or(libc::ENOENT)));
    }
    for index in 0..count.min(GIDS_MAX) {
        let read = |path: String| std::fs::read_to_string(port_folder.join(path)).ok();
        // An empty place reads as zeros, or can't be read at all.
        let Some(gid) = read(format!("gids/{index}")).and_then(|text| parse_sysfs(&text)) else { continue };
        if gid.is_zero() {
            continue;
        }
        // Without a type there is no interface behind it any more.
        let Some(kind) = read(format!("gid_attrs/types/{index}")).and_then(|text| GidKind::parse(&text, ethernet))
        else {
            continue;
        };
        let netdev =
            read(format!("gid_attrs/ndevs/{index}")).map(|text| text.trim().to_owned()).filter(|n| !n.is_empty());
        let Ok(index) = u8::try_from(index) else { continue };
        entries.push(GidEntry { index, gid, kind, netdev });
    }
    Ok(entries)
}

/// `fe80:0000:0000:0000:5054:00ff:fe12:3456`
fn parse_sysfs(text: &str) -> Option<Gid> {
    text.trim().parse::<Ipv6Addr>().ok().map(|address| Gid(address.octets()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u8, text: &str, kind: GidKind) -> GidEntry {
        GidEntry { index, gid: Gid(text.parse::<Ipv6Addr>().expect("an address").octets()), kind, netdev: None }
    }

    fn gid(text: &str) -> Gid {
        entry(0, text, GidKind::RoceV2).gid
    }

    #[test]
    fn families_are_told_apart() {
        assert_eq!(gid("::ffff:192.0.2.10").family(), GidFamily::Ipv4Mapped);
        assert_eq!(gid("fe80::1").family(), GidFamily::LinkLocal);
        assert_eq!(gid("2001:db8::1").family(), GidFamily::Ipv6);
        assert_eq!(Gid::from(Ipv4Addr::new(192, 0, 2, 10)), gid("::ffff:192.0.2.10"));
    }

    #[test]
    fn hex_is_exactly_32_digits() {
        let text = "00000000000000000000ffffc000020a";
        assert_eq!(Gid::from_hex(text), Some(gid("::ffff:192.0.2.10")));
        assert_eq!(gid("::ffff:192.0.2.10").to_hex(), text);
        for wrong in ["", "0", &text[1..], "+0000000000000000000ffffc000020a", "é000000000000000000ffffc000020a"] {
            assert_eq!(Gid::from_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ours_is_of_the_peers_family_and_network() {
        let own = [
            entry(0, "fe80::1", GidKind::RoceV1),
            entry(1, "fe80::1", GidKind::RoceV2),
            entry(2, "::ffff:10.0.1.1", GidKind::RoceV1),
            entry(3, "::ffff:10.0.1.1", GidKind::RoceV2),
            entry(4, "::ffff:192.168.7.1", GidKind::RoceV2),
        ];
        let index = |peer: &str| choose_gid(&own, gid(peer)).map(|entry| entry.index);
        assert_eq!(index("fe80::77"), Ok(1));
        assert_eq!(index("::ffff:10.0.1.9"), Ok(3));
        assert_eq!(index("::ffff:192.168.7.9"), Ok(4));
        let error = index("2001:db8::9").expect_err("no such family");
        assert!(error.to_string().contains("2001:db8::9 (IPv6)"), "{error}");
        assert!(error.to_string().contains("::ffff:10.0.1.1 (IPv4"), "{error}");
        // Of equals the first.
        let two = [entry(5, "fe80::1", GidKind::RoceV2), entry(6, "fe80::2", GidKind::RoceV2)];
        assert_eq!(choose_gid(&two, gid("fe80::3")).map(|e| e.index), Ok(5));
    }

    #[test]
    fn a_routable_address_is_named_first() {
        let own = [
            entry(0, "fe80::1", GidKind::RoceV2),
            entry(1, "::ffff:10.0.1.1", GidKind::RoceV1),
            entry(2, "::ffff:10.0.1.1", GidKind::RoceV2),
            entry(3, "2001:db8::1", GidKind::RoceV2),
        ];
        assert_eq!(preferred_gid(&own).map(|e| e.index), Some(2));
        assert_eq!(preferred_gid(&own[..1]).map(|e| e.index), Some(0));
        assert_eq!(preferred_gid(&[]), None);
    }

    #[test]
    fn the_table_is_read_from_sysfs() {
        let folder = std::env::temp_dir().join(format!("penstock-gids-{}", std::process::id()));
        for sub in ["gids", "gid_attrs/types", "gid_attrs/ndevs"] {
            std::fs::create_dir_all(folder.join(sub)).expect("a folder");
        }
        let put = |path: &str, text: &str| std::fs::write(folder.join(path), text).expect("a file");
        put("gids/0", "fe80:0000:0000:0000:5054:00ff:fe12:3456\n");
        put("gid_attrs/types/0", "IB/RoCE v1\n");
        put("gid_attrs/ndevs/0", "eth0\n");
        put("gids/1", "0000:0000:0000:0000:0000:ffff:0a00:0101\n");
        put("gid_attrs/types/1", "RoCE v2\n");
        put("gids/2", "0000:0000:0000:0000:0000:0000:0000:0000\n");
        put("gids/3", "nonsense\n");
        let read = |ethernet| read_gids(&folder, 5, ethernet).expect("a table");
        let expected = |kind| {
            [
                GidEntry { netdev: Some("eth0".into()), ..entry(0, "fe80::5054:ff:fe12:3456", kind) },
                entry(1, "::ffff:10.0.1.1", GidKind::RoceV2),
            ]
        };
        assert_eq!(read(true), expected(GidKind::RoceV1));
        assert_eq!(read(false), expected(GidKind::Ib));
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
        assert!(read_gids(&folder, 5, true).is_err());
    }
}
