// SPDX-License-Identifier: GPL-3.0-or-later
//! What END does to the domain's pages as a whole: pages that never came get zeroes, page tables are pinned, and holes are
//! taken away.

use xenmig_hypervisor::{Access, HypervisorError, PinOp};
use xenmig_types::{Gfn, PageType, Pfn};

use super::{
    super::{
        error::RestoreError,
        events::RestoreProgress,
        mapped_pages::{MappedPages, ZEROES},
        target::Target,
    },
    frame_map::FrameMap,
};
use crate::bitmap::MAX_BATCH_PAGES;

/// `EIO` of Linux: a hypervisor that neither pins a table nor says why not.
const EIO: i32 = 5;

/// Fills pages with zeroes that the domain was given because a page table refers to them, and that never came: Xen does not
/// scrub everything that it gives.
pub(super) fn zero_unfilled(
    frames: &FrameMap,
    target: &Target<'_>,
    progress: &RestoreProgress,
) -> Result<(), RestoreError> {
    for batch in frames.unfilled().chunks(MAX_BATCH_PAGES) {
        let mapped = MappedPages::new(target, batch, frames.frames(batch), Access::Write)?;
        (0..batch.len()).try_for_each(|index| mapped.copy_in(index, &ZEROES))?;
        target.attend(progress)?;
    }
    Ok(())
}

/// Pins the page tables that were pinned. Xen keeps them read-only from then on.
///
/// A call may pin only some of its tables, and the next one then begins with the first that is not pinned: pinning a table
/// twice is an error.
pub(super) fn pin(
    frames: &FrameMap,
    target: &Target<'_>,
    progress: &RestoreProgress,
) -> Result<(), RestoreError> {
    let pinned = frames.entries().filter(|entry| entry.kind.is_pinned());
    let pins: Vec<PinOp> = pinned.map(|entry| PinOp { frame: entry.frame, kind: entry.kind }).collect();
    let mut rest = pins.as_slice();
    while !rest.is_empty() {
        let batch = rest.get(..MAX_BATCH_PAGES).unwrap_or(rest);
        let pinned = target.call(|host, domid| match host.pin_tables(domid, batch)? {
            0 => Err(HypervisorError::call("mmuext_op pin", domid, EIO)),
            pinned => Ok(pinned),
        })?;
        rest = rest.get(pinned..).unwrap_or_default();
        target.attend(progress)?;
    }
    Ok(())
}

/// Takes away the pages that have become holes, so that they do not count against the domain's limit. Their entries of the
/// p2m become invalid, as the guest itself has them.
///
/// An earlier use of such a page may have left a reference in a page table that the guest no longer uses. Xen then frees the
/// page when that reference goes. If Xen refuses to take a page, the guest has one that it does not know of, as it always
/// has after libxc's restore: that is no reason to fail. A broken page is not a hole: the guest has it.
pub(super) fn depopulate_holes(
    frames: &mut FrameMap,
    target: &Target<'_>,
    progress: &mut RestoreProgress,
) -> Result<(), RestoreError> {
    let holes = frames.entries().filter(|entry| entry.kind == PageType::Xtab);
    let holes: Vec<(Pfn, Gfn)> = holes.map(|entry| (entry.pfn, entry.frame)).collect();
    for batch in holes.chunks(MAX_BATCH_PAGES) {
        let gfns: Vec<Gfn> = batch.iter().map(|(_, frame)| *frame).collect();
        match target.call(|host, domid| host.depopulate(domid, &gfns)) {
            Ok(()) => progress.pages_depopulated += gfns.len() as u64,
            Err(RestoreError::Hypervisor(_)) => {}
            Err(error) => return Err(error),
        }
        for (pfn, _) in batch {
            frames.remove(*pfn);
        }
        target.attend(progress)?;
    }
    Ok(())
}
