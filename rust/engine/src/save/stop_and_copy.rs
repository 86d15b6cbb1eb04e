// SPDX-License-Identifier: GPL-3.0-or-later
//! Stop and copy: the guest is suspended, what is left of its memory is sent, then its state, then END. The time that
//! this takes is the downtime.

use xenmig_hypervisor::CleanPass;
use xenmig_stream::encode;
use xenmig_types::{DomainInfo, Pfn};

use super::{
    aftermath::Aftermath, pipeline::Pipeline, prepare::Pass, save_error::SaveError, save_events::Stage,
};
use crate::{bitmap::Cursor, policy::decision::Phase};

/// Ends a live save: the last dirty pages and those that are owed.
pub(crate) fn after_precopy(save: &mut Pipeline<'_>, aftermath: &mut Aftermath) -> Result<(), SaveError> {
    let pages_now = suspend(save, aftermath)?;
    save.decide.enter(Stage::LastClean)?;
    save.clean(CleanPass::Final)?;
    if pages_now != save.ram_pages {
        // The guest has ballooned. Not every Xen logs that a hole became a page.
        let owed = save.claims.owe_holes();
        save.decide.ledger.defer(owed);
    }
    save.claims.claim_owed();
    save.decide.enter(Stage::StopAndCopy)?;
    send_claims(save, Phase::StopAndCopy)?;
    if save.options.verify {
        save.decide.enter(Stage::Verify)?;
        let mut record = Vec::new();
        encode::verify(&mut record);
        save.write.bytes(&record, &mut save.decide)?;
        save.claims.claim_all();
        send_claims(save, Phase::Verify)?;
    }
    state(save)?;
    end(save, aftermath)
}

/// Saves a guest that is suspended first.
pub(crate) fn whole(save: &mut Pipeline<'_>, aftermath: &mut Aftermath) -> Result<(), SaveError> {
    suspend(save, aftermath)?;
    save.decide.enter(Stage::StopAndCopy)?;
    save.claims.claim_all();
    send_claims(save, Phase::StopAndCopy)?;
    state(save)?;
    end(save, aftermath)
}

/// Has the caller suspend the guest, and makes sure that it is. Returns how many pages of memory the domain has.
fn suspend(save: &mut Pipeline<'_>, aftermath: &mut Aftermath) -> Result<u64, SaveError> {
    save.decide.attend(Phase::StopAndCopy)?;
    save.decide.claim.check()?;
    save.decide.enter(Stage::Suspend)?;
    let before = save.info()?.state;
    // A guest that is suspended already is another program's to resume.
    aftermath.suspending = !before.is_suspended();
    save.decide.watch.caller.suspend().map_err(SaveError::Suspend)?;
    let info = save.info()?;
    if !info.state.is_suspended() {
        return Err(SaveError::NotSuspended { domid: info.domid, state: info.state });
    }
    save.decide.watch.limit_stalls(save.options.stall_limit_suspended());
    let p2m_size = save.decide.ledger.p2m_size();
    save.prepare.guest.check_size(save.domain, &mut save.decide.watch, p2m_size)?;
    Ok(info.total_pages)
}

/// Sends everything that the bitmap holds, of a guest that does not run.
fn send_claims(save: &mut Pipeline<'_>, phase: Phase) -> Result<(), SaveError> {
    save.decide.ledger.begin_round(phase, save.claims.count(), save.decide.watch.tick());
    let holes_below = if phase == Phase::Verify { Pfn(u64::MAX) } else { save.claims.holes_below };
    let pass = Pass { holes_below, defer: false };
    let mut cursor = Cursor::default();
    while save.claims.next_batch(&mut cursor, &mut save.pfns) {
        save.send_batch(pass, 0)?;
        save.decide.attend(phase)?;
    }
    save.decide.end_round()
}

/// Fetches the guest's state whole, then writes it: no failure of the hypervisor can leave half of it in the stream.
fn state(save: &mut Pipeline<'_>) -> Result<(), SaveError> {
    save.decide.enter(Stage::State)?;
    let mut records = Vec::new();
    save.prepare.guest.state(save.domain, &mut save.decide.watch, &mut records)?;
    save.write.bytes(&records, &mut save.decide)
}

/// Writes END: from here on the stream is whole. If the guest has run since it was suspended, it never is.
fn end(save: &mut Pipeline<'_>, aftermath: &mut Aftermath) -> Result<(), SaveError> {
    let DomainInfo { domid, state, .. } = save.info()?;
    if !state.is_suspended() {
        return Err(SaveError::Disturbed { domid, state });
    }
    let mut record = Vec::new();
    encode::end(&mut record);
    save.write.bytes(&record, &mut save.decide)?;
    // A receiver may start the guest from here on, so this side must not let it go on, whatever an observer says.
    if let Err(error) = save.decide.enter(Stage::Complete) {
        aftermath.warnings.push(format!("after the stream was complete: {error}"));
    }
    Ok(())
}
