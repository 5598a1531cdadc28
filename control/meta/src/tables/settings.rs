//! Small settings of the whole store: format version, code, cluster map. Bytes that their owners understand.

use super::rows::ROW_VERSION;
use super::{Result, Tables, TablesError, keys};

impl Tables {
    /// The setting of that name.
    ///
    /// # Errors
    /// [`TablesError::Unreadable`] for a row of another version; the store's.
    pub async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let key = keys::setting(name);
        let value = transaction!(self, |txn, key| Ok(txn.get(key).await?)).await?;
        match value.as_deref().map(<[u8]>::split_first) {
            None => Ok(None),
            Some(Some((&ROW_VERSION, bytes))) => Ok(Some(bytes.to_vec())),
            Some(_) => Err(TablesError::Unreadable { row: "setting", why: format!("{name} has an unknown version") }),
        }
    }

    /// Sets it.
    ///
    /// # Errors
    /// The store's, among them for values that no row can hold.
    pub async fn set_setting(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let key = keys::setting(name);
        let value = [&[ROW_VERSION], bytes].concat();
        transaction!(self, |txn, key, value| Ok(txn.set(key, value)?)).await
    }
}
