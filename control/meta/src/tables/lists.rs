//! Part lists: what a completed upload's object consists of, in rows that a range read finds its way through.

use penstock_proto::DataId;

use super::rows::{PART_LIST_ROW_BYTES_MAX, WriteKind, WriteRow, encode};
use super::{PartListRow, PartRow, PartSpan, Result, Tables, TablesError, garbage, keys, manifests, read, write};
use crate::kv::Transaction;

/// Room for the row's version and length, and for the varints that a whole row may need more than its spans alone.
const ROW_OVERHEAD_BYTES: usize = 16;

/// A part list, encoded, not yet written.
pub(super) struct NewList {
    pub(super) id: DataId,
    pub(super) rows: Vec<Vec<u8>>,
}

impl NewList {
    /// The list of these parts, in this order.
    pub(super) fn of(parts: &[PartRow]) -> Result<Self> {
        let (mut rows, mut row, mut row_bytes, mut offset) = (Vec::new(), PartListRow::default(), 0, 0);
        for part in parts {
            let span = PartSpan {
                number: part.number,
                offset,
                size_bytes: part.size_bytes,
                etag_md5: part.md5,
                checksum: part.checksum.clone(),
                data: part.data.clone(),
            };
            offset += part.size_bytes;
            let span_bytes = postcard::experimental::serialized_size(&span)
                .map_err(|error| TablesError::Unreadable { row: "part list", why: error.to_string() })?;
            if row_bytes + span_bytes + ROW_OVERHEAD_BYTES > PART_LIST_ROW_BYTES_MAX && !row.spans.is_empty() {
                rows.push(encode(&std::mem::take(&mut row))?);
                row_bytes = 0;
            }
            row_bytes += span_bytes;
            row.spans.push(span);
        }
        if !row.spans.is_empty() {
            rows.push(encode(&row)?);
        }
        Ok(Self { id: DataId::random(), rows })
    }

    pub(super) fn count(&self) -> u32 {
        self.rows.len() as u32
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.iter().map(Vec::len).sum()
    }

    /// Writes all rows within the caller's transaction.
    pub(super) fn write(&self, txn: &mut dyn Transaction) -> Result<()> {
        for (index, row) in (0..).zip(&self.rows) {
            txn.set(&keys::part_list(self.id, index), row)?;
        }
        Ok(())
    }
}

impl Tables {
    /// Row `index` of a part list; empty past its end.
    ///
    /// # Errors
    /// The store's.
    pub async fn part_list(&self, list: DataId, index: u32) -> Result<Vec<PartSpan>> {
        let key = keys::part_list(list, index);
        let row: Option<PartListRow> = transaction!(self, |txn, key| read(txn, key).await).await?;
        Ok(row.unwrap_or_default().spans)
    }

    /// The row of a list of `count` rows in which the part that holds byte `offset` of the object is, with its index.
    /// The last row for an offset past the end; `None` if the list is gone.
    ///
    /// # Errors
    /// The store's.
    pub async fn part_list_at(&self, list: DataId, count: u32, offset: u64) -> Result<Option<(u32, Vec<PartSpan>)>> {
        self.last_row_where(list, count, |first| first.offset <= offset).await
    }

    /// The row in which the first part after number `number` is, or the one before it, with its index; `None` if the list is
    /// gone.
    ///
    /// # Errors
    /// The store's.
    pub async fn part_list_from(&self, list: DataId, count: u32, number: u32) -> Result<Option<(u32, Vec<PartSpan>)>> {
        self.last_row_where(list, count, |first| first.number <= number).await
    }

    /// The part of that number.
    ///
    /// # Errors
    /// The store's.
    pub async fn part_numbered(&self, list: DataId, count: u32, number: u32) -> Result<Option<PartSpan>> {
        let row = self.last_row_where(list, count, |first| first.number <= number).await?;
        Ok(row.and_then(|(_, spans)| spans.into_iter().find(|span| span.number == number)))
    }

    /// Binary search for the last row of whose first span `holds` is true (row 0 if of none).
    async fn last_row_where(
        &self,
        list: DataId,
        count: u32,
        holds: impl Fn(&PartSpan) -> bool,
    ) -> Result<Option<(u32, Vec<PartSpan>)>> {
        let (mut low, mut high) = (0, count);
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let spans = self.part_list(list, middle).await?;
            let Some(first) = spans.first() else { return Ok(None) };
            if middle == 0 || holds(first) {
                found = Some((middle, spans));
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(found)
    }

    /// Writes a list ahead, under a lease: nothing refers to it yet.
    pub(super) async fn write_list_ahead(&self, list: &NewList, expires_unix_ms: u64) -> Result<()> {
        let row = WriteRow { expires_unix_ms, kind: WriteKind::List };
        transaction!(self, |txn, row| write(txn, &keys::write(list.id), row)).await?;
        let indexed: Vec<(u32, &Vec<u8>)> = (0..).zip(&list.rows).collect();
        for batch in manifests::batches(&indexed, |(_, row)| row.len()) {
            transaction!(self, |txn| {
                garbage::check_write(txn, list.id).await?;
                for (index, row) in batch {
                    txn.set(&keys::part_list(list.id, *index), row)?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
