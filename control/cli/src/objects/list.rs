//! `ls` and `head`: what there is.

use futures::TryStreamExt;
use penstock_client::{Client, GetOptions, ListEntry, ListOptions};
use serde_json::json;

use super::Failed;
use super::place::Remote;
use super::report::Report;

/// How sizes are written.
pub(crate) fn size(bytes: u64, human_readable: bool) -> String {
    if !human_readable || bytes < 1024 {
        return bytes.to_string();
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1024.0 && unit < 4 {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", ["KiB", "MiB", "GiB", "TiB", "PiB"][unit])
}

pub(crate) async fn buckets(client: &Client, report: &Report) -> Result<(), Failed> {
    for bucket in client.list_buckets().await.map_err(Failed::client)? {
        let (name, created) = (&bucket.name, &bucket.created);
        report.value(|| format!("{created} {name}"), || json!({ "bucket": name, "created": created }));
    }
    Ok(())
}

pub(crate) async fn objects(
    client: &Client,
    report: &Report,
    place: &Remote,
    recursive: bool,
    human_readable: bool,
    summarize: bool,
) -> Result<(), Failed> {
    let delimiter = if recursive { String::new() } else { "/".to_owned() };
    let options = ListOptions { prefix: place.key.clone(), delimiter, ..ListOptions::default() };
    let mut list = client.list(&place.bucket, options);
    let (mut count, mut total, mut any) = (0u64, 0u64, false);
    while let Some(entry) = list.try_next().await.map_err(Failed::client)? {
        any = true;
        match entry {
            ListEntry::Object { key, size_bytes, etag, last_modified, storage_class } => {
                count += 1;
                total += size_bytes;
                let text = size(size_bytes, human_readable);
                report.value(
                    || format!("{last_modified} {text:>14} {key}"),
                    || {
                        json!({ "key": key, "bytes": size_bytes, "etag": etag, "last_modified": last_modified,
                                "storage_class": storage_class })
                    },
                );
            }
            ListEntry::Prefix(prefix) => {
                report.value(|| format!("{:>39} {prefix}", "PRE"), || json!({ "prefix": prefix }));
            }
        }
        if !report.is_read() {
            return Ok(());
        }
    }
    if summarize {
        let text = size(total, human_readable);
        report.value(|| format!("{count} objects, {text} bytes"), || json!({ "objects": count, "bytes": total }));
    }
    if !any && !place.key.is_empty() {
        return Err(Failed { message: format!("{place}: nothing begins so"), code: super::CODE_NOT_FOUND });
    }
    Ok(())
}

pub(crate) async fn head(
    client: &Client,
    report: &Report,
    object: &Remote,
    version_id: Option<String>,
) -> Result<(), Failed> {
    let options = GetOptions { version_id, ..GetOptions::default() };
    let info = client.head_opts(&object.bucket, &object.key, &options).await.map_err(Failed::client)?;
    let mut lines = vec![
        ("bytes".to_owned(), info.size_bytes.to_string()),
        ("etag".to_owned(), info.etag.clone()),
        ("last-modified".to_owned(), info.last_modified.clone()),
        ("content-type".to_owned(), info.content_type.clone()),
    ];
    lines.extend(info.version_id.iter().map(|id| ("version-id".to_owned(), id.clone())));
    lines.extend(info.headers.iter().cloned());
    lines.extend(info.user_metadata.iter().map(|(name, value)| (format!("x-amz-meta-{name}"), value.clone())));
    let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    lines.extend(
        info.checksums
            .iter()
            .map(|value| (value.algorithm().name().to_ascii_lowercase(), hexadecimal(value.as_bytes()))),
    );
    if report.is_json() {
        let object: serde_json::Map<String, serde_json::Value> =
            lines.into_iter().map(|(name, value)| (name, value.into())).collect();
        report.value(String::new, || object.into());
        return Ok(());
    }
    for (name, value) in lines {
        report.value(|| format!("{name}: {value}"), || serde_json::Value::Null);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written() {
        assert_eq!(size(5_000_000, false), "5000000");
        assert_eq!((size(1023, true), size(1024, true)), ("1023".to_owned(), "1.0 KiB".to_owned()));
        assert_eq!(size(3 << 40, true), "3.0 TiB");
    }
}
