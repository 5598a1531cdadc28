//! What there is on either side: the files of a folder, the objects under a prefix.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures::TryStreamExt;
use penstock_client::{Client, ListEntry, ListOptions, modified_time};

use super::Failed;
use super::filter::Filters;
use super::place::Remote;

/// A file or an object, by its name relative to where the command begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) bytes: u64,
    /// When it was modified, Unix milliseconds.
    pub(crate) modified_ms: i64,
}

/// Most entries that one command holds in memory.
const ENTRIES_MAX: usize = 20_000_000;
/// Deepest nesting of folders.
const DEPTH_MAX: usize = 256;

pub(crate) type Entries = BTreeMap<String, Entry>;

fn unix_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The files below a folder, links to files included; links to folders are not followed. A folder that is not there has none.
pub(crate) async fn files(folder: &Path, filters: &Filters) -> Result<Entries, Failed> {
    let (folder, filters) = (folder.to_owned(), filters.clone());
    let walking = tokio::task::spawn_blocking(move || {
        let mut entries = Entries::new();
        if folder.exists() {
            walk(&folder, "", 0, &filters, &mut entries)?;
        }
        Ok(entries)
    });
    walking.await.unwrap_or_else(|error| Err(Failed::other(error.to_string())))
}

fn walk(folder: &Path, prefix: &str, depth: usize, filters: &Filters, entries: &mut Entries) -> Result<(), Failed> {
    if depth > DEPTH_MAX {
        return Err(Failed::other(format!("{}: folders are nested more than {DEPTH_MAX} deep", folder.display())));
    }
    for entry in std::fs::read_dir(folder).map_err(|error| Failed::io(folder.display(), error))? {
        let entry = entry.map_err(|error| Failed::io(folder.display(), error))?;
        let path: PathBuf = entry.path();
        let doing = |error: std::io::Error| Failed::io(path.display(), error);
        let name = entry.file_name().into_string();
        let name =
            name.map_err(|_| Failed::other(format!("{}: its name is not UTF-8, as keys are", path.display())))?;
        let relative = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(doing)?;
        if kind.is_dir() {
            walk(&path, &format!("{relative}/"), depth + 1, filters, entries)?;
            continue;
        }
        // What we have not finished ourselves is nobody's file.
        if name.starts_with('.') && name.ends_with(".part") || !filters.takes(&relative) {
            continue;
        }
        let about = match std::fs::metadata(&path) {
            Ok(about) if about.is_file() => about,
            Ok(_) => continue,
            // A link to nothing.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && kind.is_symlink() => continue,
            Err(error) => return Err(doing(error)),
        };
        let modified_ms = unix_ms(about.modified().map_err(doing)?);
        entries.insert(relative, Entry { bytes: about.len(), modified_ms });
        bounded(entries)?;
    }
    Ok(())
}

fn bounded(entries: &Entries) -> Result<(), Failed> {
    if entries.len() <= ENTRIES_MAX {
        return Ok(());
    }
    Err(Failed::other(format!("more than {ENTRIES_MAX} files or objects: do it prefix by prefix")))
}

/// The objects under a prefix, by what follows it. Those that end in a slash stand for folders and are left out.
pub(crate) async fn objects(client: &Client, place: &Remote, filters: &Filters) -> Result<Entries, Failed> {
    let options = ListOptions { prefix: place.key.clone(), ..ListOptions::default() };
    let mut list = client.list(&place.bucket, options);
    let mut entries = Entries::new();
    while let Some(entry) = list.try_next().await.map_err(Failed::client)? {
        let ListEntry::Object { key, size_bytes, last_modified, .. } = entry else { continue };
        let Some(relative) = key.strip_prefix(&place.key) else { continue };
        if relative.is_empty() || relative.ends_with('/') || !filters.takes(relative) {
            continue;
        }
        let modified_ms =
            modified_time(&last_modified).map_or(0, |time| (time.unix_timestamp_nanos() / 1_000_000) as i64);
        entries.insert(relative.to_owned(), Entry { bytes: size_bytes, modified_ms });
        bounded(&entries)?;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_found_and_links_to_folders_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        std::fs::create_dir_all(at.join("a/b")).unwrap();
        std::fs::write(at.join("a/b/c"), "123").unwrap();
        std::fs::write(at.join("a/.x.e.part"), "1").unwrap();
        std::os::unix::fs::symlink(at, at.join("a/loop")).unwrap();
        std::os::unix::fs::symlink(at.join("nowhere"), at.join("dead")).unwrap();
        std::os::unix::fs::symlink(at.join("a/b/c"), at.join("link")).unwrap();
        let found = files(at, &Filters::default()).await.unwrap();
        let names: Vec<(&str, u64)> = found.iter().map(|(name, entry)| (name.as_str(), entry.bytes)).collect();
        assert_eq!(names, [("a/b/c", 3), ("link", 3)]);
        assert!(files(&at.join("no"), &Filters::default()).await.unwrap().is_empty());
    }
}
