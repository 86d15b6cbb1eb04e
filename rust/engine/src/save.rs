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
pub(crate) mod error;
mod holes;
mod logdirty;
mod options;
mod precopy;
mod prepare;
mod redirtied;
mod report;
mod stop_and_copy;
mod write;

use std::panic::{self, AssertUnwindSafe};

use xenmig_hypervisor::{CleanPass, Hypervisor, SaveClaim, Sink};
use xenmig_types::{DomainInfo, DomainState, Domid, Pfn};

pub use options::SaveOptions;
pub use report::{Downtime, SaveReport};

use crate::{
    bitmap::{self, MAX_BATCH_PAGES},
    caller::Caller,
    events::Stage,
    guest::{
        self,
        save_ops::{Domain, SaveWatch},
    },
    policy::{
        LibxcPolicy, Policy,
        decision::Phase,
        ledger::{BatchCounts, Ledger},
    },
};
use aftermath::Aftermath;
use claims::Claims;
use decide::Decide;
use error::{SaveError, SaveFailure};
use logdirty::LogDirty;
use prepare::{Pass, Prepare, Prepared};
use write::Write;

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
        let mut save = Save::new(domain, &info, claim, sink, options, policy, watch)?;
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
fn live(save: &mut Save<'_>, aftermath: &mut Aftermath) -> Result<(), SaveError> {
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
fn logged(save: &mut Save<'_>, aftermath: &mut Aftermath) -> Result<(), SaveError> {
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

fn nonlive(save: &mut Save<'_>, aftermath: &mut Aftermath) -> Result<(), SaveError> {
    preamble(save)?;
    stop_and_copy::whole(save, aftermath)
}

/// Writes the headers and the records that do not depend on the guest's execution.
fn preamble(save: &mut Save<'_>) -> Result<(), SaveError> {
    save.decide.enter(Stage::Preamble)?;
    let mut front = Vec::new();
    save.prepare.guest.front(save.domain, &mut save.decide.watch, &mut front)?;
    save.write.bytes(&front, &mut save.decide)
}

/// A save under way.
#[derive(Debug)]
struct Save<'a> {
    domain: Domain<'a>,
    options: &'a SaveOptions,
    /// Pages of memory that the domain had when the save began.
    ram_pages: u64,
    claims: Claims,
    prepare: Prepare<'a>,
    write: Write<'a>,
    decide: Decide<'a>,
    /// The pages of the current batch, ascending.
    pfns: Vec<Pfn>,
    /// The buffers of a batch, which serve every batch.
    batch: Prepared,
}

impl<'a> Save<'a> {
    fn new(
        domain: Domain<'a>,
        info: &DomainInfo,
        claim: &'a SaveClaim,
        sink: &'a mut Sink,
        options: &'a SaveOptions,
        policy: &'a mut dyn Policy,
        mut watch: SaveWatch<'a>,
    ) -> Result<Self, SaveError> {
        let Domain { host, domid } = domain;
        let ram_pages = info.total_pages;
        let guest = guest::open(domain, info, &mut watch)?;
        let p2m_size = guest.p2m_size(domain, &mut watch)?;
        let bitmap = watch.retry(|| host.dirty_bitmap(domid, p2m_size))?;
        let ledger = Ledger::new(p2m_size, ram_pages, watch.tick());
        Ok(Self {
            domain,
            options,
            ram_pages,
            claims: Claims::new(bitmap)?,
            prepare: Prepare::new(domain, guest),
            write: Write::new(sink),
            decide: Decide::new(domain, claim, watch, policy, options, ledger),
            pfns: Vec::with_capacity(MAX_BATCH_PAGES),
            batch: Prepared::new(),
        })
    }

    /// Asks the hypervisor about the domain.
    fn info(&mut self) -> Result<DomainInfo, SaveError> {
        let Domain { host, domid } = self.domain;
        Ok(self.decide.watch.retry(|| host.domain_info(domid))?)
    }

    /// Sends the pages that are in `pfns`, enters them into the account, and says whether anything was written. `skipped`
    /// pages of the batch were left out before.
    fn send_batch(&mut self, pass: Pass, skipped: u64) -> Result<bool, SaveError> {
        let began = self.decide.watch.tick();
        self.prepare.batch(&self.pfns, pass, &mut self.batch, &mut self.decide.watch)?;
        let bytes = self.write.batch(&self.batch, &mut self.decide)?;
        let claims = &mut self.claims;
        let counts = BatchCounts {
            claimed: self.pfns.len() as u64 + skipped,
            sent: self.batch.sent,
            skipped,
            deferred: self.batch.deferred.iter().map(|pfn| u64::from(claims.owe(*pfn))).sum(),
            bytes,
        };
        self.batch.clear();
        let time = self.decide.watch.tick().since(began);
        self.decide.ledger.enter(&counts, time);
        Ok(bytes > 0)
    }

    /// Fetches and clears the log-dirty bitmap, and returns how many pages it holds. The count is the bitmap's own: the
    /// hypercall's is 32 bits wide.
    fn clean(&mut self, pass: CleanPass) -> Result<u64, SaveError> {
        let Domain { host, domid } = self.domain;
        self.decide.watch.tick();
        let bitmap = &mut self.claims.bitmap;
        self.decide.watch.retry(|| host.clean(domid, Some(bitmap), pass))?;
        let dirty = bitmap::count(bitmap.words());
        self.decide.cleaned(dirty);
        Ok(dirty)
    }
}
