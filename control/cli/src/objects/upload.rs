//! A file to an object. What is long goes in parts; an upload that an earlier run has left open is gone on with: parts that the
//! server has, of the length and with the CRC64NVME of what the file has there, are not sent again.

use std::collections::HashMap;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, stream};
use penstock_client::{Client, OpenUpload, Part, PutOptions, UploadId};
use penstock_digest::crc64nvme;

use super::place::Remote;
use super::report::Report;
use super::{Failed, Settings};

/// Files from this length on go in parts that another run may go on with.
const PARTS_FROM_BYTES: u64 = 64 << 20;
/// Bytes of each part, unless the file is so long that there would be too many.
const PART_BYTES: u64 = 16 << 20;
/// Most parts of an upload, as S3 has it.
const PARTS_MAX: u64 = 10_000;

/// The length of parts, which depends on the file's alone: a later run must cut it in the same way.
fn part_bytes(settings: &Settings, bytes: u64) -> u64 {
    let least = bytes.div_ceil(PARTS_MAX).next_multiple_of(1 << 20);
    settings.part_bytes.unwrap_or(PART_BYTES).max(least)
}

/// Stores the file `from` as `to`; how many bytes that were.
pub(crate) async fn upload(
    client: &Client,
    settings: &Settings,
    report: &Report,
    from: &Path,
    to: &Remote,
) -> Result<u64, Failed> {
    let doing = |error: std::io::Error| Failed::io(from.display(), error);
    let file = std::fs::File::open(from).map_err(doing)?;
    let about = file.metadata().map_err(doing)?;
    if !about.is_file() {
        return Err(Failed::usage(format!("{}: no file; --recursive copies what is in a folder", from.display())));
    }
    let bytes = about.len();
    report.expect(bytes);
    let options = settings.put_options(from);
    if bytes < PARTS_FROM_BYTES.max(2 * part_bytes(settings, bytes)) {
        let reader = tokio::fs::File::from_std(file);
        client.put_reader(&to.bucket, &to.key, reader, options).await.map_err(Failed::client)?;
        report.moved(bytes);
        return Ok(bytes);
    }
    in_parts(client, settings, report, Arc::new(file), bytes, to, &options).await?;
    let now = std::fs::metadata(from).map_err(doing)?;
    if now.len() != bytes || now.modified().ok() != about.modified().ok() {
        let message =
            format!("{}: it was changed while it was uploaded, and {to} is a mixture: run it again", from.display());
        return Err(Failed { message, code: super::CODE_WRONG_BYTES });
    }
    Ok(bytes)
}

async fn in_parts(
    client: &Client,
    settings: &Settings,
    report: &Report,
    file: Arc<std::fs::File>,
    bytes: u64,
    to: &Remote,
    options: &PutOptions,
) -> Result<(), Failed> {
    let (upload, have) = match settings.resume {
        true => left_open(client, to).await,
        false => None,
    }
    .unwrap_or_default();
    let upload = match upload {
        Some(upload) => upload,
        None => client.create_upload(&to.bucket, &to.key, options).await.map_err(Failed::client)?,
    };
    let part_bytes = part_bytes(settings, bytes);
    let puts = (0..bytes).step_by(part_bytes as usize).zip(1u32..).map(|(begin, number)| {
        let (file, upload, have) = (Arc::clone(&file), upload.clone(), have.get(&number).cloned());
        let length = part_bytes.min(bytes - begin) as usize;
        async move {
            let reading = tokio::task::spawn_blocking(move || {
                let mut data = vec![0; length];
                file.read_exact_at(&mut data, begin).map(|()| data)
            });
            let data = match reading.await {
                Ok(data) => data.map_err(|error| Failed::io(format!("the file for {to}"), error))?,
                Err(error) => return Err(Failed::other(format!("the file for {to}: {error}"))),
            };
            let same = |part: &Part| part.size_bytes == length as u64 && part.crc64 == Some(crc64nvme(&data));
            let part = match have.filter(same) {
                Some(part) => part,
                None => client
                    .upload_part(&to.bucket, &to.key, &upload, number, &[&data])
                    .await
                    .map_err(|error| unfinished(Failed::client(error)))?,
            };
            report.moved(length as u64);
            Ok::<Part, Failed>(part)
        }
    });
    let mut puts = Box::pin(stream::iter(puts).buffered(settings.parts_at_a_time()));
    let mut parts = Vec::new();
    while let Some(part) = puts.next().await {
        parts.push(part?);
    }
    let done = client.complete_upload(&to.bucket, &to.key, &upload, &parts, options).await;
    done.map(drop).map_err(|error| unfinished(Failed::client(error)))
}

fn unfinished(failed: Failed) -> Failed {
    Failed { message: format!("{}; what was uploaded is kept: run it again to go on", failed.message), ..failed }
}

/// The newest upload of this key that is open, and its parts. None where they can't be listed: then all is sent.
async fn left_open(client: &Client, to: &Remote) -> Option<(Option<UploadId>, HashMap<u32, Part>)> {
    let open = client.list_uploads(&to.bucket, &to.key).await.ok()?;
    let of_key = open.into_iter().filter(|upload| upload.key == to.key);
    let OpenUpload { upload, .. } = of_key.max_by(|a, b| a.initiated.cmp(&b.initiated))?;
    let parts = client.list_parts(&to.bucket, &to.key, &upload).await.ok()?;
    Some((Some(upload), parts.into_iter().map(|part| (part.number, part)).collect()))
}
