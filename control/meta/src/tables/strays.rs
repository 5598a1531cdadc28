//! Data that a node holds and no row says that it should: noted when it is first seen, so that nothing is called garbage
//! before it has been seen twice, a grace apart. At `Y | node | data id`, when it was first seen.

use penstock_proto::{DataId, NodeId};

use super::{Result, Tables, TablesError, keys, rows};
use crate::kv::RangeRead;

/// Rows of one transaction and of one page.
const ROWS_AT_A_TIME: usize = 1000;

/// Data on a node that seems to be there for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stray {
    /// On which node.
    pub node: NodeId,
    /// What.
    pub data: DataId,
}

impl Tables {
    /// Notes strays that were not noted yet.
    ///
    /// # Errors
    /// The store's.
    pub async fn note_strays(&self, strays: &[Stray], now_unix_ms: u64) -> Result<()> {
        for batch in strays.chunks(ROWS_AT_A_TIME) {
            transaction!(self, |txn| {
                for stray in batch {
                    let key = keys::stray(stray.node.0, stray.data);
                    if txn.get(&key).await?.is_none() {
                        let value = [&[rows::ROW_VERSION][..], &now_unix_ms.to_le_bytes()].concat();
                        txn.set(&key, &value)?;
                    }
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Strays after `after` with when each was first seen, at most `max` and a thousand.
    ///
    /// # Errors
    /// The store's.
    pub async fn strays(&self, after: Option<Stray>, max: usize) -> Result<Vec<(Stray, u64)>> {
        let table = keys::table(keys::STRAYS);
        let begin = after.map_or_else(|| table.clone(), |after| keys::after(&keys::stray(after.node.0, after.data)));
        let limit = max.clamp(1, ROWS_AT_A_TIME);
        let range = RangeRead { snapshot: true, ..RangeRead::between(&begin, &keys::past(&table)).limit(limit) };
        let unreadable = || TablesError::Unreadable { row: "stray", why: "its key or value is none".into() };
        let page = self.page(&range).await?;
        page.rows
            .iter()
            .map(|(key, value)| {
                let (node, data) = keys::parse_stray(key).ok_or_else(unreadable)?;
                let (version, seen) = value.split_first().ok_or_else(unreadable)?;
                let seen: [u8; 8] = seen.try_into().map_err(|_| unreadable())?;
                if *version != rows::ROW_VERSION {
                    return Err(unreadable());
                }
                Ok((Stray { node: NodeId(node), data }, u64::from_le_bytes(seen)))
            })
            .collect()
    }

    /// Forgets strays: they are gone, or were none.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_strays(&self, strays: &[Stray]) -> Result<()> {
        for batch in strays.chunks(ROWS_AT_A_TIME) {
            transaction!(self, |txn| {
                txn.makes_room();
                for stray in batch {
                    txn.clear(&keys::stray(stray.node.0, stray.data))?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
