// SPDX-License-Identifier: GPL-3.0-or-later
//! Saving a domain: the phases in order, and what is undone whichever way they end.
//!
//! ```text
//! headers, static data ─► log-dirty on ─► precopy ─► suspend ─► CLEAN (FINAL) ─► the rest ─► state, END ─► log-dirty off
//!                                                    └──────────── the guest does not run ────────────┘
//! ```
//!
//! Whatever fails: log-dirty is switched off if it was switched on here, no mapping is left, no END is written, and a
//! guest that was suspended is resumed if the caller can. Sources: libxc-migration-stream, section "Layout"; `public/domctl.h`,
//! `XEN_DOMCTL_SHADOW_OP_*`.

use std::{
    panic::{self, AssertUnwindSafe},
    time::{Duration, Instant},
};

use xenmig_hypervisor::{CleanPass, Hypervisor, Sink};
use xenmig_stream::encode;
use xenmig_types::{DomainInfo, DomainState, Domid, Pfn};

use crate::{
    Caller, ConsultMode, GuestState, LibxcPolicy, Phase, Policy, RoundStats, SaveError, SaveFailure, Verdict,
    batch::Pass,
    bitmap::{self, Cursor},
    rounds,
    run::Run,
};

/// How a domain is saved.
#[derive(Clone, Debug)]
pub struct SaveOptions {
    /// Send the memory while the guest runs, and suspend it for the rest. Else suspend it first.
    pub live: bool,
    /// Send the whole memory once more after it, for the receiver to compare (`XCFLAGS_DEBUG`); live saves only.
    pub verify: bool,
    /// How often the policy is asked.
    pub consult: ConsultMode,
    /// Leave out pages that are dirty again when their turn comes ([`ConsultMode::Batch`] only). It costs a PEEK of
    /// the whole bitmap every [`skip_interval`](Self::skip_interval).
    pub skip_redirtied: bool,
    /// How old the PEEK may be that [`skip_redirtied`](Self::skip_redirtied) goes by.
    pub skip_interval: Duration,
    /// The least time between two CLEANs when there was nothing to send between them.
    pub min_round: Duration,
    /// The least time between two calls of [`Caller::progress`].
    pub progress_interval: Duration,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            live: true,
            verify: false,
            consult: ConsultMode::Round,
            skip_redirtied: false,
            skip_interval: Duration::from_millis(20),
            min_round: Duration::from_millis(50),
            progress_interval: Duration::from_millis(100),
        }
    }
}

/// Where the time went in which the guest did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Downtime {
    /// From the call of [`Caller::suspend`] to the last byte of the stream. What the receiver still does with these
    /// bytes is not in it.
    pub total: Duration,
    /// Until the guest was suspended.
    pub suspend: Duration,
    /// Fetching the last dirty bitmap.
    pub clean: Duration,
    /// Sending pages.
    pub pages: Duration,
    /// Fetching and sending the state that is not memory.
    pub state: Duration,
}

/// A save that succeeded.
#[derive(Clone, Debug)]
pub struct SaveReport {
    /// Size of the p2m in pages.
    pub p2m_size: u64,
    /// Rounds sent while the guest ran.
    pub rounds: u32,
    /// Every round, and the final passes.
    pub passes: Vec<RoundStats>,
    /// Pages taken out of dirty bitmaps.
    pub pages_claimed: u64,
    /// Pages whose contents were written, a page as often as it was written.
    pub pages_sent: u64,
    /// Pages left out because they were dirty again.
    pub pages_skipped: u64,
    /// Pages that were owed to the final pass.
    pub pages_deferred: u64,
    /// Bytes of the stream.
    pub bytes_sent: u64,
    /// How often the policy was asked.
    pub consults: u64,
    /// What ended the precopy; `None` for a save that was not live.
    pub verdict: Option<Verdict>,
    /// From the call to the last byte.
    pub elapsed: Duration,
    /// The time in which the guest did not run.
    pub downtime: Downtime,
    /// What went wrong without harm: log-dirty mode that could not be switched off, for one.
    pub warnings: Vec<String>,
}

/// Saves a domain into `sink`. On success the guest is suspended and the stream is whole. Without a policy libxc's
/// own rule decides ([`LibxcPolicy`]); a save that is not live asks nobody.
///
/// # Errors
///
/// A [`SaveFailure`] that names the failed step and the guest's state.
pub fn save(
    host: &dyn Hypervisor,
    domid: Domid,
    sink: &mut Sink,
    options: &SaveOptions,
    policy: Option<&mut dyn Policy>,
    caller: &mut dyn Caller,
) -> Result<SaveReport, SaveFailure> {
    let mut libxc = LibxcPolicy;
    let policy = policy.unwrap_or(&mut libxc);
    let mut aftermath = Aftermath::default();
    // It is held until the guest has been resumed.
    let mut claim = None;
    // A panic must not leave the guest suspended.
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        claim = Some(host.claim_save(domid)?);
        let info = start(host, domid, options)?;
        let mut run = Run::new(host, info, sink, options, policy, &mut *caller)?;
        if options.live { live(&mut run, &mut aftermath) } else { nonlive(&mut run, &mut aftermath) }
    }));
    match result {
        Ok(Ok(report)) => Ok(SaveReport { warnings: aftermath.warnings, ..report }),
        Ok(Err(error)) => {
            let guest = settle_guest(host, domid, caller, &mut aftermath);
            Err(SaveFailure { error, guest, warnings: aftermath.warnings })
        }
        Err(panic) => {
            settle_guest(host, domid, caller, &mut aftermath);
            panic::resume_unwind(panic)
        }
    }
}

/// What has to be known when a save fails.
#[derive(Debug, Default)]
struct Aftermath {
    /// The guest was not suspended when the caller was asked to suspend it.
    suspending: bool,
    warnings: Vec<String>,
}

/// Refuses what can be refused before anything is touched.
fn start(host: &dyn Hypervisor, domid: Domid, options: &SaveOptions) -> Result<DomainInfo, SaveError> {
    let refused = |why| Err(SaveError::Refused { domid, why });
    let info = host.domain_info(domid)?;
    match info.state {
        DomainState::Dying => refused("it is being destroyed"),
        DomainState::Shutdown { reason } if reason != DomainState::SHUTDOWN_SUSPEND => {
            refused("it has shut down")
        }
        _ if options.verify && !options.live => {
            refused("verify needs a live save: the other kind sends each page once")
        }
        _ => Ok(info),
    }
}

fn live(run: &mut Run<'_>, aftermath: &mut Aftermath) -> Result<SaveReport, SaveError> {
    if !run.guest.has_device_model() {
        return logged(run, aftermath);
    }
    run.caller.device_model_logdirty(true).map_err(SaveError::DeviceModel)?;
    // A panic must not leave it on either, and only the caller can turn it off.
    let result = panic::catch_unwind(AssertUnwindSafe(|| logged(run, aftermath)));
    if let Err(error) = run.caller.device_model_logdirty(false) {
        aftermath.warnings.push(format!("the device model's log-dirty mode is still on: {error}"));
    }
    result.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// The part of a live save during which log-dirty mode is on.
fn logged(run: &mut Run<'_>, aftermath: &mut Aftermath) -> Result<SaveReport, SaveError> {
    preamble(run)?;
    let logdirty = LogDirty::on(run.host, run.domid)?;
    let result = rounds::precopy(run).and_then(|verdict| finish_live(run, verdict, aftermath));
    if let Err(error) = logdirty.off()
        && !error.is_gone()
    {
        aftermath.warnings.push(format!("log-dirty mode is still on: {error}"));
    }
    result
}

fn finish_live(
    run: &mut Run<'_>,
    verdict: Verdict,
    aftermath: &mut Aftermath,
) -> Result<SaveReport, SaveError> {
    let mut clock = Clock::start();
    suspend(run, aftermath)?;
    clock.downtime.suspend = clock.lap();
    run.clean(CleanPass::Final)?;
    let owed = &run.owed;
    run.bitmap.fill(|words| owed.merge_into(words));
    clock.downtime.clean = clock.lap();
    send_bitmap(run, Phase::StopAndCopy)?;
    if run.options.verify {
        let mut record = Vec::new();
        encode::verify(&mut record);
        run.write(&record)?;
        let p2m_size = run.bitmap.pages();
        run.bitmap.fill(|words| bitmap::set_all(words, p2m_size));
        send_bitmap(run, Phase::Verify)?;
    }
    clock.downtime.pages = clock.lap();
    finish(run, clock, Some(verdict))
}

fn nonlive(run: &mut Run<'_>, aftermath: &mut Aftermath) -> Result<SaveReport, SaveError> {
    preamble(run)?;
    let mut clock = Clock::start();
    suspend(run, aftermath)?;
    clock.downtime.suspend = clock.lap();
    let p2m_size = run.bitmap.pages();
    run.bitmap.fill(|words| bitmap::set_all(words, p2m_size));
    send_bitmap(run, Phase::StopAndCopy)?;
    clock.downtime.pages = clock.lap();
    finish(run, clock, None)
}

/// Writes the headers and the records that do not depend on the guest's execution.
fn preamble(run: &mut Run<'_>) -> Result<(), SaveError> {
    let mut front = Vec::new();
    run.guest.front(run.host, run.domid, &mut front)?;
    run.write(&front)
}

/// Has the caller suspend the guest, and makes sure that it is.
fn suspend(run: &mut Run<'_>, aftermath: &mut Aftermath) -> Result<(), SaveError> {
    run.attend(Phase::StopAndCopy)?;
    let domid = run.domid;
    // What someone else has suspended meanwhile is not for this save to resume.
    aftermath.suspending = !run.host.domain_info(domid)?.state.is_suspended();
    run.caller.suspend().map_err(SaveError::Suspend)?;
    let state = run.host.domain_info(domid)?.state;
    if !state.is_suspended() {
        return Err(SaveError::NotSuspended { domid, state });
    }
    run.guest.check_size(run.host, domid, run.ledger.now.p2m_size)
}

/// Sends everything that the bitmap holds, of a guest that does not run.
fn send_bitmap(run: &mut Run<'_>, phase: Phase) -> Result<(), SaveError> {
    run.ledger.begin_round(phase, bitmap::count(run.bitmap.words()));
    let holes_below = if phase == Phase::Verify { Pfn(u64::MAX) } else { run.holes_below };
    let pass = Pass { holes_below, defer: false };
    let mut cursor = Cursor::default();
    while cursor.next_batch(run.bitmap.words(), &mut run.batch.pfns) {
        run.send_batch(pass, 0)?;
        run.attend(phase)?;
    }
    run.ledger.end_round();
    Ok(())
}

/// Writes the guest's state and END: fetched whole before the first byte is written, so that no failure of the
/// hypervisor can leave an END behind.
fn finish(run: &mut Run<'_>, mut clock: Clock, verdict: Option<Verdict>) -> Result<SaveReport, SaveError> {
    let mut tail = Vec::new();
    run.guest.state(run.host, run.domid, &mut tail)?;
    encode::end(&mut tail);
    run.write(&tail)?;
    clock.downtime.state = clock.lap();
    let ledger = &mut run.ledger;
    Ok(SaveReport {
        p2m_size: ledger.now.p2m_size,
        rounds: ledger.live_rounds(),
        pages_claimed: ledger.now.pages_claimed,
        pages_sent: ledger.now.pages_sent,
        pages_skipped: ledger.now.pages_skipped,
        pages_deferred: ledger.now.pages_deferred,
        bytes_sent: ledger.now.bytes_sent,
        consults: ledger.consults,
        passes: std::mem::take(&mut ledger.rounds),
        verdict,
        elapsed: ledger.elapsed(),
        downtime: Downtime { total: clock.began.elapsed(), ..clock.downtime },
        warnings: Vec::new(),
    })
}

/// Measures the downtime, part after part.
struct Clock {
    began: Instant,
    lap: Instant,
    downtime: Downtime,
}

impl Clock {
    fn start() -> Self {
        let now = Instant::now();
        Self { began: now, lap: now, downtime: Downtime::default() }
    }

    /// Returns the time since the last lap, and begins a new one.
    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.lap, now))
    }
}

/// Log-dirty mode that was switched on here; dropping it switches it off, in a panic as well.
struct LogDirty<'a> {
    host: &'a dyn Hypervisor,
    domid: Domid,
    armed: bool,
}

impl<'a> LogDirty<'a> {
    /// Switches log-dirty mode on. It may be on already, for VRAM tracking or from a helper that was killed: then it
    /// is switched off and on again, so that it starts clean.
    fn on(host: &'a dyn Hypervisor, domid: Domid) -> Result<Self, SaveError> {
        if let Err(error) = host.enable_logdirty(domid) {
            host.disable_logdirty(domid).map_err(|_| error)?;
            host.enable_logdirty(domid)?;
        }
        Ok(Self { host, domid, armed: true })
    }

    /// Switches log-dirty mode off, and says if that failed.
    fn off(mut self) -> Result<(), xenmig_hypervisor::HypervisorError> {
        self.armed = false;
        self.host.disable_logdirty(self.domid)
    }
}

impl Drop for LogDirty<'_> {
    fn drop(&mut self) {
        if self.armed {
            // The panic that is under way matters more than what this returns.
            let _ = self.host.disable_logdirty(self.domid);
        }
    }
}

/// After a failure: finds out what the guest is doing, and has it resumed if it was suspended for this save.
fn settle_guest(
    host: &dyn Hypervisor,
    domid: Domid,
    caller: &mut dyn Caller,
    aftermath: &mut Aftermath,
) -> GuestState {
    let state = match host.domain_info(domid) {
        Ok(info) => info.state,
        Err(error) if error.is_gone() => {
            aftermath.warnings.push("the domain is gone".to_owned());
            return GuestState::Unknown;
        }
        Err(error) => {
            aftermath.warnings.push(format!("nobody knows what the guest is doing: {error}"));
            return GuestState::Unknown;
        }
    };
    match state {
        DomainState::Running | DomainState::Paused => GuestState::Running,
        state if !state.is_suspended() => {
            aftermath.warnings.push(format!("the guest is gone: {state:?}"));
            GuestState::Unknown
        }
        _ if !aftermath.suspending => GuestState::Suspended,
        _ => match caller.resume() {
            Ok(true) => GuestState::Resumed,
            Ok(false) => GuestState::Suspended,
            Err(error) => {
                aftermath.warnings.push(format!("the guest could not be resumed: {error}"));
                GuestState::Unknown
            }
        },
    }
}
