// SPDX-License-Identifier: GPL-3.0-or-later
//! The verbs of [`Hypervisor`] on simulated domains. Each is counted, lets the domain's script act, and fails where
//! a fault was injected, before it does anything.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use xenmig_hypervisor::{
    Access, ClaimError, CleanPass, Clock, DirtyBitmap, DirtyCounts, Errno, Extent, ForeignPages, Hypervisor,
    HypervisorError, MachineClock, ReservedGrant, Result, SaveClaim, zeroed_words,
};
use xenmig_types::{
    CpuPolicy, DomainInfo, DomainState, Domid, Gfn, GuestKind, PageType, Pfn, TscInfo, XenVersion,
};

use crate::{
    counters::Verb, domain::SimDomain, gate::lock, host::SimHost, inject::MapFaults, region::index,
    script::When,
};

/// The Xen that the host says it is.
const VERSION: XenVersion = XenVersion { major: 4, minor: 17 };
/// Most frames in one type query.
const MAX_TYPES: usize = 1024;
/// Most pages in one bitmap: 16 TiB.
const MAX_BITMAP_PAGES: u64 = 1 << 32;

impl SimHost {
    /// Finds the domain and begins the call.
    pub(super) fn enter(&self, verb: Verb, domid: Domid) -> Result<Arc<SimDomain>> {
        Ok(self.enter_numbered(verb, domid)?.0)
    }

    /// Finds the domain and begins the call; returns its number, too.
    fn enter_numbered(&self, verb: Verb, domid: Domid) -> Result<(Arc<SimDomain>, u64)> {
        self.process.check(verb.name())?;
        let domain = self.find(domid).ok_or(HypervisorError::call(verb.name(), domid, libc::ESRCH))?;
        let number = domain.enter(verb)?;
        Ok((domain, number))
    }
}

/// Succeeds if the condition holds, and fails with the errno if it does not.
pub(super) fn require(condition: bool, verb: Verb, domid: Domid, errno: i32) -> Result<()> {
    no_errno(condition, errno).map_err(|errno| HypervisorError::call(verb.name(), domid, errno))
}

/// Succeeds if the condition holds, and is an errno if it does not.
pub(super) const fn no_errno(condition: bool, errno: i32) -> std::result::Result<(), i32> {
    if condition { Ok(()) } else { Err(errno) }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl SimDomain {
    /// Returns the pfn of a frame that a toolstack names; one that no domain has if the frame is not the domain's.
    fn pfn_of(&self, gfn: Gfn) -> Pfn {
        self.guest.pv.as_ref().map_or(Pfn(gfn.0), |pv| pv.pfn(gfn).unwrap_or(Pfn(u64::MAX)))
    }

    /// Returns where frames that a toolstack names are in the domain's memory.
    fn places<'a>(&self, gfns: &'a [Gfn], access: Access) -> Cow<'a, [Gfn]> {
        match self.guest.pv() {
            Some(guest) => gfns.iter().map(|gfn| guest.place(*gfn, access == Access::Write)).collect(),
            None => Cow::Borrowed(gfns),
        }
    }

    /// Checks that this is no PV guest: what is asked for is of the others alone.
    fn check_hvm(&self, verb: Verb) -> Result<()> {
        require(self.guest.pv.is_none(), verb, self.domid, libc::EINVAL)
    }

    /// Checks that the log-dirty bitmap can be fetched into `bitmap`: it is on, and the p2m has not grown.
    fn check_bitmap(&self, verb: Verb, bitmap: Option<&DirtyBitmap>) -> Result<()> {
        // Xen knows no size of a PV guest's p2m: it gives as many bits as it is asked for.
        let fits = self.guest.pv.is_some()
            || bitmap.is_none_or(|bitmap| bitmap.pages() == self.guest.memory.p2m_pages());
        require(fits && self.guest.logdirty.is_on(), verb, self.domid, libc::EINVAL)
    }
}

impl Hypervisor for SimHost {
    fn clock(&self) -> &dyn Clock {
        self.clock.as_deref().unwrap_or(&MachineClock)
    }

    fn version(&self) -> Result<XenVersion> {
        self.process.check(Verb::Version.name())?;
        self.all().iter().try_for_each(|domain| domain.enter(Verb::Version).map(drop))?;
        Ok(VERSION)
    }

    fn domain_info(&self, domid: Domid) -> Result<DomainInfo> {
        let domain = self.enter(Verb::DomainInfo, domid)?;
        Ok(DomainInfo {
            domid,
            kind: if domain.guest.pv.is_some() { GuestKind::Pv } else { GuestKind::Hvm },
            state: domain.state(),
            total_pages: domain.populated_pages(),
            max_pages: domain.guest.layout.max_pages(),
            max_vcpu_id: domain.vcpus().saturating_sub(1),
            shared_info_frame: domain.guest.pv.as_ref().map_or(0, |pv| pv.shared_info_frame().0),
        })
    }

    fn claim_save(&self, domid: Domid) -> std::result::Result<SaveClaim, ClaimError> {
        self.process.check("claim_save")?;
        self.claims.take(domid)
    }

    fn nr_gpfns(&self, domid: Domid) -> Result<u64> {
        Ok(self.enter(Verb::NrGpfns, domid)?.p2m_pages())
    }

    fn enable_logdirty(&self, domid: Domid) -> Result<()> {
        let domain = self.enter(Verb::EnableLogdirty, domid)?;
        let _life = lock(&domain.life);
        let _stopped = domain.guest.gate.stop();
        require(
            domain.guest.logdirty.enable(domain.guest.logged_pages()),
            Verb::EnableLogdirty,
            domid,
            libc::EINVAL,
        )
    }

    fn disable_logdirty(&self, domid: Domid) -> Result<()> {
        let domain = self.enter(Verb::DisableLogdirty, domid)?;
        let _life = lock(&domain.life);
        domain.guest.logdirty.disable();
        Ok(())
    }

    fn dirty_bitmap(&self, domid: Domid, pages: u64) -> Result<DirtyBitmap> {
        let verb = Verb::DirtyBitmap;
        self.enter(verb, domid)?;
        require(pages <= MAX_BITMAP_PAGES, verb, domid, libc::ENOMEM)?;
        let words = zeroed_words(index(pages.div_ceil(64)), "the log-dirty bitmap")?;
        DirtyBitmap::new(Box::new(words), pages).ok_or(HypervisorError::call(
            verb.name(),
            domid,
            libc::EINVAL,
        ))
    }

    fn clean(&self, domid: Domid, bitmap: Option<&mut DirtyBitmap>, pass: CleanPass) -> Result<DirtyCounts> {
        let domain = self.enter(Verb::Clean, domid)?;
        let _life = lock(&domain.life);
        domain.check_bitmap(Verb::Clean, bitmap.as_deref())?;
        let guest = &domain.guest;
        let start = self.clock().now();
        let stopped = guest.gate.stop();
        if pass == CleanPass::Final {
            let mapped = guest.xen_mapped().iter().filter(|pfn| guest.memory.populated().get(pfn.0));
            mapped.for_each(|pfn| guest.logdirty.mark(*pfn));
        }
        let counts = guest.logdirty.counts();
        let mut cleared = guest.logged_pages();
        if let Some(bitmap) = bitmap {
            guest.logdirty.copy(bitmap);
            cleared = cleared.min(bitmap.pages());
        }
        guest.logdirty.forget(cleared);
        drop(stopped);
        domain.totals.clean_ns.fetch_add(nanoseconds(self.clock().now().since(start)), Ordering::AcqRel);
        Ok(counts)
    }

    fn peek(&self, domid: Domid, bitmap: Option<&mut DirtyBitmap>) -> Result<DirtyCounts> {
        let domain = self.enter(Verb::Peek, domid)?;
        let _life = lock(&domain.life);
        domain.check_bitmap(Verb::Peek, bitmap.as_deref())?;
        let Some(bitmap) = bitmap else {
            // One number needs no stop to be consistent.
            return Ok(domain.guest.logdirty.counts());
        };
        let start = self.clock().now();
        let stopped = domain.guest.gate.stop();
        let counts = domain.guest.logdirty.counts();
        domain.guest.logdirty.copy(bitmap);
        drop(stopped);
        domain.totals.peek_ns.fetch_add(nanoseconds(self.clock().now().since(start)), Ordering::AcqRel);
        Ok(counts)
    }

    fn page_types(&self, domid: Domid, gfns: &[Gfn], types: &mut [PageType]) -> Result<()> {
        let verb = Verb::PageTypes;
        let domain = self.enter(verb, domid)?;
        require(gfns.len() <= MAX_TYPES, verb, domid, libc::E2BIG)?;
        require(gfns.len() == types.len(), verb, domid, libc::EINVAL)?;
        if let Some(pv) = &domain.guest.pv {
            gfns.iter().zip(types).for_each(|(gfn, kind)| *kind = pv.frame_type(*gfn));
            return Ok(());
        }
        let populated = domain.guest.memory.populated();
        for (gfn, kind) in gfns.iter().zip(types) {
            *kind = if populated.get(gfn.0) { PageType::Notab } else { PageType::Xtab };
        }
        Ok(())
    }

    fn map(&self, domid: Domid, gfns: &[Gfn], access: Access) -> Result<ForeignPages> {
        let start = self.clock().now();
        let (domain, number) = self.enter_numbered(Verb::Map, domid)?;
        require(!gfns.is_empty(), Verb::Map, domid, libc::EINVAL)?;
        let existing = gfns.iter().map(|gfn| domain.pfn_of(*gfn)).filter(|pfn| domain.is_populated(*pfn));
        for pfn in domain.faults.vanishing(existing) {
            let _life = lock(&domain.life);
            let vanished = match domain.guest.pv() {
                Some(guest) => Ok(guest.vanish(pfn)),
                None => domain.take_page(pfn),
            };
            vanished.map_err(|_| HypervisorError::call(Verb::Map.name(), domid, libc::EIO))?;
        }
        let places = domain.places(gfns, access);
        let frames = places.iter().copied();
        let memory = &domain.guest.memory;
        let pages = match domain.faults.mapping() {
            None => memory.map(frames, access, true, |_| None),
            Some(MapFaults { ns_per_page, errnos }) => {
                let pages = memory.map(frames, access, true, |gfn| errnos.get(&gfn.0).copied().map(Errno));
                let cost = Duration::from_nanos(ns_per_page.saturating_mul(gfns.len() as u64));
                self.clock().spend_until(start + cost);
                pages
            }
        };
        domain.play(When::AfterMap(number));
        Ok(pages)
    }

    fn hvm_context(&self, domid: Domid) -> Result<Vec<u8>> {
        let domain = self.enter(Verb::HvmContext, domid)?;
        domain.check_hvm(Verb::HvmContext)?;
        let context = lock(&domain.blobs).context(domain.writes());
        Ok(context)
    }

    fn set_hvm_context(&self, domid: Domid, context: &[u8]) -> Result<()> {
        let verb = Verb::SetHvmContext;
        let domain = self.enter(verb, domid)?;
        domain.check_hvm(verb)?;
        let life = lock(&domain.life);
        require(life.state() != DomainState::Running, verb, domid, libc::EBUSY)?;
        let loaded = lock(&domain.blobs).set_context(context, domain.writes());
        require(loaded, verb, domid, libc::EINVAL)
    }

    fn hvm_param(&self, domid: Domid, index: u32) -> Result<u64> {
        let domain = self.enter(Verb::HvmParam, domid)?;
        domain.check_hvm(Verb::HvmParam)?;
        let value = lock(&domain.blobs).param(index);
        value.ok_or(HypervisorError::call(Verb::HvmParam.name(), domid, libc::EINVAL))
    }

    fn set_hvm_param(&self, domid: Domid, index: u32, value: u64) -> Result<()> {
        let domain = self.enter(Verb::SetHvmParam, domid)?;
        domain.check_hvm(Verb::SetHvmParam)?;
        let known = lock(&domain.blobs).set_param(index, value);
        require(known, Verb::SetHvmParam, domid, libc::EINVAL)
    }

    fn tsc_info(&self, domid: Domid) -> Result<TscInfo> {
        let domain = self.enter(Verb::TscInfo, domid)?;
        let tsc = lock(&domain.blobs).tsc(domain.writes());
        Ok(tsc)
    }

    fn set_tsc_info(&self, domid: Domid, tsc: &TscInfo) -> Result<()> {
        let domain = self.enter(Verb::SetTscInfo, domid)?;
        lock(&domain.blobs).set_tsc(tsc, domain.writes());
        Ok(())
    }

    fn cpu_policy(&self, domid: Domid) -> Result<CpuPolicy> {
        let domain = self.enter(Verb::CpuPolicy, domid)?;
        let policy = lock(&domain.blobs).policy().clone();
        Ok(policy)
    }

    fn set_cpu_policy(&self, domid: Domid, policy: &CpuPolicy) -> Result<()> {
        let domain = self.enter(Verb::SetCpuPolicy, domid)?;
        let whole = lock(&domain.blobs).set_policy(policy);
        require(whole, Verb::SetCpuPolicy, domid, libc::EINVAL)
    }

    fn populate(&self, domid: Domid, frames: &mut [Gfn], extent: Extent) -> Result<usize> {
        let domain = self.enter(Verb::Populate, domid)?;
        let pages = extent.pages();
        let aligned = frames.iter().all(|frame| frame.0.is_multiple_of(pages));
        require(aligned, Verb::Populate, domid, libc::EINVAL)?;
        let _life = lock(&domain.life);
        if let Some(guest) = domain.guest.pv() {
            // A PV guest's frames lie anywhere: no superpage can be had.
            let given = if extent == Extent::Page { guest.populate(frames) } else { 0 };
            domain.totals.pages_populated.fetch_add(given as u64, Ordering::AcqRel);
            return Ok(given);
        }
        let given = frames.iter().take_while(|frame| domain.give_pages(Pfn(frame.0), pages)).count();
        domain.totals.pages_populated.fetch_add(given as u64 * pages, Ordering::AcqRel);
        if extent == Extent::Superpage {
            domain.totals.superpages_populated.fetch_add(given as u64, Ordering::AcqRel);
        }
        Ok(given)
    }

    fn depopulate(&self, domid: Domid, gfns: &[Gfn]) -> Result<()> {
        let verb = Verb::Depopulate;
        let domain = self.enter(verb, domid)?;
        let _life = lock(&domain.life);
        for gfn in gfns {
            if let Some(guest) = domain.guest.pv() {
                require(guest.depopulate(*gfn), verb, domid, libc::EINVAL)?;
                continue;
            }
            let taken = domain.take_page(Pfn(gfn.0));
            require(!matches!(taken, Ok(false)), verb, domid, libc::EINVAL)?;
            require(taken.is_ok(), verb, domid, libc::EIO)?;
        }
        Ok(())
    }

    fn seed_grants(&self, domid: Domid, grants: &[ReservedGrant]) -> Result<()> {
        let domain = self.enter(Verb::SeedGrants, domid)?;
        let fit = lock(&domain.blobs).seed_grants(grants);
        require(fit, Verb::SeedGrants, domid, libc::ERANGE)
    }
}
