//! `GetObjectAttributes`.

use penstock_meta::tables::Layout;
use penstock_proto::limits;

use crate::api::{CustomerKey, ObjectAttributes, ObjectName, PartInfo};
use crate::convert::object_info;
use crate::error::Result;
use crate::gateway::Gateway;
use crate::{checksums, encryption, etag, names};

impl Gateway {
    /// `GetObjectAttributes`: what is known of a version, and at most `max_parts` of its parts, those after number `after`.
    ///
    /// # Errors
    /// As [`Gateway::head_object`].
    pub async fn object_attributes(
        &self,
        name: &ObjectName,
        after: u32,
        max_parts: usize,
        customer_key: Option<&CustomerKey>,
    ) -> Result<ObjectAttributes> {
        let _admitted = self.inner.admit()?;
        names::check_key(&name.key)?;
        let bucket = self.inner.bucket(&name.bucket).await?;
        let row = self.lookup(&bucket, &name.key, name.version_id.as_deref()).await?;
        encryption::check_customers_key(row.encryption.as_ref(), customer_key)?;
        let (mut parts, mut more) = (Vec::new(), false);
        let max_parts = max_parts.min(limits::LIST_KEYS_MAX);
        if let Layout::Parts { list, count } = row.layout {
            let tables = &self.inner.tables;
            let mut found = tables.part_list_from(list, count, after).await?;
            'rows: while let Some((index, spans)) = found {
                for span in spans.into_iter().filter(|span| span.number > after) {
                    if parts.len() == max_parts {
                        more = true;
                        break 'rows;
                    }
                    let checksum = span.checksum.as_ref().map(checksums::from_row).transpose()?;
                    parts.push(PartInfo {
                        part_number: span.number,
                        etag: etag::of_md5(span.etag_md5),
                        size_bytes: span.size_bytes,
                        modified_unix_ms: row.modified_unix_ms,
                        checksum: checksum.map(|checksum| checksum.value),
                        source_version_id: None,
                        encryption: None,
                    });
                }
                let next = index + 1;
                found = if next < count { Some((next, tables.part_list(list, next).await?)) } else { None };
            }
        }
        Ok(ObjectAttributes { info: object_info(&bucket, name.key.clone(), row)?, parts, more })
    }
}
