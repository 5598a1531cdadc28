//! Keys of penstock-vault: rows by name, whose bytes are sealed before they come here.

use super::rows::ROW_VERSION;
use super::{Result, Tables, TablesError, keys};
use crate::kv::RangeRead;

fn content(name: &str, value: &[u8]) -> Result<Vec<u8>> {
    match value.split_first() {
        Some((&ROW_VERSION, bytes)) => Ok(bytes.to_vec()),
        _ => Err(TablesError::Unreadable { row: "vault", why: format!("{name} has an unknown version") }),
    }
}

impl Tables {
    /// The row of that name.
    ///
    /// # Errors
    /// [`TablesError::Unreadable`] for a row of another version; the store's.
    pub async fn vault_row(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let key = keys::vault(name);
        let value = transaction!(self, |txn, key| Ok(txn.get(key).await?)).await?;
        value.map(|value| content(name, &value)).transpose()
    }

    /// All rows whose names begin so, by name.
    ///
    /// # Errors
    /// As [`Tables::vault_row`].
    pub async fn vault_rows(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let mut rows = Vec::new();
        let all = RangeRead::prefix(&keys::vault(prefix));
        let mut range = all.clone();
        loop {
            let page = self.page(&range).await?;
            for (key, value) in &page.rows {
                let name = std::str::from_utf8(&key[1..])
                    .map_err(|_| TablesError::Unreadable { row: "vault", why: "its name is not UTF-8".to_owned() })?;
                rows.push((name.to_owned(), content(name, value)?));
            }
            match page.rows.last() {
                Some((last, _)) if page.more => range = RangeRead::between(&keys::after(last), &all.end),
                _ => return Ok(rows),
            }
        }
    }

    /// Sets a row, if it still is what it was (`None`: not there). Whether it was.
    ///
    /// # Errors
    /// As [`Tables::vault_row`], and for values that no row can hold.
    pub async fn replace_vault_row(&self, name: &str, before: Option<&[u8]>, bytes: &[u8]) -> Result<bool> {
        let key = keys::vault(name);
        let value = [&[ROW_VERSION], bytes].concat();
        transaction!(self, |txn, key, value| {
            let found = txn.get(key).await?.map(|found| content(name, &found)).transpose()?;
            if found.as_deref() != before {
                return Ok(false);
            }
            txn.set(key, value)?;
            Ok(true)
        })
        .await
    }
}
