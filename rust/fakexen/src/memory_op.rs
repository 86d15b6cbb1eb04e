// SPDX-License-Identifier: GPL-3.0-or-later
//! `memory_op`: the size of the p2m, pages that a domain is given or gives back, and the host's own machine-to-phys
//! table.

use xenmig_hypervisor::{Extent, Hypervisor};
use xenmig_sim::Verb;
use xenmig_types::{Gfn, Pfn};

use crate::{
    caller_memory::Memory,
    failure::verb,
    host::{self, Domain},
    kinds::Kind,
    layout::{MemoryDomain, MemoryReservation, mem},
    machine,
    tally::unknown,
    tally::{self, Answer},
};

/// Extents that are looked at together.
const CHUNK: usize = 1024;

/// Answers a memory op.
pub(crate) fn memory_op(command: u64, arg: u64) -> Answer {
    match command {
        mem::MAXIMUM_GPFN => {
            let MemoryDomain { domid } = Memory::Hypercall.read(arg)?;
            about(Kind::MaximumGpfn, domid, |domain| {
                let pages = verb(host::sim().nr_gpfns(domain.domid))?;
                Ok(i64::try_from(pages).unwrap_or(i64::MAX) - 1)
            })
        }
        mem::POPULATE_PHYSMAP => {
            let asked: MemoryReservation = Memory::Hypercall.read(arg)?;
            about(Kind::PopulatePhysmap, asked.domid, |domain| populate(domain, &asked))
        }
        mem::DECREASE_RESERVATION => {
            let asked: MemoryReservation = Memory::Hypercall.read(arg)?;
            about(Kind::DecreaseReservation, asked.domid, |domain| decrease(domain, &asked))
        }
        mem::MAXIMUM_RAM_PAGE => machine::maximum_ram_page(),
        mem::MACHPHYS_MFN_LIST => machine::list(arg),
        mem::MACHPHYS_COMPAT_MFN_LIST => machine::compat_list(arg),
        other => unknown("memory_op", other),
    }
}

fn about(kind: Kind, domid: u16, answer: impl FnOnce(&Domain) -> Answer) -> Answer {
    let domain = host::domain(domid);
    let scope = host::scope(domain.as_deref());
    tally::call(kind, scope, || answer(domain.as_deref().ok_or(libc::ESRCH)?))
}

/// Hands the first frames of the extents on, a few at a time, until `take` takes fewer than it got. With `answered`,
/// what it puts in their place is the caller's answer. Returns how many were taken in all.
fn extents(
    asked: &MemoryReservation,
    answered: bool,
    mut take: impl FnMut(&mut [Gfn]) -> Result<usize, i32>,
) -> Answer {
    let mut done: u64 = 0;
    while done < asked.nr_extents {
        let mut buffer = [0_u64; CHUNK];
        let count = usize::try_from(asked.nr_extents - done).unwrap_or(CHUNK).min(CHUNK);
        let frames = buffer.get_mut(..count).unwrap_or_default();
        let at = asked.extent_start.wrapping_add(done.wrapping_mul(8));
        Memory::Hypercall.read_all(at, frames)?;
        let mut gfns = [Gfn(0); CHUNK];
        let gfns = gfns.get_mut(..count).unwrap_or_default();
        gfns.iter_mut().zip(&*frames).for_each(|(gfn, frame)| *gfn = Gfn(*frame));
        let taken = take(gfns)?;
        if answered {
            frames.iter_mut().zip(&*gfns).for_each(|(frame, gfn)| *frame = gfn.0);
            let taken = frames.get(..taken).unwrap_or_default();
            Memory::Hypercall.write_all(at, taken)?;
        }
        done += taken as u64;
        if taken < count {
            break;
        }
    }
    i64::try_from(done).map_err(|_| libc::EINVAL)
}

/// Extents are pages, or superpages of 2 MiB. Of other sizes there are none. A PV guest's toolstack is told the frames.
fn populate(domain: &Domain, asked: &MemoryReservation) -> Answer {
    let extent = match asked.extent_order {
        0 => Extent::Page,
        9 => Extent::Superpage,
        _ => return Ok(0),
    };
    extents(asked, domain.is_pv(), |gfns| verb(host::sim().populate(domain.domid, gfns, extent)))
}

fn decrease(domain: &Domain, asked: &MemoryReservation) -> Answer {
    if domain.is_pv() {
        let gone = |gfn: &Gfn| host::sim().depopulate(domain.domid, &[*gfn]).is_ok();
        return extents(asked, false, |gfns| Ok(gfns.iter().take_while(|gfn| gone(gfn)).count()));
    }
    verb(domain.sim.raw().begin(Verb::Depopulate))?;
    let pages = 1_u64.checked_shl(asked.extent_order).ok_or(libc::EINVAL)?;
    let gone = |gfn: &Gfn| {
        let mut pages = (0..pages).map(|page| Pfn(gfn.0.wrapping_add(page)));
        pages.all(|pfn| domain.sim.balloon_out(pfn).is_ok())
    };
    extents(asked, false, |gfns| Ok(gfns.iter().take_while(|gfn| gone(gfn)).count()))
}
