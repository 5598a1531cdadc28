//! DLPack (<https://dmlc.github.io/dlpack/latest/python_spec.html>): bytes as a tensor of `uint8` that other libraries take over
//! without a copy. Both capsules are made, that of version 1 (writable by its flags) and the one without a version.

use std::ffi::{CStr, c_void};
use std::sync::Arc;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::memory::Region;

/// `(kDLCPU, 0)`.
pub(crate) const CPU: (i32, i32) = (1, 0);

const NAME: &CStr = c"dltensor";
const NAME_VERSIONED: &CStr = c"dltensor_versioned";

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    /// Type and number.
    device: [i32; 2],
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct Managed {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}

#[repr(C)]
struct ManagedVersioned {
    /// Major and minor.
    version: [u32; 2],
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut ManagedVersioned)>,
    flags: u64,
    tensor: Tensor,
}

/// What keeps a tensor's memory, shape and strides.
struct Context {
    region: Arc<Region>,
    shape: i64,
    stride: i64,
}

fn tensor(context: *mut Context) -> Tensor {
    // SAFETY: the context was just made by `Box::into_raw` and is nobody else's yet.
    let context = unsafe { &mut *context };
    Tensor {
        data: context.region.pointer().cast(),
        device: [CPU.0, CPU.1],
        ndim: 1,
        // kDLUInt
        code: 1,
        bits: 8,
        lanes: 1,
        shape: &raw mut context.shape,
        strides: &raw mut context.stride,
        byte_offset: 0,
    }
}

unsafe extern "C" fn delete(managed: *mut Managed) {
    // SAFETY: both were made by `Box::into_raw` in `capsule`, and the consumer calls this once.
    unsafe {
        let managed = Box::from_raw(managed);
        drop(Box::from_raw(managed.context.cast::<Context>()));
    }
}

unsafe extern "C" fn delete_versioned(managed: *mut ManagedVersioned) {
    // SAFETY: as in `delete`.
    unsafe {
        let managed = Box::from_raw(managed);
        drop(Box::from_raw(managed.context.cast::<Context>()));
    }
}

/// A capsule that nobody has taken over (it has its name still) frees what it holds.
unsafe extern "C" fn discard(capsule: *mut ffi::PyObject) {
    // SAFETY: Python calls it with the capsule that `capsule` has made; a pointer by its name is what was put there.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, NAME.as_ptr()) == 1 {
            delete(ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr()).cast());
        } else if ffi::PyCapsule_IsValid(capsule, NAME_VERSIONED.as_ptr()) == 1 {
            delete_versioned(ffi::PyCapsule_GetPointer(capsule, NAME_VERSIONED.as_ptr()).cast());
        }
    }
}

/// The memory as a DLPack capsule.
pub(crate) fn capsule(py: Python<'_>, region: Arc<Region>, versioned: bool) -> PyResult<Bound<'_, PyAny>> {
    let shape = region.len() as i64;
    let context = Box::into_raw(Box::new(Context { region, shape, stride: 1 }));
    let tensor = tensor(context);
    let context = context.cast();
    let (pointer, name) = match versioned {
        true => {
            let managed =
                ManagedVersioned { version: [1, 0], context, deleter: Some(delete_versioned), flags: 0, tensor };
            (Box::into_raw(Box::new(managed)).cast::<c_void>(), NAME_VERSIONED)
        }
        false => (Box::into_raw(Box::new(Managed { tensor, context, deleter: Some(delete) })).cast(), NAME),
    };
    // SAFETY: the pointer is not null, the name is static, the destructor frees what the pointer holds.
    let capsule = unsafe { ffi::PyCapsule_New(pointer, name.as_ptr(), Some(discard)) };
    if capsule.is_null() {
        // Out of memory: the little that is lost is the least of it.
        return Err(PyErr::fetch(py));
    }
    // SAFETY: a new reference, just made.
    Ok(unsafe { Bound::from_owned_ptr(py, capsule) })
}
