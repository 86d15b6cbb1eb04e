// SPDX-License-Identifier: GPL-3.0-or-later
//! Saving a domain: the phases in order, and what is undone whichever way they end.
//!
//! ```text
//! headers, static data ─► log-dirty on ─► precopy ─► suspend ─► CLEAN (FINAL) ─► the rest ─► state, END ─► log-dirty off
//!                                                    └──────────── the guest does not run ────────────┘
//!
//! claims ─► prepare ─► write ─► sink          pfns to typed, mapped, normalised pages to bytes
//!    ▲                   │
//!    └──── decide ◄──────┘                    ledger, policy, events, watch
//! ```
//!
//! Whatever fails: log-dirty is switched off if it was switched on here, no mapping is left, no END is written, and a
//! guest that was suspended here is resumed if the caller can. Sources: libxc-migration-stream, section "Layout";
//! `public/domctl.h`, `XEN_DOMCTL_SHADOW_OP_*`.

mod aftermath;
mod claims;
mod decide;
mod holes;
mod logdirty;
mod pipeline;
mod precopy;
mod prepare;
mod redirtied;
pub(crate) mod save_caller;
pub(crate) mod save_error;
pub(crate) mod save_events;
mod save_options;
mod save_report;
mod stop_and_copy;
mod write;

use std::panic::{self, AssertUnwindSafe};

use xenmig_hypervisor::{Hypervisor, Sink};
use xenmig_types::{DomainInfo, DomainState, Domid};

pub use save_options::SaveOptions;
pub use save_report::{Downtime, SaveReport};

use crate::{
    guest::save_ops::{Domain, SaveWatch},
    policy::{LibxcPolicy, Policy, decision::Phase},
};
use aftermath::Aftermath;
use logdirty::LogDirty;
use pipeline::Pipeline;
use save_caller::Caller;
use save_error::{SaveError, SaveFailure};
use save_events::Stage;

/// Saves a domain into `sink`. On success the guest is suspended and the stream is whole. Without a policy libxc's own
/// rule decides ([`LibxcPolicy`]); a save that is not live asks no policy.
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
    let domain = Domain { host, domid };
    let mut libxc = LibxcPolicy;
    let policy = policy.unwrap_or(&mut libxc);
    let mut aftermath = Aftermath::default();
    // It is held until the guest has been resumed.
    let mut claim = None;
    // A panic must not leave the guest suspended.
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let claim = &*claim.insert(host.claim_save(domid)?);
        let mut watch = SaveWatch::new(host, &mut *caller, options.progress_interval, options.peer_timeout);
        let info = check(domain, options, &mut watch)?;
        let mut save = Pipeline::new(domain, &info, claim, sink, options, policy, watch)?;
        if options.live {
            live(&mut save, &mut aftermath)?
        } else {
            nonlive(&mut save, &mut aftermath)?
        }
        let now = save.decide.watch.now();
        Ok(save.decide.record.report(&save.decide.ledger.stats(Phase::StopAndCopy, now)))
    }));
    match result {
        Ok(Ok(report)) => Ok(SaveReport { warnings: aftermath.warnings, ..report }),
        Ok(Err(error)) => {
            let guest = aftermath.settle(domain, caller);
            Err(SaveFailure { error, guest, warnings: aftermath.warnings })
        }
        Err(panic) => {
            aftermath.settle(domain, caller);
            panic::resume_unwind(panic)
        }
    }
}

/// Refuses what can be refused before anything is touched.
fn check(
    domain: Domain<'_>,
    options: &SaveOptions,
    watch: &mut SaveWatch<'_>,
) -> Result<DomainInfo, SaveError> {
    let Domain { host, domid } = domain;
    let refused = |why| Err(SaveError::Refused { domid, why });
    let info = watch.retry(|| host.domain_info(domid))?;
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

/// Saves a guest that runs meanwhile.
fn live(save: &mut Pipeline<'_>, aftermath: &mut Aftermath) -> Result<(), SaveError> {
    if !save.prepare.guest.has_device_model() {
        return logged(save, aftermath);
    }
    save.decide.watch.caller.device_model_logdirty(true).map_err(SaveError::DeviceModel)?;
    // A panic must not leave it on either, and only the caller can turn it off.
    let result = panic::catch_unwind(AssertUnwindSafe(|| logged(save, aftermath)));
    if let Err(error) = save.decide.watch.caller.device_model_logdirty(false) {
        aftermath.warnings.push(format!("the device model's log-dirty mode is still on: {error}"));
    }
    result.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// The part of a live save during which log-dirty mode is on.
fn logged(save: &mut Pipeline<'_>, aftermath: &mut Aftermath) -> Result<(), SaveError> {
    preamble(save)?;
    let logdirty = LogDirty::on(save.domain, &mut save.decide.watch)?;
    let result = precopy::precopy(save).and_then(|()| stop_and_copy::after_precopy(save, aftermath));
    if let Err(error) = logdirty.off()
        && !error.is_gone()
    {
        aftermath.warnings.push(format!("log-dirty mode is still on: {error}"));
    }
    result
}

fn nonlive(save: &mut Pipeline<'_>, aftermath: &mut Aftermath) -> Result<(), SaveError> {
    preamble(save)?;
    stop_and_copy::whole(save, aftermath)
}

/// Writes the headers and the records that do not depend on the guest's execution.
fn preamble(save: &mut Pipeline<'_>) -> Result<(), SaveError> {
    save.decide.enter(Stage::Preamble)?;
    let mut front = Vec::new();
    save.prepare.guest.front(save.domain, &mut save.decide.watch, &mut front)?;
    save.write.bytes(&front, &mut save.decide)
}
