//! The formats, once more, from the specification.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use penstock_rdma_wire::Gid;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2) && !text.bytes().any(|byte| byte.is_ascii_uppercase()), "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The 88 digits: u8 transport, u32 qpn, 16 gid, u32 rkey, u64 address, u64 length, u8 port, u16 lid; little-endian.
pub(crate) fn endpoint(transport: u8, qpn: u32, gid: Gid) -> String {
    let mut bytes = vec![transport];
    bytes.extend(qpn.to_le_bytes());
    bytes.extend(gid.0);
    bytes.extend([0; 20]);
    bytes.extend([1, 0, 0]);
    assert_eq!(bytes.len(), 44);
    hex(&bytes)
}

/// What a server's endpoint says.
pub(crate) struct ServerEndpoint {
    pub(crate) qpn: u32,
    pub(crate) gid: Gid,
    pub(crate) rkey: u32,
    pub(crate) address: u64,
    pub(crate) length: u64,
}

/// `200:<88 hex>`.
pub(crate) fn server_endpoint(reply: &str) -> ServerEndpoint {
    let text = reply.strip_prefix("200:").expect("a reply begins with 200:");
    let bytes = unhex(text);
    assert_eq!(bytes.len(), 44, "{text}");
    assert_eq!(bytes[0], 1, "RC");
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let gid = Gid(bytes[5..21].try_into().unwrap());
    assert_ne!(gid.0, [0; 16]);
    assert_eq!(bytes[41], 1, "port");
    ServerEndpoint { qpn: u32_at(1), gid, rkey: u32_at(21), address: u64_at(25), length: u64_at(33) }
}

/// Exactly six lower-case digits, not zero.
pub(crate) fn psn(text: &str) -> u32 {
    assert!(text.len() == 6 && text == text.to_lowercase(), "{text}");
    let psn = u32::from_str_radix(text, 16).unwrap();
    assert_ne!(psn, 0);
    psn
}

/// A hex number without leading zeros.
pub(crate) fn bare(text: &str) -> u64 {
    assert!(!text.starts_with('0'), "{text}");
    u64::from_str_radix(text, 16).unwrap()
}

pub(crate) fn is_session(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `rc:<hex32>:<hex16>:<hex8>:<hex8>`.
pub(crate) fn rc_token(connection: &str, address: u64, size: u64, rkey: u32) -> String {
    format!("rc:{connection}:{address:016x}:{size:08x}:{rkey:08x}")
}

/// CRC64NVME, bit by bit's table: polynomial 0x9a6c9329ac4bc9b5 reflected, all ones in and out.
pub(crate) fn crc64(bytes: &[u8]) -> u64 {
    let mut table = [0_u64; 256];
    for (index, entry) in table.iter_mut().enumerate() {
        *entry = (0..8)
            .fold(index as u64, |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x9a6c_9329_ac4b_c9b5 } else { crc >> 1 });
    }
    !bytes.iter().fold(!0, |crc, byte| table[((crc ^ u64::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

pub(crate) fn crc64_base64(bytes: &[u8]) -> String {
    STANDARD.encode(crc64(bytes).to_be_bytes())
}

#[test]
fn the_checksum_is_the_documents() {
    assert_eq!(crc64_base64(b"123456789"), "rosUhgp5mIg=");
    assert_eq!(crc64_base64(b""), "AAAAAAAAAAA=");
    assert_eq!(endpoint(1, 0x112, Gid([0; 16])).len(), 88);
}
