// SPDX-License-Identifier: GPL-3.0-or-later
//! The precopy: rounds over the dirty bitmap while the guest runs, and who ends them.
//!
//! ```text
//!      ┌──────────────────────────────── CLEAN ◄────────────────────────────── CONTINUE ───────┐
//!      ▼                                                                                         │
//! consult before_round ── CONTINUE ─► batch, (consult batch,) batch, ... ─► consult after_round ─┤
//!      │                                    │                                                    │
//!      STOP, ABORT                          STOP, ABORT                                STOP, ABORT
//! ```
//!
//! STOP leads to the final pass, ABORT to the end of the save; the guest has not been suspended yet.
//! In [`ConsultMode::Round`] this is libxc's `send_memory_live()` call for call: there is no consult within a round, and a
//! STOP before a round still sends the round. In [`ConsultMode::Batch`] a STOP takes effect where it is given: what the
//! round has not sent is owed to the final pass. A batch that waits for the other end is consulted about as well
//! ([`Phase::Waiting`](crate::Phase::Waiting)); a STOP then counts once the batch is through.
//!
//! Why no page is lost: a page's bit leaves the hypervisor's log only by a CLEAN, into the claims. From there it leaves
//! only into a batch that is written, or into what is owed; a page that is skipped because it is dirty again is in the log
//! at that moment, and thus in the next CLEAN.

use xenmig_hypervisor::CleanPass;
use xenmig_types::Pfn;

use super::{
    holes, pipeline::Pipeline, prepare::Pass, redirtied::Redirtied, save_error::SaveError, save_events::Stage,
};
use crate::{
    bitmap::Cursor,
    policy::decision::{ConsultMode, Decision, Phase},
};

/// Runs rounds until the policy stops them.
pub(crate) fn precopy(save: &mut Pipeline<'_>) -> Result<(), SaveError> {
    save.decide.enter(Stage::Precopy)?;
    save.claims.claim_all();
    if save.options.consult == ConsultMode::Batch {
        holes::leave_out(save)?;
    }
    let mut redirtied = Redirtied::new(save)?;
    let mut dirty = save.claims.count();
    loop {
        let verdict = save.decide.consult(Phase::BeforeRound)?;
        match (save.options.consult, verdict.decision) {
            (_, Decision::Continue) => {
                if send_round(save, dirty, redirtied.as_mut())? {
                    return Ok(());
                }
            }
            (ConsultMode::Round, _) => {
                send_round(save, dirty, None)?;
                return Ok(());
            }
            (ConsultMode::Batch, _) => {
                stop_here(save, Cursor::default());
                return Ok(());
            }
        }
        save.decide.ledger.finish_round(dirty);
        if save.decide.consult(Phase::AfterRound)?.decision != Decision::Continue {
            return Ok(());
        }
        if save.decide.ledger.sent_nothing() {
            // A policy that goes on with nothing to send must not make CLEAN spin, which pauses the guest.
            let since = save.decide.ledger.since_clean(save.decide.watch.tick());
            save.decide.watch.wait(save.options.min_round.saturating_sub(since))?;
        }
        dirty = save.clean(CleanPass::Live)?;
        if let Some(redirtied) = &mut redirtied {
            redirtied.forget();
        }
    }
}

/// Sends what the bitmap holds. Returns `true` if the policy stopped the round midway.
fn send_round(
    save: &mut Pipeline<'_>,
    dirty: u64,
    mut redirtied: Option<&mut Redirtied>,
) -> Result<bool, SaveError> {
    if dirty == 0 {
        save.decide.ledger.skip_round();
        return Ok(false);
    }
    let batch_mode = save.options.consult == ConsultMode::Batch;
    // The receiver has nothing yet, so it need not be told of holes.
    let first = batch_mode && save.decide.ledger.iteration() == 0;
    let pass = Pass { holes_below: if first { Pfn(0) } else { save.claims.holes_below }, defer: true };

    save.decide.ledger.begin_round(Phase::BeforeRound, dirty, save.decide.watch.tick());
    let mut cursor = Cursor::default();
    let mut stopped = false;
    while save.claims.next_batch(&mut cursor, &mut save.pfns) {
        let skipped = match redirtied.as_deref_mut() {
            Some(redirtied) => redirtied.leave_out(save),
            None => 0,
        };
        let sent = save.send_batch(pass, skipped)?;
        let verdict = if batch_mode && sent {
            save.decide.consult_after_batch()?
        } else {
            // A batch of holes, or of pages that are dirty again, has changed nothing that a policy could go by.
            save.decide.attend(Phase::Batch)?;
            continue;
        };
        if verdict.decision != Decision::Continue {
            stop_here(save, cursor);
            stopped = true;
            break;
        }
    }
    save.decide.end_round()?;
    save.prepare.guest.check_p2m()?;
    Ok(stopped)
}

/// Leaves what the round has not reached to the final pass.
fn stop_here(save: &mut Pipeline<'_>, cursor: Cursor) {
    let owed = save.claims.owe_rest(cursor);
    save.decide.ledger.defer(owed);
    if save.decide.ledger.iteration() == 0 {
        save.claims.holes_below = cursor.reached();
    }
}
