// SPDX-License-Identifier: GPL-3.0-or-later
//! Log-dirty mode: `XEN_DOMCTL_shadow_op`, which is its name for guests with hardware-assisted paging, too.

use std::{ptr, sync::Arc};

use xenctrl_sys as sys;
use xenmig_hypervisor::{CleanPass, DirtyBitmap, DirtyCounts, Errno};
use xenmig_types::Domid;

use crate::{
    buffer::HypercallBuffer,
    call::CallHandle,
    domctl::{domctl, perform},
    error::CallResult,
};

/// Which of the two fetches a bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetch {
    Clean(CleanPass),
    Peek,
}

impl Fetch {
    const fn op(self) -> u32 {
        match self {
            Self::Clean(_) => sys::XEN_DOMCTL_SHADOW_OP_CLEAN,
            Self::Peek => sys::XEN_DOMCTL_SHADOW_OP_PEEK,
        }
    }

    const fn mode(self) -> u32 {
        match self {
            Self::Clean(CleanPass::Final) => sys::XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL,
            Self::Clean(CleanPass::Live) | Self::Peek => 0,
        }
    }
}

/// Turns log-dirty mode on.
pub(super) fn enable(call: &Arc<CallHandle>, domid: Domid) -> CallResult<()> {
    switch(call, domid, sys::XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY)
}

/// Turns log-dirty mode off.
pub(super) fn disable(call: &Arc<CallHandle>, domid: Domid) -> CallResult<()> {
    switch(call, domid, sys::XEN_DOMCTL_SHADOW_OP_OFF)
}

fn switch(call: &Arc<CallHandle>, domid: Domid, op: u32) -> CallResult<()> {
    let mut command = domctl(sys::XEN_DOMCTL_shadow_op, domid);
    command.u.shadow_op = sys::xen_domctl_shadow_op { op, ..Default::default() };
    // SAFETY: it holds no guest handle.
    unsafe { perform(call, &mut command) }
}

/// Allocates a bitmap of `pages` bits.
pub(super) fn bitmap(call: &Arc<CallHandle>, pages: u64) -> CallResult<DirtyBitmap> {
    let words = usize::try_from(pages.div_ceil(64)).map_err(|_| Errno(libc::ENOMEM))?;
    let memory = HypercallBuffer::words_zeroed(call, words)?;
    DirtyBitmap::new(Box::new(memory), pages).ok_or(Errno(libc::EINVAL))
}

/// Fetches the log-dirty bitmap: as many pages of the log as `bitmap` has, which Xen does not compare with the size of
/// the p2m. `ERANGE` if Xen says that it went through fewer.
pub(super) fn fetch(
    call: &Arc<CallHandle>,
    domid: Domid,
    fetch: Fetch,
    bitmap: &mut DirtyBitmap,
) -> CallResult<DirtyCounts> {
    let pages = bitmap.pages();
    let (counts, found) = bitmap.fill(|words| {
        // Whoever made the memory, it must have room for what Xen writes.
        if u64::try_from(words.len()) != Ok(pages.div_ceil(64)) {
            return Err(Errno(libc::EFAULT));
        }
        // SAFETY: the words hold a bit for each of `pages` pages, as was just checked, and are borrowed for the call.
        unsafe { shadow_op(call, domid, fetch, words.as_mut_ptr().cast(), pages) }
    })?;
    if found == pages { Ok(counts) } else { Err(Errno(libc::ERANGE)) }
}

/// Fetches the counts only. Xen goes through the log for `pages` pages: with 0 a PEEK costs next to nothing, and a
/// CLEAN sets the counts to zero but leaves the log as it is.
pub(super) fn counts(
    call: &Arc<CallHandle>,
    domid: Domid,
    fetch: Fetch,
    pages: u64,
) -> CallResult<DirtyCounts> {
    // SAFETY: without a bitmap Xen writes nothing.
    let (counts, _) = unsafe { shadow_op(call, domid, fetch, ptr::null_mut(), pages) }?;
    Ok(counts)
}

/// Makes the domctl; returns the counts and the number of pages that Xen has gone through.
///
/// # Safety
///
/// `bitmap` must be null or have room for `pages` bits, to be written by the hypervisor.
unsafe fn shadow_op(
    call: &Arc<CallHandle>,
    domid: Domid,
    fetch: Fetch,
    bitmap: *mut u8,
    pages: u64,
) -> CallResult<(DirtyCounts, u64)> {
    let mut command = domctl(sys::XEN_DOMCTL_shadow_op, domid);
    command.u.shadow_op = sys::xen_domctl_shadow_op {
        op: fetch.op(),
        mode: fetch.mode(),
        dirty_bitmap: sys::__guest_handle_uint8 { p: bitmap },
        pages,
        ..Default::default()
    };
    // SAFETY: the caller vouches for the bitmap, the only guest handle.
    unsafe { perform(call, &mut command) }?;
    // SAFETY: the whole union is initialised, and any bytes are a valid shadow_op.
    let answer = unsafe { command.u.shadow_op };
    let counts = DirtyCounts { fault_count: answer.stats.fault_count, dirty_count: answer.stats.dirty_count };
    Ok((counts, answer.pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_final_clean_is_marked_final() {
        let mode = |fetch: Fetch| (fetch.op(), fetch.mode());
        assert_eq!(mode(Fetch::Clean(CleanPass::Live)), (11, 0));
        assert_eq!(mode(Fetch::Clean(CleanPass::Final)), (11, 1));
        assert_eq!(mode(Fetch::Peek), (12, 0));
    }
}
