//! Accounts, users, roles and keys: rows by name, whose bytes penstock-identity understands (secrets in them are sealed
//! before they come here). All of them are read at once when a gateway starts: there are thousands at most.

use super::rows::ROW_VERSION;
use super::{Result, Tables, TablesError, keys};
use crate::kv::RangeRead;

impl Tables {
    /// All rows, by name.
    ///
    /// # Errors
    /// [`TablesError::Unreadable`] for a row of another version; the store's.
    pub async fn identities(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let unreadable = |why: &str| TablesError::Unreadable { row: "identity", why: why.to_owned() };
        let mut rows = Vec::new();
        let all = RangeRead::prefix(&keys::table(keys::IDENTITIES));
        let mut range = all.clone();
        loop {
            let page = self.page(&range).await?;
            for (key, value) in &page.rows {
                let name = std::str::from_utf8(&key[1..]).map_err(|_| unreadable("its name is not UTF-8"))?;
                match value.split_first() {
                    Some((&ROW_VERSION, bytes)) => rows.push((name.to_owned(), bytes.to_vec())),
                    _ => return Err(unreadable("an unknown version")),
                }
            }
            match page.rows.last() {
                Some((last, _)) if page.more => range = RangeRead::between(&keys::after(last), &all.end),
                _ => return Ok(rows),
            }
        }
    }

    /// Sets rows, and removes those that are `None`, in one transaction.
    ///
    /// # Errors
    /// The store's, among them for values that no row can hold.
    pub async fn change_identities(&self, changes: &[(String, Option<Vec<u8>>)]) -> Result<()> {
        transaction!(self, |txn| {
            for (name, value) in changes {
                let key = keys::identity(name);
                match value {
                    Some(bytes) => txn.set(&key, &[&[ROW_VERSION], bytes.as_slice()].concat())?,
                    None => txn.clear(&key)?,
                }
            }
            Ok(())
        })
        .await
    }
}
