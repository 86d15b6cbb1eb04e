// SPDX-License-Identifier: GPL-3.0-or-later
//! The precopy: rounds of sending what the guest dirtied, while it runs, until the policy has seen enough.
//!
//! ```text
//!              ┌──────────────────────────── CLEAN: the bitmap is what was dirtied since ◄───────┐
//!              ▼                                                                                 │
//! all pages ─► consult before_round ── CONTINUE ─► batch, (consult batch,) batch, ... ─► consult after_round
//!              │                                    │                                            │
//!              STOP, ABORT                          STOP, ABORT                                  STOP, ABORT
//! ```
//!
//! STOP leads to the final pass, ABORT to the end of the save; the guest has not been suspended yet.
//! In [`ConsultMode::Round`] this is libxc's `send_memory_live()` call for call: there is no consult within a round,
//! and a STOP before a round still sends the round. In [`ConsultMode::Batch`] a STOP takes effect where it is given:
//! what the round has not sent is owed to the final pass.
//!
//! Why no page is lost: a page's bit leaves the hypervisor's log only by a CLEAN, into `bitmap`. From there it
//! leaves only into a batch that is written, or into `owed`; a page that is skipped because it is dirty again is in
//! the log at that moment, and thus in the next CLEAN.

use std::time::Instant;

use xenmig_hypervisor::{CleanPass, DirtyBitmap};
use xenmig_types::Pfn;

use crate::{
    ConsultMode, Decision, Phase, SaveError, Verdict,
    batch::Pass,
    bitmap::{self, Cursor},
    run::Run,
};

/// Runs rounds until the policy stops them, and returns the verdict that did.
pub(crate) fn precopy(run: &mut Run<'_>) -> Result<Verdict, SaveError> {
    let p2m_size = run.ledger.now.p2m_size;
    run.bitmap.fill(|words| bitmap::set_all(words, p2m_size));
    let mut redirtied = Redirtied::new(run)?;
    let mut dirty = p2m_size;
    loop {
        let verdict = run.consult(Phase::BeforeRound)?;
        match (run.options.consult, verdict.decision) {
            (_, Decision::Continue) => {
                if let Some(stop) = send_round(run, dirty, redirtied.as_mut())? {
                    return Ok(stop);
                }
            }
            (ConsultMode::Round, _) => {
                send_round(run, dirty, None)?;
                return Ok(verdict);
            }
            (ConsultMode::Batch, _) => {
                stop_here(run, Cursor::default());
                return Ok(verdict);
            }
        }
        run.ledger.now.iteration += 1;
        run.ledger.now.total_written += dirty;
        run.ledger.now.dirty_count = None;
        let verdict = run.consult(Phase::AfterRound)?;
        if verdict.decision != Decision::Continue {
            return Ok(verdict);
        }
        if run.ledger.sent_nothing() {
            // A policy that goes on with nothing to send must not make CLEAN spin, which pauses the guest.
            let early = run.options.min_round.saturating_sub(run.ledger.cleaned_ago());
            run.wait(early)?;
        }
        dirty = run.clean(CleanPass::Live)?;
        if let Some(redirtied) = &mut redirtied {
            redirtied.forget();
        }
    }
}

/// Sends what the bitmap holds. Returns the verdict if one stopped the round midway.
fn send_round(
    run: &mut Run<'_>,
    dirty: u64,
    mut redirtied: Option<&mut Redirtied>,
) -> Result<Option<Verdict>, SaveError> {
    if dirty == 0 {
        run.ledger.skip_round();
        return Ok(None);
    }
    let ours = run.options.consult == ConsultMode::Batch;
    // The receiver has nothing yet, so it need not be told of holes.
    let first = ours && run.ledger.now.iteration == 0;
    let pass = Pass { holes_below: if first { Pfn(0) } else { run.holes_below }, defer: true };

    run.ledger.begin_round(Phase::BeforeRound, dirty);
    let mut cursor = Cursor::default();
    let mut stop = None;
    while cursor.next_batch(run.bitmap.words(), &mut run.batch.pfns) {
        let skipped = match redirtied.as_deref_mut() {
            Some(redirtied) => redirtied.leave_out(run),
            None => 0,
        };
        let sent = run.send_batch(pass, skipped)?;
        if !ours || !sent {
            // A batch of holes, or of pages that are dirty again, has changed nothing that a policy could go by.
            run.attend(Phase::Batch)?;
            continue;
        }
        let verdict = run.consult_after_batch()?;
        if verdict.decision != Decision::Continue {
            stop_here(run, cursor);
            stop = Some(verdict);
            break;
        }
    }
    run.ledger.end_round();
    run.guest.check_p2m()?;
    Ok(stop)
}

/// Leaves what the round has not reached to the final pass.
fn stop_here(run: &mut Run<'_>, cursor: Cursor) {
    run.owe_rest(cursor);
    if run.ledger.now.iteration == 0 {
        run.holes_below = cursor.reached();
    }
}

/// Pages that are dirty again already: to send them now is wasted, as the next CLEAN has them.
struct Redirtied {
    bitmap: DirtyBitmap,
    peeked: Option<Instant>,
}

impl Redirtied {
    /// Returns nothing if the save does not skip pages.
    fn new(run: &Run<'_>) -> Result<Option<Self>, SaveError> {
        if !run.options.skip_redirtied || run.options.consult != ConsultMode::Batch {
            return Ok(None);
        }
        let bitmap = run.host.dirty_bitmap(run.domid, run.ledger.now.p2m_size)?;
        Ok(Some(Self { bitmap, peeked: None }))
    }

    /// Forgets everything: a CLEAN has taken it.
    fn forget(&mut self) {
        self.bitmap.fill(|words| words.fill(0));
        self.peeked = None;
    }

    /// Takes the pages that are dirty again out of the batch and returns how many there were. Between two CLEANs a
    /// page only ever becomes dirty, so an old PEEK misses pages but never names a wrong one.
    fn leave_out(&mut self, run: &mut Run<'_>) -> u64 {
        if self.peeked.is_none_or(|at| at.elapsed() >= run.options.skip_interval) {
            match run.host.peek(run.domid, Some(&mut self.bitmap)) {
                Ok(_) => self.peeked = Some(Instant::now()),
                // Skipping only saves work: without an answer nothing is skipped.
                Err(_) => self.forget(),
            }
        }
        let before = run.batch.pfns.len();
        let words = self.bitmap.words();
        run.batch.pfns.retain(|pfn| !bitmap::contains(words, *pfn));
        (before - run.batch.pfns.len()) as u64
    }
}
