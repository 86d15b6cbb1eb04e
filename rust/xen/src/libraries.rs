// SPDX-License-Identifier: GPL-3.0-or-later
//! Xen's libraries, loaded when a host is opened, and the functions of theirs that are used.
//!
//! Nothing here links to them: a build with this module must load on a machine that has none of them, and
//! libxenctrl's name changes with each Xen. A loaded library stays loaded: libxenctrl has thread-specific data whose
//! destructor would otherwise be gone when a thread ends.

use std::ffi::{c_int, c_uint, c_ulong, c_void};

use libloading::os::unix::Library;
use xenctrl_sys::{
    self as sys, __va_list_tag, xc_interface, xen_pfn_t, xencall_handle, xenforeignmemory_handle,
    xentoollog_level, xentoollog_logger,
};

use crate::error::XenOpenError;

/// libxencall's interface is stable.
pub(super) const CALL_SONAME: &str = "libxencall.so.1";
/// libxenforeignmemory's interface is stable.
pub(super) const FOREIGN_SONAME: &str = "libxenforeignmemory.so.1";

/// What libxenforeignmemory gives for a mapped resource (`xenforeignmemory_resource_handle`), never looked into.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Resource([u8; 0]);

/// Declares the functions of a library as a structure of pointers, and how it is loaded.
macro_rules! functions {
    ($(#[$doc:meta])* struct $name:ident {
        $($function:ident: fn($($argument:ty),*) $(-> $result:ty)?,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name {
            $(pub(super) $function: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl $name {
            /// Loads the library and looks the functions up.
            pub(super) fn load(soname: &str) -> Result<Self, XenOpenError> {
                let library = open(soname)?;
                Ok(Self {
                    $($function: {
                        // SAFETY: the field's type is the function's prototype in the library's header. For
                        // libxenctrl that is checked below; the other two interfaces are stable.
                        unsafe { lookup(&library, soname, stringify!($function)) }?
                    },)*
                })
            }
        }
    };
}

functions! {
    /// What is used of libxencall (`xencall.h`).
    struct CallFunctions {
        xencall_open: fn(*mut xentoollog_logger, c_uint) -> *mut xencall_handle,
        xencall_close: fn(*mut xencall_handle) -> c_int,
        xencall1: fn(*mut xencall_handle, c_uint, u64) -> c_int,
        xencall2: fn(*mut xencall_handle, c_uint, u64, u64) -> c_int,
        xencall4: fn(*mut xencall_handle, c_uint, u64, u64, u64, u64) -> c_int,
        xencall_alloc_buffer_pages: fn(*mut xencall_handle, usize) -> *mut c_void,
        xencall_free_buffer_pages: fn(*mut xencall_handle, *mut c_void, usize),
        xencall_buffers_never_fault: fn(*mut xencall_handle) -> c_int,
    }
}

functions! {
    /// What is used of libxenforeignmemory (`xenforeignmemory.h`).
    struct ForeignFunctions {
        xenforeignmemory_open: fn(*mut xentoollog_logger, c_uint) -> *mut xenforeignmemory_handle,
        xenforeignmemory_close: fn(*mut xenforeignmemory_handle) -> c_int,
        xenforeignmemory_map: fn(
            *mut xenforeignmemory_handle, u32, c_int, usize, *const xen_pfn_t, *mut c_int
        ) -> *mut c_void,
        xenforeignmemory_unmap: fn(*mut xenforeignmemory_handle, *mut c_void, usize) -> c_int,
        xenforeignmemory_map_resource: fn(
            *mut xenforeignmemory_handle, u16, c_uint, c_uint, c_ulong, c_ulong, *mut *mut c_void, c_int, c_int
        ) -> *mut Resource,
        xenforeignmemory_unmap_resource: fn(*mut xenforeignmemory_handle, *mut Resource) -> c_int,
    }
}

functions! {
    /// What is used of libxenctrl (`xenctrl.h`).
    struct ControlFunctions {
        xc_interface_open: fn(*mut xentoollog_logger, *mut xentoollog_logger, c_uint) -> *mut xc_interface,
        xc_interface_close: fn(*mut xc_interface) -> c_int,
        xc_domain_nr_gpfns: fn(*mut xc_interface, u32, *mut xen_pfn_t) -> c_int,
        xc_domain_hvm_getcontext: fn(*mut xc_interface, u32, *mut u8, u32) -> c_int,
        xc_domain_hvm_setcontext: fn(*mut xc_interface, u32, *mut u8, u32) -> c_int,
        xc_hvm_param_get: fn(*mut xc_interface, u32, u32, *mut u64) -> c_int,
        xc_hvm_param_set: fn(*mut xc_interface, u32, u32, u64) -> c_int,
        xc_domain_get_tsc_info: fn(*mut xc_interface, u32, *mut u32, *mut u64, *mut u32, *mut u32) -> c_int,
        xc_domain_set_tsc_info: fn(*mut xc_interface, u32, u32, u64, u32, u32) -> c_int,
        xc_domain_populate_physmap: fn(
            *mut xc_interface, u32, c_ulong, c_uint, c_uint, *mut xen_pfn_t
        ) -> c_int,
        xc_domain_decrease_reservation: fn(
            *mut xc_interface, u32, c_ulong, c_uint, *mut xen_pfn_t
        ) -> c_int,
        xc_domain_shutdown: fn(*mut xc_interface, u32, c_int) -> c_int,
        xc_maximum_ram_page: fn(*mut xc_interface, *mut c_ulong) -> c_int,
    }
}

/// Compares the pointers' types with the prototypes in the installed headers. It is never called, so the functions are
/// not referred to by the program that is built.
const _: fn() -> ControlFunctions = || ControlFunctions {
    xc_interface_open: sys::xc_interface_open,
    xc_interface_close: sys::xc_interface_close,
    xc_domain_nr_gpfns: sys::xc_domain_nr_gpfns,
    xc_domain_hvm_getcontext: sys::xc_domain_hvm_getcontext,
    xc_domain_hvm_setcontext: sys::xc_domain_hvm_setcontext,
    xc_hvm_param_get: sys::xc_hvm_param_get,
    xc_hvm_param_set: sys::xc_hvm_param_set,
    xc_domain_get_tsc_info: sys::xc_domain_get_tsc_info,
    xc_domain_set_tsc_info: sys::xc_domain_set_tsc_info,
    xc_domain_populate_physmap: sys::xc_domain_populate_physmap,
    xc_domain_decrease_reservation: sys::xc_domain_decrease_reservation,
    xc_domain_shutdown: sys::xc_domain_shutdown,
    xc_maximum_ram_page: sys::xc_maximum_ram_page,
};

fn open(soname: &str) -> Result<Library, XenOpenError> {
    let flags = libc::RTLD_NOW | libc::RTLD_LOCAL | libc::RTLD_NODELETE;
    // SAFETY: the library is one of Xen's, whose initialisers do nothing that concerns this process.
    let library = unsafe { Library::open(Some(soname), flags) };
    library.map_err(|error| XenOpenError::Library { soname: soname.to_owned(), reason: error.to_string() })
}

/// Looks a function up.
///
/// # Safety
///
/// `F` must be the function's type.
unsafe fn lookup<F: Copy>(
    library: &Library,
    soname: &str,
    function: &'static str,
) -> Result<F, XenOpenError> {
    // SAFETY: the caller vouches for the type. The pointer stays valid: the library is never unloaded.
    let symbol = unsafe { library.get::<F>(function) };
    match symbol {
        Ok(symbol) => Ok(*symbol),
        Err(_) => Err(XenOpenError::Function { soname: soname.to_owned(), function }),
    }
}

/// A logger that drops every message. The libraries would write to stderr otherwise; what a failed call says is in the
/// error that it returns.
static QUIET: xentoollog_logger =
    xentoollog_logger { vmessage: Some(drop_message), progress: None, destroy: Some(drop_logger) };

/// Returns the logger for the libraries, which read it and never write it.
pub(super) const fn quiet() -> *mut xentoollog_logger {
    (&raw const QUIET).cast_mut()
}

unsafe extern "C" fn drop_message(
    _logger: *mut xentoollog_logger,
    _level: xentoollog_level,
    _errno: c_int,
    _context: *const std::ffi::c_char,
    _format: *const std::ffi::c_char,
    _arguments: *mut __va_list_tag,
) {
}

unsafe extern "C" fn drop_logger(_logger: *mut xentoollog_logger) {}
