// SPDX-License-Identifier: GPL-3.0-or-later
//! Sparing the first round the holes of a p2m that is mostly holes.
//!
//! A PVH guest of 128 MiB has a p2m of a million pfns, one with a page near 1 TiB has 268 million. A first round that is
//! stopped midway owes the rest of them to the final pass, which would have to ask for the type of each while the guest
//! is suspended. So they are asked for beforehand, while it runs. A hole that becomes a page later is in the log, as far
//! as Xen logs that; where it may not, the amount of memory shows that the guest ballooned, and the holes are owed again.

use xenmig_hypervisor::CleanPass;

use super::{pipeline::Pipeline, save_error::SaveError};
use crate::{
    bitmap::{Cursor, Owed},
    policy::decision::Phase,
};

/// Fewer holes than this are cheaper to leave in: 1 GiB's worth.
const MANY: u64 = 1 << 18;

/// Takes the holes out of what the first round claims, if they are many and outnumber the pages.
pub(crate) fn leave_out(save: &mut Pipeline<'_>) -> Result<(), SaveError> {
    let ram_pages = save.ram_pages;
    let holes = save.claims.bitmap.pages().saturating_sub(ram_pages);
    if holes < MANY.max(ram_pages) {
        return Ok(());
    }
    let mut pages = Owed::new(save.claims.bitmap.words().len())?;
    let mut cursor = Cursor::default();
    while save.claims.next_batch(&mut cursor, &mut save.pfns) {
        save.prepare.leave_out_holes(&mut save.pfns, &mut save.decide.watch)?;
        save.pfns.iter().for_each(|pfn| {
            pages.add(*pfn);
        });
        save.decide.watch.tick();
        save.decide.attend(Phase::BeforeRound)?;
    }
    // What the guest wrote meanwhile is claimed by the first round in any case, and so is what it got.
    save.clean(CleanPass::Live)?;
    pages.add_words(save.claims.bitmap.words());
    save.claims.claim_all();
    save.claims.claim_only(&pages)?;
    save.decide.ledger.claim(save.claims.count());
    Ok(())
}
