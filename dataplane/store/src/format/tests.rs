//! What is on disk can't drift: golden bytes, and every changed bit is noticed.

use std::sync::Arc;

use penstock_proto::{DataId, ShardKey};

use super::footer::{self, Entry, FooterHeader};
use super::frame::{self, FrameHeader};
use super::record::{Record, RecordKind};
use super::superblock::{Superblock, default_extent_bytes};
use super::table::{ENTRIES_PER_BLOCK, SlotEntry, SlotState, TableBlock};
use super::{BLOCK_BYTES, crc32c_holds};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn superblock() -> Superblock {
    Superblock::plan(*b"device-uuid-0001", 1 << 30, 0).unwrap()
}

fn key() -> ShardKey {
    ShardKey { data: DataId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10), stripe: 0x1122_3344, shard: 0x55 }
}

fn record() -> Record {
    Record {
        kind: RecordKind::Put,
        key: key(),
        length: 65_600,
        payload_offset: 8192,
        crc64: 0x1122_3344_5566_7788,
        blocks: Arc::new([0xaabb_ccdd, 0x0102_0304]),
    }
}

const EPOCH: [u8; 16] = *b"epoch-uuid-00001";

fn frame_header(head_bytes: usize, records: u32) -> FrameHeader {
    FrameHeader {
        epoch: EPOCH,
        device_offset: 0x0010_0000,
        sequence: 7,
        records,
        frame_bytes: 131_072,
        head_bytes: head_bytes as u32,
        synced_bytes: 4096,
        previous: 0xfeed,
    }
}

#[test]
fn the_superblock_has_golden_bytes() {
    let block = superblock().encode(1);
    assert_eq!(
        hex(&block[..96]),
        "5053545355504552010000000100000001000000000000006465766963652d757569642d30303031\
         000000400000000000000001000000003f00000000000000000002000000000000200000000000000000100000000000\
         0000000000000000"
            .replace(char::is_whitespace, "")
    );
    assert_eq!(hex(&block[4092..]), GOLDEN_SUPERBLOCK_CRC);
    assert!(block[96..4092].iter().all(|byte| *byte == 0));
    assert_eq!(Superblock::decode(&block, 1).unwrap(), Some(superblock()));
    assert_eq!(Superblock::decode(&block, 0).unwrap(), None, "a copy that is not where it belongs");
}
// The checksums here were computed by a bitwise implementation in another language.
const GOLDEN_SUPERBLOCK_CRC: &str = "45bdcee5";

#[test]
fn another_version_is_an_error_that_says_so() {
    let mut block = superblock().encode(0);
    block[8] = 2;
    super::seal_crc32c(&mut block);
    assert!(Superblock::decode(&block, 0).unwrap_err().to_string().contains("version 2"));
}

#[test]
fn extents_are_a_64th_of_the_device_within_bounds() {
    assert_eq!(default_extent_bytes(100 << 20), 16 << 20);
    assert_eq!(default_extent_bytes(3 << 30), 32 << 20);
    assert_eq!(default_extent_bytes(1 << 40), 256 << 20);
    for capacity in [80 << 20, 1 << 30, 10_000_000_000, 8 << 40] {
        let plan = Superblock::plan([0; 16], capacity, 0).unwrap();
        assert!(plan.table_offset + 2 * plan.table_bytes <= plan.data_offset);
        assert!(plan.slot_offset(plan.extents) <= Superblock::copy_offsets(capacity)[2]);
    }
    assert!(Superblock::plan([0; 16], 64 << 20, 0).is_err(), "too small for four extents");
    assert!(Superblock::plan([0; 16], 1 << 30, 17 << 20).is_err(), "no power of two");
}

#[test]
fn a_table_block_has_golden_bytes() {
    let mut block = TableBlock::blank(3);
    block.generation = 9;
    block.entries[1] = SlotEntry {
        state: SlotState::Sealed,
        epoch: EPOCH,
        extent: 5,
        frames_bytes: 0x0040_0000,
        root: 0xabcd,
        footer_bytes: 1000,
    };
    let bytes = block.encode(*b"device-uuid-0001");
    assert_eq!(
        hex(&bytes[..64]),
        "5053545441424c450100000003000000".to_owned()
            + "0900000000000000"
            + "6465766963652d757569642d30303031"
            + &"00".repeat(24)
    );
    assert_eq!(hex(&bytes[64..128]), "00".repeat(64));
    assert_eq!(
        hex(&bytes[128..192]),
        "02000000e803000065706f63682d757569642d3030303031".to_owned()
            + "05000000000000000000400000000000cdab000000000000"
            + &"00".repeat(16)
    );
    assert_eq!(TableBlock::decode(&bytes, *b"device-uuid-0001", 3), Some(block.clone()));
    assert_eq!(TableBlock::decode(&bytes, *b"device-uuid-0002", 3), None);
    assert_eq!(TableBlock::decode(&bytes, *b"device-uuid-0001", 2), None);
    assert_eq!(ENTRIES_PER_BLOCK, 62);
}

#[test]
fn a_record_has_golden_bytes() {
    let mut bytes = vec![0xff; record().encoded_bytes()];
    record().encode(&mut bytes);
    assert_eq!(
        hex(&bytes),
        "0100000102030405060708090a0b0c0d0e0f101122334455".to_owned()
            + "4000010000200000"
            + "8877665544332211"
            + "ddccbbaa04030201"
    );
    assert_eq!(Record::decode(&bytes), Some(record()));
    let tombstone = Record::tombstone(key().data);
    let mut bytes = vec![0; tombstone.encoded_bytes()];
    tombstone.encode(&mut bytes);
    assert_eq!(hex(&bytes), "0200000102030405060708090a0b0c0d0e0f10".to_owned() + &"00".repeat(21));
    assert_eq!(Record::decode(&bytes), Some(tombstone));
}

#[test]
fn a_frame_head_has_golden_bytes() {
    let records = [record(), Record::tombstone(key().data)];
    let head_bytes = 128 + 48 + 40 + 8;
    let header = frame_header(head_bytes, 2);
    let mut head = vec![0; head_bytes];
    let checksum = frame::encode_head(&header, records.iter(), &mut head);
    assert_eq!(
        hex(&head[..124]),
        "5053544652414d450100000002000000".to_owned()
            + "65706f63682d757569642d3030303031"
            + "00001000000000000700000000000000"
            + "00000200e00000000010000000000000"
            + "edfe000000000000"
            + &"00".repeat(52)
    );
    assert_eq!(hex(&head[124..128]) + "," + &hex(&head[head_bytes - 8..]), GOLDEN_FRAME_CHECKSUMS);
    assert_eq!(checksum.to_le_bytes(), head[head_bytes - 8..]);
    assert_eq!(FrameHeader::decode(&head, &EPOCH, 0x0010_0000), Some(header));
    assert_eq!(FrameHeader::decode(&head, &EPOCH, 0x0010_1000), None, "a misdirected frame");
    assert_eq!(FrameHeader::decode(&head, b"epoch-uuid-00002", 0x0010_0000), None, "a stale frame");
    let (decoded, _) = frame::decode_head(&header, &head, 4096).unwrap();
    assert_eq!(decoded[0], Record { payload_offset: 4096 + 8192, ..record() });
}
const GOLDEN_FRAME_CHECKSUMS: &str = "57228caa,fac8b7dcb20512b2";

#[test]
fn every_changed_bit_of_a_head_is_noticed() {
    let header = frame_header(128 + 48 + 8, 1);
    let mut head = vec![0; 128 + 48 + 8];
    frame::encode_head(&header, [record()].iter(), &mut head);
    for bit in 0..head.len() * 8 {
        head[bit / 8] ^= 1 << (bit % 8);
        let read =
            FrameHeader::decode(&head, &EPOCH, 0x0010_0000).and_then(|header| frame::decode_head(&header, &head, 0));
        assert!(read.is_none(), "bit {bit} can be changed unnoticed");
        head[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_footer_has_golden_bytes_and_notices_every_changed_bit() {
    let header = FooterHeader { epoch: EPOCH, device_offset: 0x0040_0000, frames_bytes: 0x0030_0000, root: 0xbeef };
    let entries = vec![Entry { lsn: footer::lsn(7, 2), record: record() }];
    let mut bytes = footer::encode(&header, &entries);
    assert_eq!(bytes.len(), 128 + 8 + 48 + 8);
    assert_eq!(
        hex(&bytes[..124]),
        "505354494e4445580100000001000000".to_owned()
            + "65706f63682d757569642d3030303031"
            + "00004000000000000000300000000000"
            + "efbe000000000000c000000000000000"
            + &"00".repeat(60)
    );
    assert_eq!(hex(&bytes[128..136]), "0200070000000000");
    assert_eq!(hex(&bytes[124..128]) + "," + &hex(&bytes[184..]), GOLDEN_FOOTER_CHECKSUMS);
    assert_eq!(footer::decode(&header, &bytes), Some(entries));
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(footer::decode(&header, &bytes), None, "bit {bit} can be changed unnoticed");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}
const GOLDEN_FOOTER_CHECKSUMS: &str = "db51cb03,d40dbf8cb0b044fe";

#[test]
fn every_changed_bit_of_a_block_is_noticed() {
    let mut block = superblock().encode(0);
    for bit in (0..BLOCK_BYTES * 8).step_by(7) {
        block[bit / 8] ^= 1 << (bit % 8);
        assert!(!crc32c_holds(&block));
        block[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(crc32c_holds(&block));
}

#[test]
fn payloads_don_t_overlap_and_long_ones_are_aligned() {
    let lengths = [1, 64, 65, 4096, 32_767, 32_768, 419_456, 64, 70_000];
    let records: Vec<Record> = lengths.iter().map(|length| Record::put(key(), &vec![0; *length], 0)).collect();
    let layout = frame::layout(records.iter());
    let mut spans: Vec<(usize, usize)> =
        layout.offsets.iter().zip(lengths).map(|(offset, length)| (*offset as usize, length)).collect();
    for (offset, length) in &spans {
        assert_eq!(offset % if *length < 32_768 { 64 } else { BLOCK_BYTES }, 0);
    }
    spans.sort_unstable();
    assert!(spans[0].0 >= layout.head_bytes);
    assert!(spans.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
    assert!(spans.last().unwrap().0 + spans.last().unwrap().1 <= layout.frame_bytes);
    assert_eq!(layout.frame_bytes % BLOCK_BYTES, 0);
}
