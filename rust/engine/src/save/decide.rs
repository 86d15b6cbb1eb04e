// SPDX-License-Identifier: GPL-3.0-or-later
//! Deciding: who is asked whether the precopy goes on, what they are told, and what comes of the answer. Everything that
//! happens in a save goes through here as an [`Event`], to the caller and into the report.
//!
//! ```text
//! ledger ─► PrecopyStats ─► policy ─► Verdict ─┬─ CONTINUE, STOP_AND_COPY ─► precopy.rs
//!                              └─ Event ─┐     └─ ABORT ─► SaveError::PolicyAbort
//! stages, rounds, progress ──── Event ───┴─► save_report.rs, Caller::observe
//! ```

use std::{fmt, time::Duration};

use xenmig_hypervisor::{Moment, SaveClaim};
use xenmig_types::DomainState;

use super::{
    save_error::SaveError,
    save_events::{Event, Stage},
    save_options::SaveOptions,
    save_report::Record,
};
use crate::{
    guest::save_ops::{Domain, SaveWatch},
    policy::{
        Policy,
        decision::{ConsultMode, Decision, Phase, Verdict},
        ledger::Ledger,
    },
    watch::LISTEN_INTERVAL,
};

/// The guest is looked at this often while it should be running.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A PEEK without a bitmap refreshes the dirty rate this often within a round.
const PEEK_INTERVAL: Duration = Duration::from_millis(50);

/// The watch, the policy, and the account that they go by.
pub(crate) struct Decide<'a> {
    pub(crate) watch: SaveWatch<'a>,
    pub(crate) ledger: Ledger,
    pub(crate) record: Record,
    domain: Domain<'a>,
    pub(crate) claim: &'a SaveClaim,
    policy: &'a mut dyn Policy,
    mode: ConsultMode,
    stage: Stage,
    /// The phase that progress is reported in.
    phase: Phase,
    /// A STOP that was given while a batch waited for the other end.
    early_stop: Option<Verdict>,
    /// When the policy was last asked, or the present write began.
    consulted: Moment,
    /// How long the policy took when it was last asked during a write.
    waiting_consult: Duration,
    looked: Moment,
    peeked: Moment,
}

impl fmt::Debug for Decide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decide")
            .field("stage", &self.stage)
            .field("ledger", &self.ledger)
            .finish_non_exhaustive()
    }
}

impl<'a> Decide<'a> {
    /// Starts the account of a save that begins now.
    pub(crate) fn new(
        domain: Domain<'a>,
        claim: &'a SaveClaim,
        watch: SaveWatch<'a>,
        policy: &'a mut dyn Policy,
        options: &SaveOptions,
        ledger: Ledger,
    ) -> Self {
        let now = watch.now();
        Self {
            watch,
            ledger,
            record: Record::default(),
            domain,
            claim,
            policy,
            mode: options.consult,
            stage: Stage::Preamble,
            phase: Phase::BeforeRound,
            early_stop: None,
            consulted: now,
            waiting_consult: Duration::ZERO,
            looked: now,
            peeked: now,
        }
    }

    /// Begins a stage of the save.
    pub(crate) fn enter(&mut self, stage: Stage) -> Result<(), SaveError> {
        self.stage = stage;
        let elapsed = self.ledger.elapsed(self.watch.tick());
        self.tell(Event::Stage { stage, elapsed })
    }

    /// Asks the policy at a boundary of rounds.
    pub(crate) fn consult(&mut self, phase: Phase) -> Result<Verdict, SaveError> {
        self.watch.tick();
        self.ask(phase)
    }

    /// Asks the policy after a batch, which has just read the clock. A STOP that was given while the batch waited counts.
    pub(crate) fn consult_after_batch(&mut self) -> Result<Verdict, SaveError> {
        if let Some(stop) = self.early_stop.take() {
            return Ok(stop);
        }
        self.refresh_dirty_count();
        self.ask(Phase::Batch)
    }

    /// Lets the caller interrupt the save, and tells it how far the save is, each if it is time.
    pub(crate) fn attend(&mut self, phase: Phase) -> Result<(), SaveError> {
        self.watch.attend()?;
        self.look_at_guest()?;
        self.phase = phase;
        self.report_progress(phase)
    }

    /// Notes that a write begins: until it has waited, it is not consulted about.
    pub(crate) fn begin_write(&mut self) {
        self.consulted = self.consulted.max(self.watch.now());
    }

    /// Called at least every 100 ms while the other end takes nothing; `moved` bytes have gone through the sink so far.
    ///
    /// While the guest runs, the policy is asked, and may abort: a stalled peer would otherwise keep log-dirty mode on for
    /// as long as it likes. A STOP is kept until the batch is through, because a record cannot be left in its middle. While
    /// the guest is suspended there is nothing to decide, and the watch's limit counts.
    pub(crate) fn while_waiting(&mut self, moved: u64) -> Result<(), SaveError> {
        self.watch.while_waiting(moved)?;
        self.look_at_guest()?;
        if self.stage != Stage::Precopy {
            return self.report_progress(self.phase);
        }
        if self.mode == ConsultMode::Batch && self.early_stop.is_none() {
            // A slow policy must not hold up a peer that takes bytes, if slowly: then it gets a tenth of the time.
            let share = if self.watch.is_stalled() { 1 } else { 10 };
            let began = self.watch.now();
            if began.since(self.consulted) < LISTEN_INTERVAL.max(self.waiting_consult * share) {
                return Ok(());
            }
            let verdict = self.ask(Phase::Waiting)?;
            self.consulted = self.watch.tick();
            self.waiting_consult = self.consulted.since(began);
            self.early_stop = Some(verdict).filter(|verdict| verdict.decision != Decision::Continue);
            return Ok(());
        }
        self.report_progress(Phase::Waiting)
    }

    /// Closes the account of a round or of a pass over the suspended guest.
    pub(crate) fn end_round(&mut self) -> Result<(), SaveError> {
        match self.ledger.end_round(self.watch.tick()) {
            Some(round) => self.tell(Event::Round(&round)),
            None => Ok(()),
        }
    }

    /// Notes that a CLEAN has just told how many pages are dirty.
    pub(crate) fn cleaned(&mut self, dirty_count: u64) {
        self.peeked = self.watch.now();
        self.ledger.cleaned(dirty_count, self.watch.now());
    }

    /// Asks the policy, and turns an ABORT into the error that it is.
    fn ask(&mut self, phase: Phase) -> Result<Verdict, SaveError> {
        self.attend(phase)?;
        self.consulted = self.watch.now();
        let stats = self.ledger.stats(phase, self.consulted);
        let verdict = self.policy.decide(&stats).map_err(SaveError::Policy)?;
        self.tell(Event::Consult { stats: &stats, verdict: &verdict })?;
        if verdict.decision == Decision::Abort {
            return Err(SaveError::PolicyAbort { stats: Box::new(stats), reason: verdict.reason });
        }
        Ok(verdict)
    }

    /// Refreshes the count of pages that are dirty again, if the last one is old. Without a bitmap a PEEK costs next to
    /// nothing, but it does pause the guest, so it is paced. It is an estimate: an error leaves the old one.
    fn refresh_dirty_count(&mut self) {
        let now = self.watch.now();
        if now.since(self.peeked) >= PEEK_INTERVAL {
            if let Ok(counts) = self.domain.host.peek(self.domain.domid, None) {
                self.ledger.peeked(counts.dirty_count.into(), now);
            }
            self.peeked = now;
        }
    }

    /// Makes sure, once a second, that the guest has not ended, which nothing else would show before it fails to answer the
    /// request to suspend itself; and that no program which takes no claims saves it as well.
    fn look_at_guest(&mut self) -> Result<(), SaveError> {
        let now = self.watch.now();
        if self.stage != Stage::Precopy || now.since(self.looked) < LOOK_INTERVAL {
            return Ok(());
        }
        self.looked = now;
        self.claim.check()?;
        let Domain { host, domid } = self.domain;
        let state = self.watch.retry(|| host.domain_info(domid))?.state;
        match state {
            DomainState::Running | DomainState::Paused => Ok(()),
            state if state.is_suspended() => Ok(()),
            DomainState::Shutdown { .. } | DomainState::Dying => Err(SaveError::Ended { domid, state }),
        }
    }

    fn report_progress(&mut self, phase: Phase) -> Result<(), SaveError> {
        if self.watch.progress_due() {
            let stats = self.ledger.stats(phase, self.watch.now());
            self.tell(Event::Progress(&stats))?;
        }
        Ok(())
    }

    fn tell(&mut self, event: Event<'_>) -> Result<(), SaveError> {
        self.record.enter(&event);
        self.watch.caller.observe(&event).map_err(SaveError::Observer)
    }
}
