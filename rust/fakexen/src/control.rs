// SPDX-License-Identifier: GPL-3.0-or-later
//! The control interface: C functions that a test in the same process calls, all named `fakexen_*`.
//!
//! Each takes a buffer for text and its size, and returns a number: negative, the errno of a failure, and then the
//! text says what happened; otherwise what the function says. JSON that does not fit is cut: functions that return
//! JSON return its whole length, so that a caller can see that.

use std::{
    ffi::{CStr, c_char, c_int, c_uchar},
    sync::{Arc, atomic::Ordering},
};

use xenmig_types::{PAGE_SIZE, Pfn};

use crate::{
    areas,
    failure::Failure,
    faults,
    host::{self, Domain},
    process, report,
    spec::{Spec, WorkloadSpec},
    tally,
};

/// Which set of functions this is; counted up when one of them changes.
const ABI: c_int = 2;

/// Returns the version of the control interface.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn fakexen_abi() -> c_int {
    ABI
}

/// What a function returns.
#[derive(Debug)]
enum Reply {
    Number(i64),
    Json(serde_json::Value),
}

fn done(result: Result<(), impl Into<Failure>>) -> Result<Reply, Failure> {
    result.map(|()| Reply::Number(0)).map_err(Into::into)
}

/// Writes the reply, or the failure, to the caller's buffer and returns its number.
///
/// # Safety
///
/// `text` leads to `size` bytes that may be written, or `size` is 0.
unsafe fn reply(text: *mut c_char, size: usize, result: Result<Reply, Failure>) -> i64 {
    let (number, words) = match result {
        Ok(Reply::Number(number)) => (number, String::new()),
        Ok(Reply::Json(json)) => {
            let words = json.to_string();
            (i64::try_from(words.len()).unwrap_or(i64::MAX), words)
        }
        Err(Failure { errno, message }) => (-i64::from(errno), message),
    };
    if let Some(room) = size.checked_sub(1) {
        let length = words.len().min(room);
        // SAFETY: `length` is below `size`, and `words` has at least `length` bytes.
        unsafe { text.cast::<u8>().copy_from(words.as_ptr(), length) };
        // SAFETY: `length` is below `size`.
        let end = unsafe { text.add(length) };
        // SAFETY: the byte after the words, inside the buffer.
        unsafe { end.write(0) };
    }
    number
}

/// Parses the caller's JSON.
///
/// # Safety
///
/// `json` is a C string.
unsafe fn parse<T: serde::de::DeserializeOwned>(json: *const c_char) -> Result<T, Failure> {
    // SAFETY: as the caller says.
    let json = unsafe { CStr::from_ptr(json) };
    Ok(serde_json::from_slice(json.to_bytes())?)
}

fn domain(domid: c_int) -> Result<Arc<Domain>, Failure> {
    let number = u16::try_from(domid).map_err(|_| Failure::no_domain(domid))?;
    host::domain(number).ok_or_else(|| Failure::no_domain(domid))
}

/// Declares a function: its documentation, its arguments, what it does. The buffer is added.
macro_rules! control {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $kind:ty),*) $body:block)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            ///
            /// `text` leads to `size` writable bytes; other pointers are C strings, or lead to 4096 bytes of a page.
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name($($arg: $kind,)* text: *mut c_char, size: usize) -> i64 {
                fn request($($arg: $kind),*) -> Result<Reply, Failure> { $body }
                let result = request($($arg),*);
                // SAFETY: the caller's buffer.
                unsafe { reply(text, size, result) }
            }
        )*
    };
}

control! {
    /// Makes a domain from its description and returns its domid.
    fn fakexen_create(json: *const c_char) {
        // SAFETY: a C string, says the caller.
        let spec: Spec = unsafe { parse(json)? };
        process::watch_forks();
        Ok(Reply::Number(host::create(&spec)?.domid.get().into()))
    }

    /// Destroys a domain.
    fn fakexen_destroy(domid: c_int) {
        done(host::destroy(domain(domid)?.domid.get()))
    }

    /// Lets the guest suspend itself.
    fn fakexen_suspend(domid: c_int) {
        done(domain(domid)?.sim.suspend())
    }

    /// Lets the guest run, after a suspension, a pause, or a restore.
    fn fakexen_resume(domid: c_int) {
        let domain = domain(domid)?;
        domain.start();
        done(domain.sim.resume())
    }

    /// Gives the vCPUs something else to do.
    fn fakexen_workload(domid: c_int, json: *const c_char) {
        // SAFETY: a C string, says the caller.
        let workload: WorkloadSpec = unsafe { parse(json)? };
        let sim = &domain(domid)?.sim;
        done(sim.set_workload(workload.workload(sim)))
    }

    /// Fills RAM with bytes that look random and depend on the seed.
    fn fakexen_fill(domid: c_int, seed: u64) {
        domain(domid)?.sim.fill(seed);
        Ok(Reply::Number(0))
    }

    /// Copies a page out.
    fn fakexen_read_page(domid: c_int, pfn: u64, page: *mut c_uchar) {
        let mut bytes = [0; PAGE_SIZE];
        domain(domid)?.sim.read_page(Pfn(pfn), &mut bytes)?;
        // SAFETY: a page's bytes, says the caller.
        unsafe { page.copy_from(bytes.as_ptr(), PAGE_SIZE) };
        Ok(Reply::Number(0))
    }

    /// Writes a page, as the guest would.
    fn fakexen_write_page(domid: c_int, pfn: u64, page: *const c_uchar) {
        let mut bytes = [0; PAGE_SIZE];
        // SAFETY: a page's bytes, says the caller.
        unsafe { page.copy_to(bytes.as_mut_ptr(), PAGE_SIZE) };
        done(domain(domid)?.sim.write_page(Pfn(pfn), &bytes))
    }

    /// Gives the domain a page, or takes it away.
    fn fakexen_balloon(domid: c_int, pfn: u64, give: c_int) {
        let sim = &domain(domid)?.sim;
        done(if give == 0 { sim.balloon_out(Pfn(pfn)) } else { sim.balloon_in(Pfn(pfn)) })
    }

    /// Returns JSON: what the domain is and does, and digests of its memory and of all its state.
    fn fakexen_state(domid: c_int) {
        Ok(Reply::Json(report::state(&*domain(domid)?)?))
    }

    /// Returns JSON: what a PV guest uses its pages for.
    fn fakexen_pv_map(domid: c_int) {
        Ok(Reply::Json(report::pv_map(&*domain(domid)?)?))
    }

    /// Returns JSON: the first pfns, at most `limit`, at which two domains differ.
    fn fakexen_differing(one: c_int, other: c_int, limit: c_int) {
        let limit = usize::try_from(limit).unwrap_or(0);
        let pfns = domain(one)?.sim.differing_pages(&domain(other)?.sim, limit);
        Ok(Reply::Json(pfns.into_iter().map(|pfn| pfn.0).collect()))
    }

    /// Returns JSON: calls by kind and what is mapped now, about one domain, or about the host if `domid` is -1.
    fn fakexen_counters(domid: c_int) {
        let about = if domid == -1 { None } else { Some(domain(domid)?) };
        Ok(Reply::Json(report::counters(about.as_deref())))
    }

    /// Adds a fault from its description.
    fn fakexen_inject(json: *const c_char) {
        // SAFETY: a C string, says the caller.
        faults::add(&unsafe { parse(json)? });
        Ok(Reply::Number(0))
    }

    /// Removes all faults and costs.
    fn fakexen_clear_faults() {
        faults::clear();
        Ok(Reply::Number(0))
    }

    /// Destroys all domains, removes all faults, and begins to count at zero. What is mapped stays mapped, and counted.
    fn fakexen_reset() {
        faults::clear();
        host::reset()?;
        tally::HOST.reset();
        tally::UNSAFE_POINTERS.store(0, Ordering::Relaxed);
        areas::SUMS.reset();
        Ok(Reply::Number(0))
    }
}
