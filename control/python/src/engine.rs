//! `Engine`: a client as Python calls it.
//!
//! Every operation has the same two ways. Without `done` the caller waits: the GIL is let go, this thread drives the I/O, and
//! signals (Ctrl-C) are looked for every [`SIGNALS_EVERY`]. With `done` the work goes on in the background, and
//! `done(result, error)` is called from there when it ends.

use std::future::Future;
use std::mem::ManuallyDrop;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use penstock_client::{Client, ClientError, ListOptions, PutOptions};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

use crate::errors::Failure;
use crate::memory::{Foreign, Held};
use crate::operations::{self, Destination, Outcome, Pieces, Span, Wanted};
use crate::runtime::{Call, Epoch, Gated, gate, process};
use crate::spec::Spec;
use crate::upload::Upload;

/// How often a waiting thread lets Python look at its signals.
const SIGNALS_EVERY: Duration = Duration::from_millis(200);

/// A client in this process. In a child after `fork` it is made anew.
struct Live {
    epoch: Epoch,
    client: Option<Client>,
    runtime: &'static Runtime,
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.epoch == Epoch::now() {
            let _within = self.runtime.enter();
            self.client = None;
        } else {
            // Another process's: its locks may be held for ever, its threads are not here.
            let _left = ManuallyDrop::new(self.client.take());
        }
    }
}

/// One client, and what it was told.
#[pyclass(frozen, module = "penstock")]
pub(crate) struct Engine {
    spec: Spec,
    background: bool,
    live: RwLock<Option<Arc<Live>>>,
}

/// Work in the background.
#[pyclass(frozen, module = "penstock")]
pub(crate) struct Task(AbortHandle);

#[pymethods]
impl Task {
    /// Ends it; `done` is not called.
    fn cancel(&self) {
        self.0.abort();
    }
}

fn as_failure(error: ClientError) -> Failure {
    Failure::of("penstock.Client")(error)
}

fn timeout_of(timeout: Option<f64>) -> PyResult<Option<Duration>> {
    let Some(seconds) = timeout else { return Ok(None) };
    match Duration::try_from_secs_f64(seconds) {
        Ok(after) if !after.is_zero() => Ok(Some(after)),
        _ => Err(PyValueError::new_err(format!("timeout={seconds}: a time in seconds, more than 0"))),
    }
}

fn parallel(at_a_time: usize) -> PyResult<usize> {
    if at_a_time == 0 { Err(PyValueError::new_err("at_a_time=0: at least 1")) } else { Ok(at_a_time) }
}

/// Pieces of a body, and their memory.
fn pieces(data: Vec<Bound<'_, PyAny>>) -> PyResult<(Pieces, Vec<Foreign>)> {
    let memory = data.iter().map(Foreign::readable).collect::<PyResult<Vec<_>>>()?;
    // SAFETY: `drive` keeps the memory until the work that has the slices is dropped.
    let pieces = memory.iter().map(|foreign| unsafe { foreign.slice() }).collect();
    Ok((pieces, memory))
}

impl Engine {
    /// The client of this process, made when it is first needed.
    fn live(&self) -> Result<Arc<Live>, Failure> {
        let failed = |error: std::io::Error| Failure::Process(format!("no runtime: {error}"));
        let process = process().map_err(failed)?;
        let _gate = gate();
        let epoch = Epoch::now();
        let known = |live: &Option<Arc<Live>>| live.as_ref().filter(|live| live.epoch == epoch).cloned();
        if let Some(live) = known(&self.live.read().unwrap_or_else(|poisoned| poisoned.into_inner())) {
            return Ok(live);
        }
        let mut slot = self.live.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(live) = known(&slot) {
            return Ok(live);
        }
        let runtime = process.runtime(self.background);
        let client = {
            let _within = runtime.enter();
            self.spec.client()?
        };
        let live = Arc::new(Live { epoch, client: Some(client), runtime });
        *slot = Some(Arc::clone(&live));
        Ok(live)
    }

    /// Does `work`, which uses `memory` until it has ended.
    fn drive<W, F>(
        &self,
        py: Python<'_>,
        what: &'static str,
        timeout: Option<f64>,
        memory: Vec<Foreign>,
        done: Option<Py<PyAny>>,
        work: W,
    ) -> PyResult<Py<PyAny>>
    where
        W: FnOnce(Client) -> F,
        F: Future<Output = Result<Outcome, Failure>> + Send + 'static,
    {
        let memory = Held(memory);
        let timeout = timeout_of(timeout)?;
        let live = py.detach(|| self.live()).map_err(|failure| failure.into_exception(py))?;
        let client = live.client.clone().expect("a live client is there until it is dropped");
        let work = work(client);
        let work = Gated(Box::pin(async move {
            let Some(after) = timeout else { return work.await };
            let late = |_elapsed| Err(Failure::Timeout { what: what.to_owned(), after });
            tokio::time::timeout(after, work).await.unwrap_or_else(late)
        }));
        if let Some(done) = done {
            let task = live.runtime.spawn(async move {
                // Python's things are let go outside of the gate, which who forks with the GIL waits for.
                let memory = memory;
                let outcome = work.await;
                drop(memory);
                let Some(_call) = Call::begin() else { return };
                Python::try_attach(|py| {
                    let told = match outcome.map(|outcome| outcome.into_python(py)) {
                        Ok(Ok(value)) => done.call1(py, (value, py.None())),
                        Ok(Err(error)) => done.call1(py, (py.None(), error.into_value(py))),
                        Err(failure) => done.call1(py, (py.None(), failure.into_exception(py).into_value(py))),
                    };
                    if let Err(error) = told {
                        error.write_unraisable(py, None);
                    }
                });
            });
            return Ok(Py::new(py, Task(task.abort_handle()))?.into_any());
        }
        let mut work = work;
        let outcome: PyResult<Result<Outcome, Failure>> = py.detach(|| {
            loop {
                let step = async { tokio::time::timeout(SIGNALS_EVERY, &mut work).await };
                match live.runtime.block_on(step) {
                    Ok(outcome) => return Ok(outcome),
                    // Not within a step: a signal's handler may use a client itself.
                    Err(_elapsed) => Python::attach(|py| py.check_signals())?,
                }
            }
        });
        // After a signal the work is dropped here, before the memory that it uses.
        drop(work);
        drop(memory);
        match outcome? {
            Ok(outcome) => outcome.into_python(py),
            Err(failure) => Err(failure.into_exception(py)),
        }
    }
}

/// Destinations of a read, and their memory.
fn destinations(
    wanted: Vec<(String, String, Option<u64>, Bound<'_, PyAny>)>,
) -> PyResult<(Vec<Destination>, Vec<Foreign>)> {
    let (mut destinations, mut memory) = (Vec::with_capacity(wanted.len()), Vec::with_capacity(wanted.len()));
    for (bucket, key, start, into) in wanted {
        let foreign = Foreign::writable(&into)?;
        // SAFETY: `drive` keeps the memory until the work that has the slice is dropped. That two destinations don't overlap is
        // the caller's business, as with every scatter read; what comes of it is mixed bytes.
        let into = unsafe { foreign.slice_mut() };
        destinations.push(Destination { bucket, key, start, into });
        memory.push(foreign);
    }
    Ok((destinations, memory))
}

#[pymethods]
impl Engine {
    /// With `background`, for operations that are given `done`.
    #[new]
    fn new(py: Python<'_>, options: &Bound<'_, PyDict>, background: bool) -> PyResult<Self> {
        let spec = Spec::parse(options)?.map_err(|error| as_failure(error).into_exception(py))?;
        Ok(Self { spec, background, live: RwLock::new(None) })
    }

    #[pyo3(signature = (bucket, key, range = None, timeout = None, done = None))]
    fn get(
        &self,
        py: Python<'_>,
        bucket: String,
        key: String,
        range: Span,
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.drive(py, "a GET", timeout, Vec::new(), done, |client| operations::get(client, bucket, key, range))
    }

    #[pyo3(signature = (wanted, at_a_time, timeout = None, done = None))]
    fn get_many(
        &self,
        py: Python<'_>,
        wanted: Vec<Wanted>,
        at_a_time: usize,
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let at_a_time = parallel(at_a_time)?;
        self.drive(py, "many GETs", timeout, Vec::new(), done, |client| operations::get_many(client, wanted, at_a_time))
    }

    #[pyo3(signature = (wanted, at_a_time, missing_is_minus_one = false, timeout = None, done = None))]
    fn get_into(
        &self,
        py: Python<'_>,
        wanted: Vec<(String, String, Option<u64>, Bound<'_, PyAny>)>,
        at_a_time: usize,
        missing_is_minus_one: bool,
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let at_a_time = parallel(at_a_time)?;
        let (destinations, memory) = destinations(wanted)?;
        self.drive(py, "reads into memory", timeout, memory, done, |client| {
            operations::get_into(client, destinations, at_a_time, missing_is_minus_one)
        })
    }

    #[pyo3(signature = (bucket, key, data, content_type = None, metadata = None, if_none_match = false, if_match = None, timeout = None, done = None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn put(
        &self,
        py: Python<'_>,
        bucket: String,
        key: String,
        data: Vec<Bound<'_, PyAny>>,
        content_type: Option<String>,
        metadata: Option<Vec<(String, String)>>,
        if_none_match: bool,
        if_match: Option<String>,
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let user_metadata = metadata.unwrap_or_default();
        let options = PutOptions { content_type, user_metadata, if_none_match, if_match, ..PutOptions::default() };
        let (data, memory) = pieces(data)?;
        self.drive(py, "a PUT", timeout, memory, done, |client| operations::put(client, bucket, key, data, options))
    }

    #[pyo3(signature = (bucket, key, content_type = None, metadata = None, timeout = None, done = None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn create_upload(
        &self,
        py: Python<'_>,
        bucket: String,
        key: String,
        content_type: Option<String>,
        metadata: Option<Vec<(String, String)>>,
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let user_metadata = metadata.unwrap_or_default();
        let options = PutOptions { content_type, user_metadata, ..PutOptions::default() };
        self.drive(py, "the beginning of an upload", timeout, Vec::new(), done, |client| {
            operations::create_upload(client, bucket, key, options)
        })
    }

    #[pyo3(signature = (upload, number, data, timeout = None, done = None))]
    fn upload_part(
        &self,
        py: Python<'_>,
        upload: &Upload,
        number: u32,
        data: Vec<Bound<'_, PyAny>>,
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let (data, memory) = pieces(data)?;
        let (begun, parts) = (Arc::clone(&upload.begun), Arc::clone(&upload.parts));
        self.drive(py, "a part of an upload", timeout, memory, done, |client| {
            operations::upload_part(client, begun, parts, number, data)
        })
    }

    #[pyo3(signature = (upload, timeout = None, done = None))]
    fn complete_upload(
        &self,
        py: Python<'_>,
        upload: &Upload,
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let (begun, parts) = (Arc::clone(&upload.begun), Arc::clone(&upload.parts));
        self.drive(py, "the end of an upload", timeout, Vec::new(), done, |client| {
            operations::complete_upload(client, begun, parts)
        })
    }

    #[pyo3(signature = (upload, timeout = None, done = None))]
    fn abort_upload(
        &self,
        py: Python<'_>,
        upload: &Upload,
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let begun = Arc::clone(&upload.begun);
        self.drive(py, "the abort of an upload", timeout, Vec::new(), done, |client| {
            operations::abort_upload(client, begun)
        })
    }

    #[pyo3(signature = (from, to, timeout = None, done = None))]
    fn copy(
        &self,
        py: Python<'_>,
        from: (String, String),
        to: (String, String),
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.drive(py, "a copy", timeout, Vec::new(), done, |client| operations::copy(client, from, to))
    }

    #[pyo3(signature = (bucket, keys, timeout = None, done = None))]
    fn delete_many(
        &self,
        py: Python<'_>,
        bucket: String,
        keys: Vec<String>,
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.drive(py, "many DELETEs", timeout, Vec::new(), done, |client| {
            operations::delete_many(client, bucket, keys)
        })
    }

    #[pyo3(signature = (bucket, timeout = None, done = None))]
    fn delete_bucket(
        &self,
        py: Python<'_>,
        bucket: String,
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.drive(py, "DeleteBucket", timeout, Vec::new(), done, |client| operations::delete_bucket(client, bucket))
    }

    #[pyo3(signature = (timeout = None, done = None))]
    fn list_buckets(&self, py: Python<'_>, timeout: Option<f64>, done: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        self.drive(py, "ListBuckets", timeout, Vec::new(), done, operations::list_buckets)
    }

    #[pyo3(signature = (bucket, key, timeout = None, done = None))]
    fn head(
        &self,
        py: Python<'_>,
        bucket: String,
        key: String,
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.drive(py, "a HEAD", timeout, Vec::new(), done, |client| operations::head(client, bucket, key))
    }

    #[pyo3(signature = (bucket, key, timeout = None, done = None))]
    fn delete(
        &self,
        py: Python<'_>,
        bucket: String,
        key: String,
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.drive(py, "a DELETE", timeout, Vec::new(), done, |client| operations::delete(client, bucket, key))
    }

    #[pyo3(signature = (bucket, timeout = None, done = None))]
    fn create_bucket(
        &self,
        py: Python<'_>,
        bucket: String,
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.drive(py, "CreateBucket", timeout, Vec::new(), done, |client| operations::create_bucket(client, bucket))
    }

    #[pyo3(signature = (bucket, prefix, delimiter, start_after, entries_max, timeout = None, done = None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn list(
        &self,
        py: Python<'_>,
        bucket: String,
        prefix: String,
        delimiter: String,
        start_after: String,
        entries_max: usize,
        timeout: Option<f64>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let options = ListOptions { prefix, delimiter, start_after, page_entries: entries_max };
        self.drive(py, "a listing", timeout, Vec::new(), done, |client| {
            operations::list(client, bucket, options, entries_max)
        })
    }

    #[pyo3(signature = (method, bucket, key, expires, done = None))]
    fn presign(
        &self,
        py: Python<'_>,
        method: &str,
        bucket: String,
        key: String,
        expires: u64,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let method = match method {
            "GET" => "GET",
            "PUT" => "PUT",
            "HEAD" => "HEAD",
            "DELETE" => "DELETE",
            other => return Err(PyTypeError::new_err(format!("method={other:?}: GET, PUT, HEAD or DELETE"))),
        };
        let expires = Duration::from_secs(expires);
        self.drive(py, "a URL", None, Vec::new(), done, |client| {
            operations::presign(client, method, bucket, key, expires)
        })
    }

    /// What this process's client has moved, how, and why not otherwise.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let live = py.detach(|| self.live()).map_err(|failure| failure.into_exception(py))?;
        let stats = live.client.as_ref().map(Client::stats).unwrap_or_default();
        let all = PyDict::new(py);
        all.set_item("requests", stats.requests)?;
        all.set_item("retries", stats.retries)?;
        all.set_item("resumed", stats.resumed)?;
        all.set_item("connections", stats.connections)?;
        all.set_item("read_bytes", stats.read_bytes)?;
        all.set_item("written_bytes", stats.written_bytes)?;
        all.set_item("copied_bytes", stats.copied_bytes)?;
        all.set_item("by_plan", stats.by_plan)?;
        all.set_item("fallbacks", stats.fallbacks)?;
        all.set_item("hedges", stats.hedges)?;
        all.set_item("hedges_won", stats.hedges_won)?;
        all.set_item("corrupt", stats.corrupt)?;
        Ok(all)
    }
}
