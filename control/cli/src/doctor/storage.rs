//! The data folder's disk: room, O_DIRECT, and what a flush costs, tried with a file that is removed again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use super::Finding;

/// A block that any disk takes by O_DIRECT.
const BLOCK_BYTES: usize = 4096;
/// Flushes that are timed; the median counts.
const FLUSHES: usize = 9;
/// A PUT waits for a flush: past this it shows.
const FLUSH_US_WARN: u128 = 20_000;
/// Free space below which a store is not worth starting.
const FREE_BYTES_WANTED: u64 = 1 << 30;

pub(super) fn examine(data: &Path) -> Vec<Finding> {
    let place = nearest(data);
    let mut findings = vec![room(place)];
    let name = format!(".penstock-doctor-{}", std::process::id());
    let path = place.join(name);
    let tried = try_file(&path);
    // What could not be made can't be removed, and needs not be.
    let _ = std::fs::remove_file(&path);
    match tried {
        Ok(tried) => findings.extend(tried),
        Err(error) => findings.push(Finding::lacking(
            "data folder",
            true,
            format!("{} can't be written: {error}", place.display()),
            format!("name another folder by --data, or give it to this user: chown $(id -u) {}", place.display()),
        )),
    }
    findings
}

/// The folder itself, or what is there of the way to it.
fn nearest(data: &Path) -> &Path {
    let there = data.ancestors().find(|path| path.is_dir());
    there.unwrap_or(Path::new("."))
}

fn room(place: &Path) -> Finding {
    let topic = "disk";
    match rustix::fs::statvfs(place) {
        Ok(answer) => {
            let (free, all) = (answer.f_bavail * answer.f_frsize, answer.f_blocks * answer.f_frsize);
            let found = format!("{}: {} of {} MiB are free", place.display(), free >> 20, all >> 20);
            if free >= FREE_BYTES_WANTED {
                Finding::ok(topic, found)
            } else {
                Finding::warn(topic, found, "name a folder on a larger disk by --data")
            }
        }
        Err(error) => {
            Finding::lacking(topic, true, format!("{}: {error}", place.display()), "name another folder by --data")
        }
    }
}

fn try_file(path: &Path) -> io::Result<Vec<Finding>> {
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    file.write_all_at(&[0; BLOCK_BYTES], 0)?;
    Ok(vec![direct(write_direct(path)), flush(&mut timed_flushes(&file)?)])
}

fn write_direct(path: &Path) -> io::Result<()> {
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).expect("a flag of open(2) fits its argument");
    let file = OpenOptions::new().write(true).custom_flags(direct).open(path)?;
    // O_DIRECT wants memory that begins at a block's multiple.
    let memory = vec![0; 2 * BLOCK_BYTES];
    let begin = memory.as_ptr().align_offset(BLOCK_BYTES);
    file.write_all_at(&memory[begin..begin + BLOCK_BYTES], 0)
}

pub(super) fn direct(answer: io::Result<()>) -> Finding {
    match answer {
        Ok(()) => Finding::ok("O_DIRECT", "a block was written past the page cache"),
        Err(error) => Finding::warn(
            "O_DIRECT",
            format!("this file system refuses it: {error}"),
            "data takes the way through the page cache; ext4 or xfs on a disk of its own is faster",
        ),
    }
}

fn timed_flushes(file: &File) -> io::Result<Vec<u128>> {
    let mut times_us = Vec::with_capacity(FLUSHES);
    for round in 0..FLUSHES {
        file.write_all_at(&[u8::try_from(round).unwrap_or(0); BLOCK_BYTES], 0)?;
        let started = Instant::now();
        file.sync_data()?;
        times_us.push(started.elapsed().as_micros());
    }
    Ok(times_us)
}

pub(super) fn flush(times_us: &mut [u128]) -> Finding {
    times_us.sort_unstable();
    let median_us = times_us[times_us.len() / 2];
    let found = format!("{median_us} us in the median of {FLUSHES}");
    if median_us <= FLUSH_US_WARN {
        Finding::ok("fdatasync", found)
    } else {
        Finding::warn(
            "fdatasync",
            found,
            "every PUT waits for one: a disk with power-loss protection flushes in tens of microseconds",
        )
    }
}
