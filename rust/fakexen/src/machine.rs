// SPDX-License-Identifier: GPL-3.0-or-later
//! The host's machine memory, as PV guests and toolstacks see it: the machine-to-phys table, whose pages are
//! Xen's own, and `mmuext_op`, which makes pages of a guest page tables for good.
//!
//! Without a PV domain there is no such memory, and `EOPNOTSUPP`. Sources: `public/memory.h`, `public/xen.h`.

use xenmig_hypervisor::{PinOp, PvVerbs};
use xenmig_sim::RawM2p;
use xenmig_types::{Gfn, PageType};

use crate::{
    caller_memory::Memory,
    failure::verb,
    host,
    kinds::Kind,
    layout::{MachphysList, MmuextOp},
    tally::{self, Answer, Scope},
};

/// `DOMID_XEN`, to which the pages of the table belong.
pub(crate) const XEN: u16 = 0x7ff2;
/// Pages of the table that follow each other.
const CHUNK_PAGES: u64 = 512;
/// The most operations in one call: a caller's mistake does not cost more memory than theirs.
const MOST_OPS: u64 = 1 << 16;

/// Returns the table.
pub(crate) fn m2p() -> Option<RawM2p> {
    host::domids().into_iter().filter_map(host::domain).find_map(|domain| domain.sim.raw().m2p())
}

/// Returns which page of the table a frame is.
pub(crate) fn page(m2p: &RawM2p, frame: u64) -> Option<u64> {
    let within = |first: &Gfn| frame.checked_sub(first.0).filter(|page| *page < CHUNK_PAGES);
    (0..).zip(&m2p.chunks).find_map(|(chunk, first)| Some(chunk * CHUNK_PAGES + within(first)?))
}

/// `XENMEM_maximum_ram_page`: one more than the highest frame.
pub(crate) fn maximum_ram_page() -> Answer {
    tally::call(Kind::MaximumRamPage, Scope::Host, || {
        i64::try_from(m2p().ok_or(libc::EOPNOTSUPP)?.frames).map_err(|_| libc::EINVAL)
    })
}

/// `XENMEM_machphys_mfn_list`.
pub(crate) fn list(arg: u64) -> Answer {
    tally::call(Kind::MachphysList, Scope::Host, || {
        let chunks: Vec<u64> = m2p().ok_or(libc::EOPNOTSUPP)?.chunks.iter().map(|first| first.0).collect();
        answer(arg, Memory::Hypercall, &chunks)
    })
}

/// `XENMEM_machphys_compat_mfn_list`: libxenguest wants the answer in its own variable, and Xen does not mind.
pub(crate) fn compat_list(arg: u64) -> Answer {
    tally::call(Kind::MachphysCompatList, Scope::Host, || {
        answer(arg, Memory::User, &[m2p().ok_or(libc::EOPNOTSUPP)?.compat.0])
    })
}

/// Tells the first frames of a table's chunks, as many as there is room for.
fn answer(arg: u64, memory: Memory, chunks: &[u64]) -> Answer {
    let asked: MachphysList = Memory::Hypercall.read(arg)?;
    let chunks = chunks.get(..asked.max_extents as usize).unwrap_or(chunks);
    memory.write_all(asked.extent_start, chunks)?;
    let nr_extents = u32::try_from(chunks.len()).map_err(|_| libc::EINVAL)?;
    Memory::Hypercall.write(arg, &MachphysList { nr_extents, ..asked })?;
    Ok(0)
}

/// `mmuext_op`: page tables are pinned, and if `done` is not null it gets their number. Other operations are a guest's own
/// and not played here.
pub(crate) fn mmuext_op(list: u64, count: u64, done: u64, subject: u64) -> Answer {
    let domain = u16::try_from(subject).ok().and_then(host::domain);
    let scope = host::scope(domain.as_deref());
    tally::call(Kind::Mmuext, scope, || {
        let domid = domain.as_deref().ok_or(libc::ESRCH)?.domid;
        if count > MOST_OPS {
            return Err(libc::EINVAL);
        }
        let size = size_of::<MmuextOp>() as u64;
        let op = |number| Memory::Hypercall.read(list.wrapping_add(number * size)).and_then(|op| pin(&op));
        let pins: Vec<PinOp> = (0..count).map(op).collect::<Result<_, _>>()?;
        let mut rest = pins.as_slice();
        let result = loop {
            match verb(host::sim().pin_tables(domid, rest)) {
                Ok(pinned) => rest = rest.get(pinned..).unwrap_or_default(),
                Err(errno) => break Err(errno),
            }
            if rest.is_empty() {
                break Ok(0);
            }
        };
        let pinned = u32::try_from(pins.len() - rest.len()).map_err(|_| libc::EINVAL)?;
        if done != 0 {
            Memory::Hypercall.write(done, &pinned)?;
        }
        result
    })
}

/// Reads `MMUEXT_PIN_L1_TABLE` to `MMUEXT_PIN_L4_TABLE`.
const fn pin(op: &MmuextOp) -> Result<PinOp, i32> {
    let kind = match op.cmd {
        0 => PageType::L1,
        1 => PageType::L2,
        2 => PageType::L3,
        3 => PageType::L4,
        _ => return Err(libc::EOPNOTSUPP),
    };
    Ok(PinOp { frame: Gfn(op.frame), kind })
}
