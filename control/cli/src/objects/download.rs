//! An object to a file: beside it as `.NAME.ETAG.part` first, and renamed when it is whole and its checksum holds.
//!
//! A part file that is there already, of the same object (the ETag is in its name), is gone on with. What is long is read
//! in windows, some at a time, each under If-Match; they are written in order, so that the file's length says how far it is.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use futures::{StreamExt, stream};
use penstock_client::{Client, ClientError, GetOptions, ObjectInfo, modified_time};
use penstock_digest::{ChecksumAlgorithm, ChecksumHasher, ChecksumValue};

use super::place::Remote;
use super::report::Report;
use super::{Failed, Settings};

/// What is no longer than this is read at once.
const WHOLE_BYTES_MAX: u64 = 32 << 20;
/// Bytes of each window of what is longer.
const WINDOW_BYTES: u64 = 16 << 20;
/// Windows on their way at a time: a quarter of the client's memory.
const WINDOWS: usize = 4;
/// Read at a time of a part file that is gone on with.
const READ_BYTES: usize = 1 << 20;
/// Longest part of an ETag in a file's name.
const ETAG_CHARS_MAX: usize = 64;

fn part_path(to: &Path, etag: &str) -> PathBuf {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let etag: String = etag.chars().filter(char::is_ascii_alphanumeric).take(ETAG_CHARS_MAX).collect();
    // As long as names may be: the object's is cut, the ETag tells which it is.
    let name: String = name.chars().take(100).collect();
    to.with_file_name(format!(".{name}.{etag}.part"))
}

/// The checksum to hold the file against: one that takes little time.
fn expected(info: &ObjectInfo) -> Option<ChecksumValue> {
    let wanted = [ChecksumAlgorithm::Crc64Nvme, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc32];
    wanted.iter().find_map(|algorithm| info.checksums.iter().find(|value| value.algorithm() == *algorithm).copied())
}

/// Reads `from` to the file `to`; how many bytes that were.
pub(crate) async fn download(
    client: &Client,
    settings: &Settings,
    report: &Report,
    from: &Remote,
    to: &Path,
) -> Result<u64, Failed> {
    let info = client.head(&from.bucket, &from.key).await.map_err(Failed::client)?;
    report.expect(info.size_bytes);
    if let Some(folder) = to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        tokio::fs::create_dir_all(folder).await.map_err(|error| Failed::io(folder.display(), error))?;
    }
    let part = part_path(to, &info.etag);
    let doing = |error: std::io::Error| Failed::io(part.display(), error);
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&part).map_err(doing)?;
    // Two programs that write to one file would make a third thing of it.
    file.try_lock().map_err(|_| Failed::other(format!("{}: another program is writing it", part.display())))?;
    let begun = file.metadata().map_err(doing)?.len();
    let resumable = settings.resume && begun <= info.size_bytes && !info.etag.is_empty();
    let begin = if resumable { begun } else { 0 };
    let checksum = expected(&info);
    let mut hasher = checksum.map(|value| ChecksumHasher::new(value.algorithm()));
    if begin == 0 {
        file.set_len(0).map_err(doing)?;
    } else {
        read_again(&mut file, begin, hasher.as_mut()).map_err(doing)?;
        report.moved(begin);
    }
    file.seek(SeekFrom::Start(begin)).map_err(doing)?;
    let mut write = |piece: &[u8]| {
        if let Some(hasher) = &mut hasher {
            hasher.update(piece);
        }
        report.moved(piece.len() as u64);
        file.write_all(piece)
    };
    let mut at = begin;
    if begin == 0 && info.size_bytes <= WHOLE_BYTES_MAX {
        let options = GetOptions { if_match: condition(&info), ..GetOptions::default() };
        let object = client.get_opts(&from.bucket, &from.key, &options).await;
        let object = object.map_err(|error| changed(from, error))?;
        for piece in object.body.pieces() {
            write(piece).map_err(doing)?;
        }
        at = object.body.len() as u64;
    } else {
        let windows = (begin..info.size_bytes).step_by(WINDOW_BYTES as usize);
        let reads = windows.map(|begin| {
            let end = (begin + WINDOW_BYTES).min(info.size_bytes);
            let options = GetOptions { if_match: condition(&info), ..GetOptions::range(begin..end) };
            async move { client.get_opts(&from.bucket, &from.key, &options).await }
        });
        let mut reads = Box::pin(stream::iter(reads).buffered(WINDOWS));
        while let Some(object) = reads.next().await {
            let object = object.map_err(|error| changed(from, error))?;
            for piece in object.body.pieces() {
                write(piece).map_err(doing)?;
            }
            at += object.body.len() as u64;
        }
    }
    if at != info.size_bytes {
        let message = format!("{from}: {at} of {} bytes came; run it again to go on", info.size_bytes);
        return Err(Failed { message, code: super::CODE_WRONG_BYTES });
    }
    if let (Some(expected), Some(hasher)) = (checksum, hasher) {
        let computed = hasher.finish();
        if computed != expected {
            drop(file);
            let _ = std::fs::remove_file(&part);
            let message = format!(
                "{from}: the file has {computed:?}, the server says {expected:?}; it was removed: run it again"
            );
            return Err(Failed { message, code: super::CODE_WRONG_BYTES });
        }
    }
    file.sync_data().map_err(doing)?;
    if let Some(time) = modified_time(&info.last_modified) {
        // A file system that keeps no times is no reason to fail.
        let _ = file.set_modified(time.into());
    }
    drop(file);
    std::fs::rename(&part, to).map_err(|error| Failed::io(to.display(), error))?;
    Ok(info.size_bytes)
}

/// A condition that no longer holds: the object is another by now.
fn changed(from: &Remote, error: ClientError) -> Failed {
    if !matches!(error, ClientError::Precondition(_)) {
        return Failed::client(error);
    }
    let message = format!("{from}: it was replaced while it was read: run it again");
    Failed { message, code: super::CODE_WRONG_BYTES }
}

fn condition(info: &ObjectInfo) -> Option<String> {
    Some(info.etag.clone()).filter(|etag| !etag.is_empty())
}

/// What an earlier run has written goes into the checksum too.
fn read_again(file: &mut File, bytes: u64, hasher: Option<&mut ChecksumHasher>) -> std::io::Result<()> {
    let Some(hasher) = hasher else { return Ok(()) };
    file.seek(SeekFrom::Start(0))?;
    let (mut room, mut left) = (vec![0; READ_BYTES], bytes);
    while left > 0 {
        let want = left.min(READ_BYTES as u64) as usize;
        file.read_exact(&mut room[..want])?;
        hasher.update(&room[..want]);
        left -= want as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_file_names_its_object() {
        assert_eq!(part_path(Path::new("/a/b.bin"), "ab\"/..c-2"), Path::new("/a/.b.bin.abc2.part"));
        assert!(part_path(Path::new(&"x".repeat(300)), &"e".repeat(300)).as_os_str().len() < 255);
    }
}
