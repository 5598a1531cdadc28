//! Many copies at a time: what `cp`, `mv` and `sync` are made of.

use std::path::PathBuf;

use futures::{StreamExt, stream};
use penstock_client::{Client, CopyOptions, CopySource};

use super::place::Remote;
use super::report::Report;
use super::{Failed, Settings, download, upload};

/// What is longer than this takes one of the few places for what is long.
const LARGE_BYTES: u64 = 32 << 20;

/// One thing to be done.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    Upload(PathBuf, Remote),
    Download(Remote, PathBuf),
    Copy(Remote, Remote),
    RemoveFile(PathBuf),
    RemoveObject(Remote),
}

impl Job {
    fn action(&self, moved: bool) -> &'static str {
        match (self, moved) {
            (Self::RemoveFile(_) | Self::RemoveObject(_), _) => "delete",
            (_, true) => "move",
            (Self::Upload(..), false) => "upload",
            (Self::Download(..), false) => "download",
            (Self::Copy(..), false) => "copy",
        }
    }

    fn ends(&self) -> (String, Option<String>) {
        match self {
            Self::Upload(from, to) => (from.display().to_string(), Some(to.to_string())),
            Self::Download(from, to) => (from.to_string(), Some(to.display().to_string())),
            Self::Copy(from, to) => (from.to_string(), Some(to.to_string())),
            Self::RemoveFile(path) => (path.display().to_string(), None),
            Self::RemoveObject(object) => (object.to_string(), None),
        }
    }
}

/// Does all of them, `settings.parallel` at a time. What fails is reported, and the others go on. `moves`: what was copied is then
/// removed.
pub(crate) async fn run(client: &Client, settings: &Settings, report: &Report, jobs: Vec<(Job, u64)>, moves: bool) {
    let work = jobs.into_iter().map(|(job, bytes)| async move {
        let (action, (from, to)) = (job.action(moves), job.ends());
        let outcome = match settings.dry_run {
            true => Ok(bytes),
            false => one(client, settings, report, &job, bytes, moves).await,
        };
        match outcome {
            Ok(bytes) => report.done(action, &from, to.as_deref(), bytes, settings.dry_run),
            Err(failed) => report.failed(action, &from, to.as_deref(), &failed),
        }
    });
    let mut work = Box::pin(stream::iter(work).buffer_unordered(settings.parallel.max(1)));
    while work.next().await.is_some() {}
}

async fn one(
    client: &Client,
    settings: &Settings,
    report: &Report,
    job: &Job,
    bytes: u64,
    moves: bool,
) -> Result<u64, Failed> {
    let _place = match bytes > LARGE_BYTES && matches!(job, Job::Upload(..) | Job::Download(..)) {
        true => settings.large.acquire().await.ok(),
        false => None,
    };
    let remove_file = |path: &PathBuf| std::fs::remove_file(path).map_err(|error| Failed::io(path.display(), error));
    match job {
        Job::Upload(from, to) => {
            let bytes = upload::upload(client, settings, report, from, to).await?;
            if moves {
                remove_file(from)?;
            }
            Ok(bytes)
        }
        Job::Download(from, to) => {
            if settings.no_clobber() && to.exists() {
                let message = format!("{}: it is there already, and --no-clobber leaves it", to.display());
                return Err(Failed { message, code: super::CODE_CONDITION });
            }
            let bytes = download::download(client, settings, report, from, to).await?;
            if moves {
                client.delete(&from.bucket, &from.key).await.map_err(Failed::client)?;
            }
            Ok(bytes)
        }
        Job::Copy(from, to) => {
            if from == to {
                return Err(Failed::usage("it would be copied onto itself".to_owned()));
            }
            let source = CopySource::new(&from.bucket, &from.key);
            let options = CopyOptions { replace: settings.replaces_headers(), if_none_match: settings.no_clobber() };
            client.copy(&source, &to.bucket, &to.key, &options).await.map_err(Failed::client)?;
            if moves {
                client.delete(&from.bucket, &from.key).await.map_err(Failed::client)?;
            }
            Ok(bytes)
        }
        Job::RemoveFile(path) => remove_file(path).map(|()| 0),
        Job::RemoveObject(object) => {
            client.delete(&object.bucket, &object.key).await.map_err(Failed::client)?;
            Ok(0)
        }
    }
}
