// SPDX-License-Identifier: GPL-3.0-or-later
//! `__HYPERVISOR_mmuext_op`: pinning a PV guest's page tables. Xen then checks all of their entries. Source:
//! `public/xen.h`.

use std::sync::Arc;

use xenctrl_sys as sys;
use xenmig_hypervisor::{BitmapMemory, Errno, PinOp};
use xenmig_types::{Domid, PageType};

use crate::{buffer::HypercallBuffer, call::CallHandle, error::CallResult};

/// Most operations in one hypercall, as in libxc.
const BATCH: usize = 1024;
const OP_WORDS: usize = size_of::<sys::mmuext_op>() / size_of::<u64>();

/// Pins tables, in order, and returns how many it has pinned before one was refused. An error means none. `EINVAL` for a
/// page type that is not a table's. For an L4 of a 32-bit guest, Xen reports success and pins nothing.
pub(super) fn pin(call: &Arc<CallHandle>, domid: Domid, pins: &[PinOp]) -> CallResult<usize> {
    let ops = pins.iter().map(|pin| op(*pin).ok_or(Errno(libc::EINVAL)));
    let ops: Vec<[u64; OP_WORDS]> = ops.collect::<CallResult<_>>()?;
    // The first word is for Xen's count, which has 32 bits.
    let mut list = HypercallBuffer::words_zeroed(call, 1 + BATCH.min(ops.len()) * OP_WORDS)?;
    let mut pinned = 0;
    for batch in ops.chunks(BATCH) {
        let words = [0].iter().chain(batch.as_flattened());
        list.words_mut().iter_mut().zip(words).for_each(|(to, from)| *to = *from);
        let done = list.address();
        let operations = done.wrapping_byte_add(size_of::<u64>());
        // SAFETY: the list holds as many operations, and they pin by number of frame: nothing in them is an address. The
        // word in front of them is there for the count.
        let result = unsafe { call.mmuext_op(operations, batch.len(), done, domid) };
        let count = list.words().first().map_or(0, |word| *word & u64::from(u32::MAX));
        pinned += usize::try_from(count).unwrap_or(batch.len()).min(batch.len());
        match result {
            Ok(()) => {}
            Err(errno) if pinned == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(pinned)
}

/// Returns the words of a `mmuext_op`: the command, the frame, and an argument that pinning does not have.
fn op(pin: PinOp) -> Option<[u64; OP_WORDS]> {
    let command = match pin.kind {
        PageType::L1 | PageType::L1Pinned => sys::MMUEXT_PIN_L1_TABLE,
        PageType::L2 | PageType::L2Pinned => sys::MMUEXT_PIN_L2_TABLE,
        PageType::L3 | PageType::L3Pinned => sys::MMUEXT_PIN_L3_TABLE,
        PageType::L4 | PageType::L4Pinned => sys::MMUEXT_PIN_L4_TABLE,
        _ => return None,
    };
    Some([u64::from(command), pin.frame.0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use xenmig_types::Gfn;

    #[test]
    fn a_table_is_pinned_as_its_level() {
        let command = |kind| op(PinOp { frame: Gfn(0x1234), kind });
        for (kind, number) in [(PageType::L1, 0), (PageType::L2, 1), (PageType::L3, 2), (PageType::L4, 3)] {
            assert_eq!(command(kind), Some([number, 0x1234, 0]));
            let pinned = PageType::try_from(kind.number() | 8).unwrap();
            assert_eq!(command(pinned), Some([number, 0x1234, 0]));
        }
    }

    #[test]
    fn nothing_else_is_pinned() {
        for kind in [PageType::Notab, PageType::Broken, PageType::Xalloc, PageType::Xtab] {
            assert_eq!(op(PinOp { frame: Gfn(1), kind }), None);
        }
    }
}
