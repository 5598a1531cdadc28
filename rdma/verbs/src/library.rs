//! libibverbs, loaded when it is first needed. A program that never asks for a device never looks for it.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use crate::abi::{
    CompChannel, Context, Cq, Device, DeviceAttr, Mr, Pd, PortAttr, Qp, QpAttr, QpInitAttr, Srq, SrqInitAttr,
};
use crate::error::VerbsError;

/// The name that the dynamic linker knows it by, of rdma-core since 2005.
const LIBRARY: &CStr = c"libibverbs.so.1";

macro_rules! api {
    (
        $(fn $name:ident($($argument:ty),*) -> $result:ty;)*
        optional: $(fn $optional:ident($($optional_argument:ty),*) -> $optional_result:ty;)*
    ) => {
        /// The library's functions.
        pub(crate) struct Api {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) -> $result,)*
            $(pub(crate) $optional: Option<unsafe extern "C" fn($($optional_argument),*) -> $optional_result>,)*
        }

        impl Api {
            fn load() -> Result<Self, String> {
                let library = open()?;
                Ok(Self {
                    $($name: {
                        let symbol = find(library, concat!(stringify!($name), "\0"))
                            .ok_or_else(|| format!("{LIBRARY:?} has no {}", stringify!($name)))?;
                        // SAFETY: the symbol is the function that rdma-core's header declares with this signature.
                        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) -> $result>(symbol) }
                    },)*
                    $($optional: find(library, concat!(stringify!($optional), "\0")).map(|symbol| {
                        // SAFETY: as above.
                        unsafe {
                            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($optional_argument),*) -> $optional_result>(symbol)
                        }
                    }),)*
                })
            }
        }
    };
}

api! {
    fn ibv_get_device_list(*mut c_int) -> *mut *mut Device;
    fn ibv_free_device_list(*mut *mut Device) -> ();
    fn ibv_get_device_name(*mut Device) -> *const c_char;
    fn ibv_open_device(*mut Device) -> *mut Context;
    fn ibv_close_device(*mut Context) -> c_int;
    fn ibv_query_device(*mut Context, *mut DeviceAttr) -> c_int;
    fn ibv_query_port(*mut Context, u8, *mut PortAttr) -> c_int;
    fn ibv_alloc_pd(*mut Context) -> *mut Pd;
    fn ibv_dealloc_pd(*mut Pd) -> c_int;
    fn ibv_reg_mr(*mut Pd, *mut c_void, usize, c_int) -> *mut Mr;
    fn ibv_dereg_mr(*mut Mr) -> c_int;
    fn ibv_create_comp_channel(*mut Context) -> *mut CompChannel;
    fn ibv_destroy_comp_channel(*mut CompChannel) -> c_int;
    fn ibv_create_cq(*mut Context, c_int, *mut c_void, *mut CompChannel, c_int) -> *mut Cq;
    fn ibv_destroy_cq(*mut Cq) -> c_int;
    fn ibv_get_cq_event(*mut CompChannel, *mut *mut Cq, *mut *mut c_void) -> c_int;
    fn ibv_ack_cq_events(*mut Cq, c_uint) -> ();
    fn ibv_create_qp(*mut Pd, *mut QpInitAttr) -> *mut Qp;
    fn ibv_modify_qp(*mut Qp, *mut QpAttr, c_int) -> c_int;
    fn ibv_destroy_qp(*mut Qp) -> c_int;
    fn ibv_create_srq(*mut Pd, *mut SrqInitAttr) -> *mut Srq;
    fn ibv_destroy_srq(*mut Srq) -> c_int;
    optional:
    fn ibv_reg_dmabuf_mr(*mut Pd, u64, usize, u64, c_int, c_int) -> *mut Mr;
}

fn open() -> Result<*mut c_void, String> {
    // SAFETY: a NUL-terminated name; loading runs the library's constructors, which only set up its own state.
    let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if !library.is_null() {
        return Ok(library);
    }
    // SAFETY: dlerror gives null or a string that lives until this thread's next dl* call.
    let reason = unsafe {
        let text = libc::dlerror();
        if text.is_null() { "dlopen failed".to_owned() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    };
    Err(reason)
}

fn find(library: *mut c_void, name: &'static str) -> Option<*mut c_void> {
    debug_assert!(name.ends_with('\0'), "invariant: the macro above ends names with NUL");
    // SAFETY: a handle from dlopen that is never closed, and a NUL-terminated name. dlsym gives the default version.
    let symbol = unsafe { libc::dlsym(library, name.as_ptr().cast()) };
    (!symbol.is_null()).then_some(symbol)
}

/// The library.
///
/// # Errors
/// [`VerbsError::NoLibrary`]; the answer of the first try is kept.
pub(crate) fn api() -> Result<&'static Api, VerbsError> {
    static API: OnceLock<Result<Api, String>> = OnceLock::new();
    API.get_or_init(Api::load).as_ref().map_err(|reason| VerbsError::NoLibrary { reason: reason.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_the_library_is_told_what_to_install() {
        match api() {
            Ok(_) => {}
            Err(error) => assert!(error.to_string().contains("rdma-core"), "{error}"),
        }
    }

    #[test]
    fn what_is_not_in_a_library_is_not_found() {
        // SAFETY: null means the program itself.
        let this = unsafe { libc::dlopen(std::ptr::null(), libc::RTLD_NOW) };
        assert!(find(this, "ibv_no_such_function\0").is_none());
        assert!(find(this, "malloc\0").is_some());
    }
}
