//! Each command: what it means, job by job.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::TryStreamExt;
use penstock_client::{ByteRange, Client, DeleteKey, GetOptions};
use tokio::io::AsyncWriteExt;

use super::filter::Filters;
use super::place::{Place, Remote, last_part, local_path};
use super::report::Report;
use super::transfer::{Job, run};
use super::walk::{self, Entries, Entry};
use super::{Failed, Objects, Settings, list};

/// Keys of one DeleteObjects: what is reported at a time.
const DELETE_KEYS: usize = 1000;

pub(crate) async fn perform(client: &Client, report: &Report, what: Objects) -> Result<(), Failed> {
    match what {
        Objects::Cp { from, to, recursive, copying, server } => {
            let settings = Settings::new(&server, &copying)?;
            copy(client, &settings, report, &from, &to, recursive, false).await
        }
        Objects::Mv { from, to, recursive, copying, server } => {
            let settings = Settings::new(&server, &copying)?;
            copy(client, &settings, report, &from, &to, recursive, true).await
        }
        Objects::Sync { from, to, delete, size_only, copying, server } => {
            let settings = Settings::new(&server, &copying)?;
            sync(client, &settings, report, (&from, &to), delete, size_only).await
        }
        Objects::Ls { place, recursive, human_readable, summarize, .. } => match place {
            None => list::buckets(client, report).await,
            Some(place) => {
                let place = Remote::parse(&place)?;
                list::objects(client, report, &place, recursive, human_readable, summarize).await
            }
        },
        Objects::Cat { object, range, version_id, .. } => {
            let range = range.as_deref().map(byte_range).transpose()?;
            let options = GetOptions { range, version_id, ..GetOptions::default() };
            cat(client, &Remote::object(&object)?, &options).await
        }
        Objects::Head { object, version_id, .. } => {
            list::head(client, report, &Remote::object(&object)?, version_id).await
        }
        Objects::Rm { object, recursive: false, dry_run, .. } => {
            let object = Remote::object(&object)?;
            // A DELETE of what is not there succeeds: a wrong name on the command line should not.
            client.head(&object.bucket, &object.key).await.map_err(Failed::client)?;
            if !dry_run {
                client.delete(&object.bucket, &object.key).await.map_err(Failed::client)?;
            }
            report.done("delete", &object.to_string(), None, 0, dry_run);
            Ok(())
        }
        Objects::Rm { object, recursive: true, dry_run, filters, .. } => {
            remove_all(client, report, &Remote::parse(&object)?.folder(), &filters, dry_run).await
        }
        Objects::Mb { bucket, .. } => {
            let bucket = Remote::bucket(&bucket)?;
            client.create_bucket(&bucket.bucket).await.map_err(Failed::client)?;
            report.done("make_bucket", &bucket.to_string(), None, 0, false);
            Ok(())
        }
        Objects::Rb { bucket, force, .. } => {
            let bucket = Remote::bucket(&bucket)?;
            if force {
                remove_all(client, report, &bucket, &Filters::default(), false).await?;
            }
            client.delete_bucket(&bucket.bucket).await.map_err(Failed::client)?;
            report.done("remove_bucket", &bucket.to_string(), None, 0, false);
            Ok(())
        }
        Objects::Presign { object, expires_in, method, .. } => {
            let object = Remote::object(&object)?;
            let expires = Duration::from_secs(expires_in);
            let url = client.presign(&method, &object.bucket, &object.key, expires).await.map_err(Failed::client)?;
            report.value(|| url.clone(), || serde_json::json!({ "url": url.clone(), "expires_in": expires_in }));
            Ok(())
        }
    }
}

/// `FIRST-LAST`, `FIRST-` or `-LENGTH`, as in a Range header.
fn byte_range(text: &str) -> Result<ByteRange, Failed> {
    let wrong = || Failed::usage(format!("--range {text:?}: write FIRST-LAST, FIRST- or -LENGTH"));
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    match (first, last) {
        ("", length) => Ok(ByteRange::Last(number(length)?)),
        (first, "") => Ok(ByteRange::From(number(first)?)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            let end = last.checked_add(1).filter(|end| *end > first).ok_or_else(wrong)?;
            Ok(ByteRange::Span(first..end))
        }
    }
}

/// Standard input or output as a file: read and written in large pieces, with no lock and no copy in between.
fn standard(descriptor: BorrowedFd<'_>) -> std::io::Result<tokio::fs::File> {
    Ok(tokio::fs::File::from_std(std::fs::File::from(descriptor.try_clone_to_owned()?)))
}

async fn cat(client: &Client, object: &Remote, options: &GetOptions) -> Result<(), Failed> {
    let doing = |error: std::io::Error| Failed::io("standard output", error);
    let (_, _, mut pieces) = client.get_stream(&object.bucket, &object.key, options).await.map_err(Failed::client)?;
    let mut out = standard(std::io::stdout().as_fd()).map_err(doing)?;
    while let Some(piece) = pieces.try_next().await.map_err(Failed::client)? {
        match out.write_all(&piece).await {
            // Whoever reads has seen enough: `penstock cat ... | head`.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(doing)?,
        }
    }
    match out.flush().await {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(doing(error)),
        _ => Ok(()),
    }
}

async fn copy(
    client: &Client,
    settings: &Settings,
    report: &Report,
    from: &str,
    to: &str,
    recursive: bool,
    moves: bool,
) -> Result<(), Failed> {
    let (from, to, to_text) = (Place::parse(from)?, Place::parse(to)?, to);
    if recursive {
        let jobs = below(client, settings, &from, &to).await?;
        run(client, settings, report, jobs, moves).await;
        return Ok(());
    }
    let (job, bytes) = match (from, to) {
        (Place::Standard, Place::Remote(to)) if !moves && !to.key.is_empty() && !to.key.ends_with('/') => {
            let options = settings.put_options(Path::new("-"));
            if !settings.dry_run {
                let given = standard(std::io::stdin().as_fd()).map_err(|error| Failed::io("standard input", error))?;
                let put = client.put_reader(&to.bucket, &to.key, given, options).await;
                put.map_err(Failed::client)?;
            }
            report.done("upload", "-", Some(&to.to_string()), 0, settings.dry_run);
            return Ok(());
        }
        (Place::Remote(from), Place::Standard) if !moves && !from.key.is_empty() => {
            return cat(client, &from, &GetOptions::default()).await;
        }
        (Place::Local(from), Place::Remote(to)) => {
            let about = std::fs::metadata(&from).map_err(|error| Failed::io(from.display(), error))?;
            if !about.is_file() {
                return Err(Failed::usage(format!("{}: no file; --recursive copies a folder", from.display())));
            }
            let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let to = if to.key.is_empty() || to.key.ends_with('/') { to.with_key(to.key.clone() + &name) } else { to };
            (Job::Upload(from, to), about.len())
        }
        (Place::Remote(from), Place::Local(to)) => {
            let from = Remote::object(&from.to_string())?;
            let to = match to.is_dir() || to_text.ends_with('/') {
                true => local_path(&to, last_part(&from.key))?,
                false => to,
            };
            let bytes = client.head(&from.bucket, &from.key).await.map_err(Failed::client)?.size_bytes;
            (Job::Download(from, to), bytes)
        }
        (Place::Remote(from), Place::Remote(to)) => {
            let from = Remote::object(&from.to_string())?;
            let named = to.key.is_empty() || to.key.ends_with('/');
            let to = if named { to.with_key(to.key.clone() + last_part(&from.key)) } else { to };
            (Job::Copy(from, to), 0)
        }
        (Place::Local(_), Place::Local(_)) => {
            return Err(Failed::usage("one of the two is s3://BUCKET/KEY: this copies no files to files".to_owned()));
        }
        (from, to) => return Err(Failed::usage(format!("{from} to {to}: this can't be done"))),
    };
    run(client, settings, report, vec![(job, bytes)], moves).await;
    Ok(())
}

/// Either side of a recursive command: what is there, and what becomes of a name.
enum Side {
    Remote(Remote),
    Local(PathBuf),
}

impl Side {
    fn new(place: &Place) -> Result<Self, Failed> {
        match place {
            Place::Remote(remote) => Ok(Self::Remote(remote.folder())),
            Place::Local(path) => Ok(Self::Local(path.clone())),
            Place::Standard => Err(Failed::usage("- is one file: it can't be copied recursively".to_owned())),
        }
    }

    async fn entries(&self, client: &Client, filters: &Filters) -> Result<Entries, Failed> {
        match self {
            Self::Remote(remote) => walk::objects(client, remote, filters).await,
            Self::Local(path) => walk::files(path, filters).await,
        }
    }
}

/// The job that copies this name from one side to the other.
fn job(from: &Side, to: &Side, name: &str) -> Result<Job, Failed> {
    match (from, to) {
        (Side::Local(from), Side::Remote(to)) => Ok(Job::Upload(from.join(name), to.with_key(to.key.clone() + name))),
        (Side::Remote(from), Side::Local(to)) => {
            Ok(Job::Download(from.with_key(from.key.clone() + name), local_path(to, name)?))
        }
        (Side::Remote(from), Side::Remote(to)) => {
            Ok(Job::Copy(from.with_key(from.key.clone() + name), to.with_key(to.key.clone() + name)))
        }
        (Side::Local(_), Side::Local(_)) => {
            Err(Failed::usage("one of the two is s3://BUCKET/PREFIX: this copies no files to files".to_owned()))
        }
    }
}

fn sides(from: &Place, to: &Place) -> Result<(Side, Side), Failed> {
    if let Place::Local(folder) = from
        && !folder.is_dir()
    {
        return Err(Failed { message: format!("{from}: no such folder"), code: super::CODE_NOT_FOUND });
    }
    let (from, to) = (Side::new(from)?, Side::new(to)?);
    if matches!((&from, &to), (Side::Local(_), Side::Local(_))) {
        job(&from, &to, "")?;
    }
    Ok((from, to))
}

async fn below(client: &Client, settings: &Settings, from: &Place, to: &Place) -> Result<Vec<(Job, u64)>, Failed> {
    let (source, target) = sides(from, to)?;
    let entries = source.entries(client, &settings.filters).await?;
    if entries.is_empty() && matches!(source, Side::Remote(_)) {
        return Err(Failed { message: format!("{from}: there is nothing there"), code: super::CODE_NOT_FOUND });
    }
    entries.iter().map(|(name, entry)| Ok((job(&source, &target, name)?, entry.bytes))).collect()
}

/// Whether what is at the target is to be replaced.
fn differs(source: &Entry, target: Option<&Entry>, size_only: bool) -> bool {
    match target {
        None => true,
        Some(target) if source.bytes != target.bytes => true,
        // Seconds: HTTP dates have no finer ones.
        Some(target) => !size_only && source.modified_ms / 1000 > target.modified_ms / 1000,
    }
}

async fn sync(
    client: &Client,
    settings: &Settings,
    report: &Report,
    (from, to): (&str, &str),
    delete: bool,
    size_only: bool,
) -> Result<(), Failed> {
    let (source, target) = sides(&Place::parse(from)?, &Place::parse(to)?)?;
    let have = source.entries(client, &settings.filters).await?;
    let there = target.entries(client, &settings.filters).await?;
    let mut jobs = Vec::new();
    for (name, entry) in have.iter().filter(|(name, entry)| differs(entry, there.get(*name), size_only)) {
        jobs.push((job(&source, &target, name)?, entry.bytes));
    }
    run(client, settings, report, jobs, false).await;
    if delete {
        // Only what was taken into account on both sides: what is excluded stays.
        let extra: BTreeSet<&String> = there.keys().filter(|name| !have.contains_key(*name)).collect();
        let removals = extra.into_iter().map(|name| match &target {
            Side::Remote(remote) => (Job::RemoveObject(remote.with_key(remote.key.clone() + name)), 0),
            Side::Local(folder) => (Job::RemoveFile(folder.join(name)), 0),
        });
        run(client, settings, report, removals.collect(), false).await;
    }
    Ok(())
}

/// Removes all under a prefix, a thousand a request.
async fn remove_all(
    client: &Client,
    report: &Report,
    place: &Remote,
    filters: &Filters,
    dry_run: bool,
) -> Result<(), Failed> {
    let options = penstock_client::ListOptions { prefix: place.key.clone(), ..Default::default() };
    let entries = client.list(&place.bucket, options);
    let keys = entries.try_filter_map(|entry| async move {
        Ok(match entry {
            penstock_client::ListEntry::Object { key, .. } => Some(key),
            penstock_client::ListEntry::Prefix(_) => None,
        })
    });
    let keys = keys.try_filter(|key| {
        let takes = filters.takes(key.strip_prefix(&place.key).unwrap_or(key));
        async move { takes }
    });
    let mut batches = Box::pin(keys.try_chunks(DELETE_KEYS));
    while let Some(batch) = batches.try_next().await.map_err(|error| Failed::client(error.1))? {
        let batch: Vec<DeleteKey> = batch.into_iter().map(DeleteKey::from).collect();
        let name = |key: &str| place.with_key(key).to_string();
        if dry_run {
            batch.iter().for_each(|key| report.done("delete", &name(&key.key), None, 0, true));
            continue;
        }
        for outcome in client.delete_many(&place.bucket, &batch).await.map_err(Failed::client)? {
            match outcome.outcome {
                Ok(()) => report.done("delete", &name(&outcome.key), None, 0, false),
                Err(error) => report.failed("delete", &name(&outcome.key), None, &Failed::client(error)),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(byte_range("0-4").unwrap(), ByteRange::Span(0..5));
        assert_eq!(byte_range("7-").unwrap(), ByteRange::From(7));
        assert_eq!(byte_range("-3").unwrap(), ByteRange::Last(3));
        for bad in ["", "-", "5-4", "a-b", "1", "0-18446744073709551615"] {
            assert!(byte_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_missing_longer_or_newer_is_copied() {
        let entry = |bytes, modified_ms| Entry { bytes, modified_ms };
        assert!(differs(&entry(1, 0), None, false));
        assert!(differs(&entry(1, 0), Some(&entry(2, 9_000)), true));
        assert!(differs(&entry(1, 2_000), Some(&entry(1, 1_000)), false));
        assert!(!differs(&entry(1, 2_000), Some(&entry(1, 1_000)), true));
        assert!(!differs(&entry(1, 1_900), Some(&entry(1, 1_100)), false), "within the same second");
    }
}
