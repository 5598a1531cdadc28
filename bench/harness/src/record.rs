//! Results as files: a JSON list and CSV. Written whole beside the old file, then put in its place, so that a file is
//! valid at any time, also when the run ends in the middle.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::HarnessError;

/// Between writes of partial results.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// Where rows of results go as they come in.
#[derive(Debug)]
pub struct Recorder<R> {
    rows: Vec<R>,
    json: Option<PathBuf>,
    csv: Option<PathBuf>,
    saved: Option<Instant>,
}

impl<R: Serialize> Recorder<R> {
    /// Files to write, where any are wanted. Both are written at once, empty: better to find out now that they can't be.
    ///
    /// # Errors
    /// [`HarnessError::Write`].
    pub fn new(json: Option<PathBuf>, csv: Option<PathBuf>) -> Result<Self, HarnessError> {
        let mut recorder = Self { rows: Vec::new(), json, csv, saved: None };
        recorder.save()?;
        Ok(recorder)
    }

    /// Adds rows; every now and then this also saves.
    ///
    /// # Errors
    /// [`HarnessError::Write`].
    pub fn push(&mut self, rows: impl IntoIterator<Item = R>) -> Result<(), HarnessError> {
        self.rows.extend(rows);
        if self.saved.is_none_or(|saved| saved.elapsed() >= SAVE_EVERY) {
            self.save()?;
        }
        Ok(())
    }

    /// The rows so far.
    #[must_use]
    pub fn rows(&self) -> &[R] {
        &self.rows
    }

    /// Writes what there is.
    ///
    /// # Errors
    /// [`HarnessError::Write`].
    pub fn save(&mut self) -> Result<(), HarnessError> {
        if let Some(path) = &self.json {
            write_json(path, &self.rows)?;
        }
        if let Some(path) = &self.csv {
            let mut writer = csv::Writer::from_writer(Vec::new());
            let serialised = self.rows.iter().try_for_each(|row| writer.serialize(row));
            let bytes = serialised
                .map_err(|error| failed(path, error))
                .and_then(|()| writer.into_inner().map_err(|error| failed(path, error.error())))?;
            replace(path, &bytes)?;
        }
        self.saved = Some(Instant::now());
        Ok(())
    }
}

/// Writes one value as JSON: a list with a row per line, anything else indented.
///
/// # Errors
/// [`HarnessError::Write`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), HarnessError> {
    let value = serde_json::to_value(value).map_err(|error| failed(path, error))?;
    let text = match &value {
        serde_json::Value::Array(rows) => {
            let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
            if rows.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", rows.join(",\n")) }
        }
        other => format!("{other:#}\n"),
    };
    replace(path, text.as_bytes())
}

/// Writes rows as CSV: a column for every field that any of them has, in the order in which they come; objects and lists as JSON.
///
/// # Errors
/// [`HarnessError::Write`].
pub fn write_csv(path: &Path, rows: &[serde_json::Value]) -> Result<(), HarnessError> {
    let mut columns: Vec<&str> = Vec::new();
    for field in rows.iter().filter_map(serde_json::Value::as_object).flat_map(serde_json::Map::keys) {
        if !columns.contains(&field.as_str()) {
            columns.push(field);
        }
    }
    let cell = |value: &serde_json::Value| match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    let head = if columns.is_empty() { Ok(()) } else { writer.write_record(&columns) };
    let written = head.and_then(|()| {
        rows.iter().try_for_each(|row| writer.write_record(columns.iter().map(|column| cell(&row[*column]))))
    });
    let bytes = written
        .map_err(|error| failed(path, error))
        .and_then(|()| writer.into_inner().map_err(|error| failed(path, error.error())))?;
    replace(path, &bytes)
}

/// The file beside `results.json` for something else: `results.machine.json` for `machine`.
#[must_use]
pub fn beside(path: &Path, what: &str) -> PathBuf {
    path.with_extension(format!("{what}.json"))
}

fn failed(path: &Path, why: impl std::fmt::Display) -> HarnessError {
    HarnessError::Write { path: path.display().to_string(), why: why.to_string() }
}

/// Puts `bytes` in the place of a file. What is no regular file (a pipe, /dev/stdout) is written to.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), HarnessError> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return fs::write(path, bytes).map_err(|error| failed(path, error));
    }
    let mut name = path.file_name().ok_or_else(|| failed(path, "it names no file"))?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        let _ignored = fs::remove_file(&temporary);
        failed(path, error)
    })
}
