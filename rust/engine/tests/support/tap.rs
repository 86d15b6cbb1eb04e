// SPDX-License-Identifier: GPL-3.0-or-later
//! A host between the engine and the simulated one: it writes down the verbs in order, and can tell another story
//! about the domain than the simulation, which has no PV guests and no crashes. In its CLEANs it is like Xen where
//! the simulation is kinder: the counts are wrong, as 32 bits are for a large domain, and of a p2m that has grown
//! they give as much as the bitmap holds, without a word.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use xenmig_hypervisor::{
    Access, ClaimError, CleanPass, Clock, DirtyBitmap, DirtyCounts, Extent, ForeignPages, Held, Holder,
    Hypervisor, ManualClock, PvVerbs, ReservedGrant, Result, SaveClaim,
};
use xenmig_sim::SimHost;
use xenmig_types::{CpuPolicy, DomainInfo, Domid, Gfn, PageType, TscInfo, XenVersion};

/// Rewrites what the simulation says about the domain; it is given the number of the call, from 0.
pub(crate) type Story = Box<dyn Fn(usize, DomainInfo) -> DomainInfo + Send + Sync>;

/// The host.
pub(crate) struct Tap<'a> {
    host: &'a SimHost,
    story: Story,
    bypassed: bool,
    verbs: Mutex<Vec<&'static str>>,
    /// A clock that each verb moves on by this time, instead of the simulation's own.
    clock: Option<(ManualClock, Duration)>,
}

impl std::fmt::Debug for Tap<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").finish_non_exhaustive()
    }
}

impl<'a> Tap<'a> {
    pub(crate) fn new(host: &'a SimHost) -> Self {
        Self::with_story(host, Box::new(|_, info| info))
    }

    pub(crate) fn with_story(host: &'a SimHost, story: Story) -> Self {
        Self { host, story, bypassed: false, verbs: Mutex::default(), clock: None }
    }

    /// Tells the time by a clock that stands still, but for the time that each verb costs.
    pub(crate) fn on_manual_clock(self, cost_of_a_verb: Duration) -> Self {
        Self { clock: Some((ManualClock::default(), cost_of_a_verb)), ..self }
    }

    /// Makes a host on which a program that takes no claims saves each domain as well.
    pub(crate) fn bypassed(host: &'a SimHost) -> Self {
        Self { bypassed: true, ..Self::new(host) }
    }

    fn list(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.verbs.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns the verbs that were called, in order.
    pub(crate) fn verbs(&self) -> Vec<&'static str> {
        self.list().clone()
    }

    fn note(&self, verb: &'static str) -> &'a SimHost {
        self.list().push(verb);
        if let Some((clock, cost)) = &self.clock {
            clock.advance(*cost);
        }
        self.host
    }
}

impl PvVerbs for Tap<'_> {}

/// A claim that another program does not care for.
struct Bypassed {
    domid: Domid,
    _claim: SaveClaim,
}

impl Held for Bypassed {
    fn check(&self) -> std::result::Result<(), ClaimError> {
        let holder = Holder { pid: 4711, program: "libxl-save-helper" };
        Err(ClaimError::Bypassed { domid: self.domid, holder })
    }
}

impl Hypervisor for Tap<'_> {
    fn clock(&self) -> &dyn Clock {
        match &self.clock {
            Some((clock, _)) => clock,
            None => self.host.clock(),
        }
    }

    fn version(&self) -> Result<XenVersion> {
        self.note("version").version()
    }

    fn domain_info(&self, domid: Domid) -> Result<DomainInfo> {
        let info = self.note("info").domain_info(domid)?;
        let number = self.list().iter().filter(|verb| **verb == "info").count() - 1;
        Ok((self.story)(number, info))
    }

    fn claim_save(&self, domid: Domid) -> std::result::Result<SaveClaim, ClaimError> {
        let claim = self.host.claim_save(domid)?;
        Ok(if self.bypassed { SaveClaim::new(Bypassed { domid, _claim: claim }) } else { claim })
    }

    fn nr_gpfns(&self, domid: Domid) -> Result<u64> {
        self.note("nr_gpfns").nr_gpfns(domid)
    }

    fn enable_logdirty(&self, domid: Domid) -> Result<()> {
        self.note("enable").enable_logdirty(domid)
    }

    fn disable_logdirty(&self, domid: Domid) -> Result<()> {
        self.note("off").disable_logdirty(domid)
    }

    fn dirty_bitmap(&self, domid: Domid, pages: u64) -> Result<DirtyBitmap> {
        self.note("bitmap").dirty_bitmap(domid, pages)
    }

    fn clean(&self, domid: Domid, bitmap: Option<&mut DirtyBitmap>, pass: CleanPass) -> Result<DirtyCounts> {
        let host = self.note(if pass == CleanPass::Final { "clean final" } else { "clean" });
        let mut whole = host.dirty_bitmap(domid, host.nr_gpfns(domid)?)?;
        host.clean(domid, Some(&mut whole), pass)?;
        if let Some(bitmap) = bitmap {
            bitmap.fill(|words| words.copy_from_slice(&whole.words()[..words.len()]));
        }
        Ok(DirtyCounts::default())
    }

    fn peek(&self, domid: Domid, bitmap: Option<&mut DirtyBitmap>) -> Result<DirtyCounts> {
        self.note(if bitmap.is_some() { "peek" } else { "peek count" }).peek(domid, bitmap)
    }

    fn page_types(&self, domid: Domid, gfns: &[Gfn], types: &mut [PageType]) -> Result<()> {
        self.note("types").page_types(domid, gfns, types)
    }

    fn map(&self, domid: Domid, gfns: &[Gfn], access: Access) -> Result<ForeignPages> {
        self.note("map").map(domid, gfns, access)
    }

    fn hvm_context(&self, domid: Domid) -> Result<Vec<u8>> {
        self.note("context").hvm_context(domid)
    }

    fn set_hvm_context(&self, domid: Domid, context: &[u8]) -> Result<()> {
        self.note("set context").set_hvm_context(domid, context)
    }

    fn hvm_param(&self, domid: Domid, index: u32) -> Result<u64> {
        self.note("param").hvm_param(domid, index)
    }

    fn set_hvm_param(&self, domid: Domid, index: u32, value: u64) -> Result<()> {
        self.note("set param").set_hvm_param(domid, index, value)
    }

    fn tsc_info(&self, domid: Domid) -> Result<TscInfo> {
        self.note("tsc").tsc_info(domid)
    }

    fn set_tsc_info(&self, domid: Domid, tsc: &TscInfo) -> Result<()> {
        self.note("set tsc").set_tsc_info(domid, tsc)
    }

    fn cpu_policy(&self, domid: Domid) -> Result<CpuPolicy> {
        self.note("policy").cpu_policy(domid)
    }

    fn set_cpu_policy(&self, domid: Domid, policy: &CpuPolicy) -> Result<()> {
        self.note("set policy").set_cpu_policy(domid, policy)
    }

    fn populate(&self, domid: Domid, frames: &mut [Gfn], extent: Extent) -> Result<usize> {
        self.note("populate").populate(domid, frames, extent)
    }

    fn depopulate(&self, domid: Domid, gfns: &[Gfn]) -> Result<()> {
        self.note("depopulate").depopulate(domid, gfns)
    }

    fn seed_grants(&self, domid: Domid, grants: &[ReservedGrant]) -> Result<()> {
        self.note("seed grants").seed_grants(domid, grants)
    }
}
