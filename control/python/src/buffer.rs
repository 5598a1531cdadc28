//! `Buffer`: what a read returns.

use std::ffi::c_int;
use std::sync::Arc;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::dlpack;
use crate::memory::Region;

/// Bytes of an object, in memory from a pool: 4 KiB-aligned and writable. `memoryview(b)`, `numpy.frombuffer(b, ...)`,
/// `torch.frombuffer(b, ...)` and `from_dlpack(b)` see them without a copy; the memory is used again once nobody does.
#[pyclass(frozen, module = "penstock")]
pub(crate) struct Buffer {
    region: Arc<Region>,
}

impl Buffer {
    pub(crate) fn new(region: Region) -> Self {
        Self { region: Arc::new(region) }
    }
}

#[pymethods]
impl Buffer {
    /// # Safety
    /// Python calls it with a view to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let region = Arc::clone(&slf.get().region);
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let (pointer, bytes) = (region.pointer().cast(), region.len() as ffi::Py_ssize_t);
        // SAFETY: `view` is Python's to be filled; the memory lives as long as `slf`, of which the view takes a reference.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), pointer, bytes, 0, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }

    fn __len__(&self) -> usize {
        self.region.len()
    }

    /// How many bytes.
    #[getter]
    fn nbytes(&self) -> usize {
        self.region.len()
    }

    /// Where they are.
    #[getter]
    fn address(&self) -> usize {
        self.region.pointer() as usize
    }

    /// A copy as `bytes`.
    fn tobytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        // SAFETY: the region is initialised, and lives as long as `self`; the GIL is held while it is copied.
        let bytes = unsafe { std::slice::from_raw_parts(self.region.pointer().cast_const(), self.region.len()) };
        PyBytes::new(py, bytes)
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.tobytes(py)
    }

    fn __repr__(&self) -> String {
        format!("<penstock.Buffer of {} bytes>", self.region.len())
    }

    #[pyo3(signature = (*, stream = None, max_version = None, dl_device = None, copy = None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // On a CPU there is no stream.
        drop(stream);
        if dl_device.is_some_and(|device| device != dlpack::CPU) || copy == Some(true) {
            return Err(PyBufferError::new_err(
                "a Buffer is in the CPU's memory, and is not copied: ask for (1, 0), without copy",
            ));
        }
        let versioned = max_version.is_some_and(|(major, _)| major >= 1);
        dlpack::capsule(py, Arc::clone(&self.region), versioned)
    }

    fn __dlpack_device__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        dlpack::CPU.into_pyobject(py)
    }
}
