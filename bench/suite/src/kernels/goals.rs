//! The goals of the project's design (kernels.md, "Ratios to reach"), as data, and what a run says to each.

use super::row::Row;

/// What a figure is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    Isal,
    /// The fastest peer besides ISA-L.
    BestOther,
    Limit,
}

impl Against {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Isal => "ISA-L",
            Self::BestOther => "best other peer",
            Self::Limit => "limit",
        }
    }
}

/// A ratio to reach in every cell that it is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    op: &'static str,
    codes: &'static [&'static str],
    bytes: &'static [u64],
    state: &'static str,
    pub(crate) against: Against,
    pub(crate) at_least: f64,
}

const KIB_64: &[u64] = &[64 << 10];
const MIB_1: &[u64] = &[1 << 20];
const MIB_4: &[u64] = &[4 << 20];
const FROM_MIB_1: &[u64] = &[1 << 20, 4 << 20, 64 << 20];
const RS_10_4: &[&str] = &["RS(10,4)"];
const OTHER_RS: &[&str] = &["RS(8,3)", "RS(20,4)", "RS(4,2)"];
const LRC: &[&str] = &["LRC(12,2,2)"];

macro_rules! goals {
    ($($what:literal: $op:literal of $codes:ident at $bytes:ident $state:literal, $against:ident $at_least:literal;)*) => {
        &[$(Goal {
            what: $what, op: $op, codes: $codes, bytes: $bytes, state: $state, against: Against::$against, at_least: $at_least,
        }),*]
    };
}

/// All of them.
pub(crate) const GOALS: &[Goal] = goals! {
    "RS(10,4) encode, 64 KiB hot": "encode" of RS_10_4 at KIB_64 "hot", Isal 2.1;
    "RS(10,4) encode, 64 KiB hot": "encode" of RS_10_4 at KIB_64 "hot", BestOther 1.8;
    "RS(10,4) encode, 1 MiB hot": "encode" of RS_10_4 at MIB_1 "hot", Isal 1.6;
    "RS(10,4) encode, 1 MiB hot": "encode" of RS_10_4 at MIB_1 "hot", BestOther 1.35;
    "RS(10,4) encode, 4 MiB hot": "encode" of RS_10_4 at MIB_4 "hot", Isal 1.5;
    "RS(10,4) encode, 4 MiB hot": "encode" of RS_10_4 at MIB_4 "hot", BestOther 1.08;
    "RS(10,4) encode, from 1 MiB cold": "encode" of RS_10_4 at FROM_MIB_1 "cold", Isal 2.7;
    "RS(10,4) encode, from 1 MiB cold, huge pages": "encode" of RS_10_4 at FROM_MIB_1 "cold+thp", Isal 3.0;
    "RS(10,4) encode, from 1 MiB cold": "encode" of RS_10_4 at FROM_MIB_1 "cold", BestOther 1.5;
    "RS(8,3), (20,4), (4,2) encode, from 1 MiB cold": "encode" of OTHER_RS at FROM_MIB_1 "cold", Isal 2.0;
    "RS(8,3), (20,4), (4,2) encode, from 1 MiB cold": "encode" of OTHER_RS at FROM_MIB_1 "cold", BestOther 1.2;
    "LRC(12,2,2) encode, 64 KiB hot": "encode" of LRC at KIB_64 "hot", Isal 1.6;
    "LRC(12,2,2) encode, from 1 MiB cold": "encode" of LRC at FROM_MIB_1 "cold", Isal 2.4;
    "RS(10,4) decode 1 lost, from 1 MiB cold": "decode-1" of RS_10_4 at FROM_MIB_1 "cold", Isal 1.9;
    "RS(10,4) decode 4 lost, from 1 MiB cold": "decode-4" of RS_10_4 at FROM_MIB_1 "cold", Isal 2.5;
    "RS(10,4) encode + CRC64NVME, from 1 MiB cold": "encode+crc64" of RS_10_4 at FROM_MIB_1 "cold", Isal 3.5;
    "RS(10,4) encode, 64 KiB hot": "encode" of RS_10_4 at KIB_64 "hot", Limit 0.97;
    "RS(10,4) encode, from 1 MiB cold": "encode" of RS_10_4 at FROM_MIB_1 "cold", Limit 0.9;
    "RS(10,4) encode + CRC64NVME, 64 KiB hot": "encode+crc64" of RS_10_4 at KIB_64 "hot", Limit 0.95;
};

/// How many times faster than the fastest peer besides ISA-L our row is.
pub(crate) fn ratio_to_best_other(ours: &Row, rows: &[Row]) -> Option<f64> {
    let others = rows
        .iter()
        .filter(|row| same_cell(row, ours) && !matches!(row.contender.as_str(), "penstock" | "isa-l" | "limit"));
    let best = others.map(|row| row.gbps).fold(0.0, f64::max);
    (best > 0.0).then_some(ours.gbps / best)
}

/// Whether two rows are of contenders in the same cell.
pub(crate) fn same_cell(a: &Row, b: &Row) -> bool {
    (&a.code, a.bytes, &a.state, &a.op) == (&b.code, b.bytes, &b.state, &b.op)
}

impl Goal {
    /// The ratios reached, by cell; those that were not measured are missing.
    pub(crate) fn reached(&self, rows: &[Row]) -> Vec<f64> {
        let is_meant = |row: &&Row| {
            row.contender == "penstock"
                && row.op == self.op
                && row.state == self.state
                && self.codes.contains(&row.code.as_str())
                && self.bytes.contains(&row.bytes)
        };
        let ratio = |row: &Row| match self.against {
            Against::Isal => row.ratio_to_isal,
            Against::Limit => row.ratio_to_limit,
            Against::BestOther => ratio_to_best_other(row, rows),
        };
        rows.iter().filter(is_meant).filter_map(ratio).collect()
    }
}
