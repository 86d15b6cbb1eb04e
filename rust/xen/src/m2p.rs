// SPDX-License-Identifier: GPL-3.0-or-later
//! The machine-to-phys table: pages of Xen's own that it lets dom0 read. Source: `public/memory.h`.
//!
//! Xen names the table by extents of 2 MiB, each a run of frames. Where the host has no memory and so the table a hole,
//! Xen names the extent before it once more: every page can be mapped, and the entries there are those of other frames.

use std::{ffi::c_uint, sync::Arc};

use xenctrl_sys as sys;
use xenmig_hypervisor::{BitmapMemory, Errno, M2p};
use xenmig_types::{Gfn, PAGE_SIZE};

use crate::{buffer::HypercallBuffer, call::CallHandle, error::CallResult, mapping::ForeignHandle};

/// `DOMID_XEN`, the owner of the table.
const XEN: u16 = 0x7ff2;
const EXTENT_PAGES: usize = (2 << 20) / PAGE_SIZE;
const ENTRIES_PER_PAGE: u64 = (PAGE_SIZE / size_of::<u64>()) as u64;

/// Returns the first frames of the extents that make up the table of a host with `frames` frames. `ERANGE` if the table is
/// shorter than that.
pub(super) fn extents(call: &Arc<CallHandle>, frames: u64) -> CallResult<Vec<sys::xen_pfn_t>> {
    list(call, sys::XENMEM_machphys_mfn_list, pages(frames)?.div_ceil(EXTENT_PAGES))
}

/// Maps the table. All of it is mapped, or nothing: the call fails if a single page cannot be. While it lasts, it takes 12
/// bytes for each page of the table.
pub(super) fn map(foreign: &Arc<ForeignHandle>, extents: &[sys::xen_pfn_t], frames: u64) -> CallResult<M2p> {
    let list = frames_of(extents, pages(frames)?).ok_or(Errno(libc::ERANGE))?;
    let mapping = foreign.map_frames(XEN, libc::PROT_READ, &list, None)?;
    // SAFETY: all pages are mapped, page-aligned and in order, until `mapping` is dropped, and there is an entry
    // of 64 bits for each frame. They are Xen's: there is no reference to them.
    Ok(unsafe { M2p::new(mapping.base().cast(), frames, Box::new(mapping)) })
}

/// Returns the first frame of the table that 32-bit guests see. `EOPNOTSUPP` if Xen runs no such guests.
pub(super) fn compat_frame(call: &Arc<CallHandle>) -> CallResult<Gfn> {
    list(call, sys::XENMEM_machphys_compat_mfn_list, 1)?.first().copied().map(Gfn).ok_or(Errno(libc::ERANGE))
}

/// Asks for the first frames of `count` extents of a table. `ERANGE` if it has fewer.
fn list(call: &Arc<CallHandle>, command: c_uint, count: usize) -> CallResult<Vec<sys::xen_pfn_t>> {
    let max_extents = c_uint::try_from(count).map_err(|_| Errno(libc::ENOMEM))?;
    let mut list = HypercallBuffer::words_zeroed(call, count)?;
    let mut page = HypercallBuffer::bytes_zeroed(call, size_of::<sys::xen_machphys_mfn_list>())?;
    let address = page.address();
    let argument = address.cast::<sys::xen_machphys_mfn_list>();
    let query = sys::xen_machphys_mfn_list {
        max_extents,
        extent_start: sys::__guest_handle_xen_pfn_t { p: list.address().cast() },
        nr_extents: 0,
    };
    // SAFETY: the buffer has a page at least, page-aligned, and the structure is no larger.
    unsafe { argument.write(query) };
    // SAFETY: the argument is there, and the list, which is ours, has room for as many extents as it says.
    unsafe { call.memory_op(command, address) }?;
    // SAFETY: as for the write. The structure is of integers and an address: any bytes are valid.
    let answer = unsafe { argument.read() };
    if answer.nr_extents == max_extents { Ok(list.words().to_vec()) } else { Err(Errno(libc::ERANGE)) }
}

/// Returns the pages of a table for `frames` frames.
fn pages(frames: u64) -> CallResult<usize> {
    usize::try_from(frames.div_ceil(ENTRIES_PER_PAGE)).map_err(|_| Errno(libc::ENOMEM))
}

/// Names the first `pages` frames that extents consist of; `None` if there are not as many.
fn frames_of(extents: &[sys::xen_pfn_t], pages: usize) -> Option<Vec<sys::xen_pfn_t>> {
    let mut frames = Vec::with_capacity(pages);
    for first in extents {
        let wanted = EXTENT_PAGES.min(pages - frames.len()) as u64;
        frames.extend(*first..first.checked_add(wanted)?);
    }
    (frames.len() == pages).then_some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_is_512_frames_of_which_the_last_may_have_more_than_needed() {
        assert_eq!(frames_of(&[0x1000, 0x8000], 514).unwrap()[510..], [0x11fe, 0x11ff, 0x8000, 0x8001]);
        assert_eq!(frames_of(&[0x1000], 512).unwrap().len(), 512);
        assert_eq!(frames_of(&[0x1000, 0x1000], 1024).unwrap()[512..514], [0x1000, 0x1001]);
        assert_eq!(frames_of(&[], 0), Some(Vec::new()));
    }

    #[test]
    fn too_few_extents_and_such_that_cannot_be_are_refused() {
        assert_eq!(frames_of(&[0x1000], 513), None);
        assert_eq!(frames_of(&[u64::MAX], 1), None);
    }
}
