//! Reading what was measured.

use std::fs;
use std::path::{Path, PathBuf};

use penstock_harness::{Machine, beside};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ReportError;

/// One row of results: what was measured, and what came out.
pub type Row = Map<String, Value>;

/// Something that was not measured, and why.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NotMeasured {
    /// Who or what.
    pub what: String,
    /// Why.
    pub why: String,
}

/// A file of results, and what is said about it beside it.
#[derive(Clone, Debug)]
pub struct ResultFile {
    /// The name of the file, without its folder and extension.
    pub name: String,
    /// Its rows, in its order.
    pub rows: Vec<Row>,
    /// What they were measured on, where it is written.
    pub machine: Option<Machine>,
    /// What could not be measured.
    pub not_measured: Vec<NotMeasured>,
    /// Whether the run ended before everything was measured.
    pub partial: bool,
    /// Whether it was a quick run.
    pub quick: bool,
}

/// What was measured: a file, or all files of a folder in the order of their names.
#[derive(Clone, Debug)]
pub struct Results {
    /// Where it was read from.
    pub path: String,
    /// The files.
    pub files: Vec<ResultFile>,
}

/// What the writers of machine facts put beside results: facts alone, or facts and remarks.
#[derive(Debug, Deserialize)]
struct About {
    machine: Machine,
    #[serde(default)]
    not_measured: Vec<NotMeasured>,
    #[serde(default)]
    interrupted: bool,
    #[serde(default)]
    quick: bool,
}

impl Results {
    /// Reads a file, or all `*.json` of a folder but the `*.machine.json` beside them.
    ///
    /// # Errors
    /// [`ReportError::Read`] and [`ReportError::Empty`].
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let shown = path.display().to_string();
        let files = if path.is_dir() { json_files(path)? } else { vec![path.to_owned()] };
        let files = files.iter().map(|file| read_file(file)).collect::<Result<Vec<_>, _>>()?;
        if files.iter().all(|file| file.rows.is_empty() && file.not_measured.is_empty()) {
            return Err(ReportError::Empty(shown));
        }
        Ok(Self { path: shown, files })
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.files.iter().flat_map(|file| &file.rows)
    }
}

fn failed(path: &Path, why: impl std::fmt::Display) -> ReportError {
    ReportError::Read { path: path.display().to_string(), why: why.to_string() }
}

fn json_files(folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".json") && !name.ends_with(".machine.json") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read_file(path: &Path) -> Result<ResultFile, ReportError> {
    let text = fs::read_to_string(path).map_err(|error| failed(path, error))?;
    let rows: Vec<Row> = serde_json::from_str(&text).map_err(|error| {
        failed(path, format!("it is no JSON list of rows, as `penstock bench --json` writes it: {error}"))
    })?;
    let mut file = ResultFile {
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        partial: rows.iter().any(|row| row.get("partial") == Some(&Value::Bool(true))),
        rows,
        machine: None,
        not_measured: Vec::new(),
        quick: false,
    };
    // Facts are optional: a result without them is still one, and the page says that they are missing.
    if let Ok(text) = fs::read_to_string(beside(path, "machine")) {
        if let Ok(about) = serde_json::from_str::<About>(&text) {
            file.machine = Some(about.machine);
            file.not_measured = about.not_measured;
            file.partial |= about.interrupted;
            file.quick = about.quick;
        } else {
            file.machine = serde_json::from_str(&text).ok();
        }
    }
    Ok(file)
}

/// The number in a field.
pub(crate) fn number(row: &Row, field: &str) -> Option<f64> {
    row.get(field).and_then(Value::as_f64).filter(|number| number.is_finite())
}

/// A field as text: strings as they are, anything else as JSON. `None` where it is missing or null.
pub(crate) fn text(row: &Row, field: &str) -> Option<String> {
    match row.get(field)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
