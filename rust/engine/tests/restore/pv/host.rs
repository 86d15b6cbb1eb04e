// SPDX-License-Identifier: GPL-3.0-or-later
//! A host with one PV domain. Its frames are the pages of a simulated HVM domain: frame `mfn` of this host is the page at
//! gfn `mfn` of that one. They are given in scattered order, and a page table that is in use cannot be mapped for
//! writing, as with Xen. The verbs of PV guests are in `verbs.rs`.

mod verbs;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use xenmig_hypervisor::{
    Access, ClaimError, CleanPass, Clock, DirtyBitmap, DirtyCounts, Extent, ForeignPages, Hypervisor,
    HypervisorError, MachineClock, PageBuffer, ReservedGrant, Result, SaveClaim,
};
use xenmig_sim::{DomainConfig, SimDomain, SimHost};
use xenmig_types::{
    CpuPolicy, DomainInfo, Domid, Gfn, GuestKind, PAGE_SIZE, PageType, Pfn, TscInfo, VcpuPart, XenVersion,
    pv::{GuestWidth, Pte, vcpu_context},
};

pub(crate) use super::calls::{Call, Refusal};

pub(crate) const EPERM: i32 = 1;
pub(crate) const EBUSY: i32 = 16;
pub(crate) const EINVAL: i32 = 22;

/// The number of frames of the host.
const FRAMES: u64 = 4096;
/// Where the domain has its shared info page.
pub(crate) const SHARED_INFO_FRAME: u64 = 5;
/// What the shared info page is filled with.
pub(crate) const SHARED_INFO_FILL: u8 = 0x77;
/// The number of the domain's highest vCPU.
pub(crate) const MAX_VCPU_ID: u32 = 3;

#[derive(Debug, Default)]
struct State {
    width: u8,
    /// How many frames were given, holes not counted.
    given: u64,
    /// The domain's pages: frame and pfn. This is Xen's m2p.
    m2p: BTreeMap<u64, u64>,
    /// Frames that are in use as page tables, with their levels.
    tables: BTreeMap<u64, u8>,
    pinned: BTreeSet<u64>,
    /// How many tables a call pins at most.
    pins_per_call: Option<usize>,
    vcpus: BTreeMap<(u32, &'static str), Vec<u8>>,
    calls: Vec<Call>,
    counts: BTreeMap<&'static str, u32>,
    /// How often a verb was asked for a frame that is not the domain's.
    strays: u32,
    /// What is given instead of the next frames.
    odd_frames: Vec<u64>,
    /// The verb that fails.
    refusal: Option<Refusal>,
}

/// The host.
#[derive(Debug)]
pub(crate) struct PvHost {
    pub(crate) sim: SimHost,
    /// The memory of the host.
    pub(crate) machine: Arc<SimDomain>,
    max_pages: u64,
    state: Mutex<State>,
}

impl PvHost {
    /// Makes a host with an empty 64-bit domain, which may have at most `max_pages` pages.
    pub(crate) fn new(max_pages: u64) -> Self {
        let sim = SimHost::new();
        let memory_bytes = FRAMES * PAGE_SIZE as u64;
        let machine =
            sim.create(DomainConfig { memory_bytes, populated: false, ..DomainConfig::default() }).unwrap();
        assert_eq!(sim.populate(machine.domid(), &mut [Gfn(SHARED_INFO_FRAME)], Extent::Page), Ok(1));
        machine.write_page(Pfn(SHARED_INFO_FRAME), &[SHARED_INFO_FILL; PAGE_SIZE]).unwrap();
        Self { sim, machine, max_pages, state: Mutex::new(State { width: 8, ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn domid(&self) -> Domid {
        self.machine.domid()
    }

    /// Makes a verb fail.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.state().refusal = Some(refusal);
    }

    /// Lets a call pin only this many tables.
    pub(crate) fn pin_at_most(&self, count: usize) {
        self.state().pins_per_call = Some(count);
    }

    /// Returns how often a verb was asked for a frame that is not the domain's.
    pub(crate) fn strays(&self) -> u32 {
        self.state().strays
    }

    /// Returns how often each verb was called.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u32> {
        self.state().counts.clone()
    }

    /// Gives this frame next, even if it does not exist.
    pub(crate) fn give_odd_frame(&self, frame: u64) {
        self.state().odd_frames.push(frame);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    pub(crate) fn width(&self) -> GuestWidth {
        GuestWidth::from_bytes(self.state().width).unwrap()
    }

    /// Returns the frame of a page that the domain has.
    pub(crate) fn frame(&self, pfn: u64) -> Option<u64> {
        self.state().m2p.iter().find(|(_, owner)| **owner == pfn).map(|(mfn, _)| *mfn)
    }

    /// Returns the pfn of a frame that the domain has.
    pub(crate) fn pfn(&self, frame: u64) -> Option<u64> {
        self.state().m2p.get(&frame).copied()
    }

    /// Returns the pfns of all pages that the domain has.
    pub(crate) fn pfns(&self) -> BTreeSet<u64> {
        self.state().m2p.values().copied().collect()
    }

    pub(crate) fn pinned(&self) -> BTreeSet<u64> {
        let state = self.state();
        state.pinned.iter().map(|frame| state.m2p[frame]).collect()
    }

    pub(crate) fn vcpu(&self, vcpu: u32, part: VcpuPart) -> Option<Vec<u8>> {
        self.state().vcpus.get(&(vcpu, name(part))).cloned()
    }

    pub(crate) fn page(&self, frame: u64) -> PageBuffer {
        let mut page = [0; PAGE_SIZE];
        self.machine.read_page(Pfn(frame), &mut page).unwrap();
        page
    }

    /// Lets a verb fail if a test wants it to.
    fn enter(&self, verb: &'static str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        *state.counts.entry(verb).or_default() += 1;
        if let Some(refusal) = &mut state.refusal
            && refusal.verb == verb
        {
            if refusal.after > 0 {
                refusal.after -= 1;
            } else if refusal.times > 0 {
                refusal.times -= 1;
                return Err(HypervisorError::call(verb, self.domid(), refusal.errno));
            }
        }
        Ok(state)
    }

    fn require(&self, condition: bool, verb: &'static str, errno: i32) -> Result<()> {
        if condition { Ok(()) } else { Err(HypervisorError::call(verb, self.domid(), errno)) }
    }

    /// Has a frame used as a page table, and those that it refers to. Says whether that is allowed.
    fn use_table(&self, state: &mut State, frame: u64, level: u8) -> bool {
        if let Some(used) = state.tables.get(&frame) {
            return *used == level;
        }
        if !state.m2p.contains_key(&frame) {
            return false;
        }
        state.tables.insert(frame, level);
        let page = self.page(frame);
        page.as_chunks().0.iter().map(|word| Pte(u64::from_le_bytes(*word))).all(|pte| {
            let (to, writable) = (pte.frame(), pte.0 & 2 != 0);
            match level {
                _ if !pte.is_present() => true,
                1 => state.m2p.contains_key(&to) && !(writable && state.tables.contains_key(&to)),
                _ => !pte.is_superpage() && self.use_table(state, to, level - 1),
            }
        })
    }

    fn check_context(&self, state: &mut State, context: &[u8]) -> bool {
        let width = GuestWidth::from_bytes(state.width).unwrap();
        if context.len() != width.context_bytes() {
            return false;
        }
        let field = |field: xenmig_types::pv::Field| field.get(width, context).unwrap();
        let gdt = field(vcpu_context::GDT_ENTRIES).div_ceil(512) as usize;
        let plain =
            |state: &State, frame| state.m2p.contains_key(&frame) && !state.tables.contains_key(&frame);
        (0..gdt).all(|index| plain(state, field(vcpu_context::GDT_FRAMES.at(index))))
            && field(vcpu_context::FLAGS) & vcpu_context::ONLINE != 0
            && self.use_table(state, width.frame_of_cr3(field(vcpu_context::CR3)).unwrap().0, width.levels())
            && (width == GuestWidth::Bits32
                || field(vcpu_context::CR1) == 0
                || self.use_table(state, field(vcpu_context::CR1) >> 12, 4))
    }
}

const fn name(part: VcpuPart) -> &'static str {
    match part {
        VcpuPart::Basic => "basic",
        VcpuPart::Extended => "extended",
        VcpuPart::Xsave => "xsave",
        VcpuPart::Msrs => "msrs",
    }
}

impl Hypervisor for PvHost {
    fn clock(&self) -> &dyn Clock {
        &MachineClock
    }

    fn version(&self) -> Result<XenVersion> {
        self.sim.version()
    }

    fn domain_info(&self, domid: Domid) -> Result<DomainInfo> {
        let info = self.sim.domain_info(domid)?;
        let (max_vcpu_id, shared_info_frame) = (MAX_VCPU_ID, SHARED_INFO_FRAME);
        Ok(DomainInfo { kind: GuestKind::Pv, max_vcpu_id, shared_info_frame, ..info })
    }

    fn claim_save(&self, domid: Domid) -> std::result::Result<SaveClaim, ClaimError> {
        self.sim.claim_save(domid)
    }

    fn nr_gpfns(&self, domid: Domid) -> Result<u64> {
        self.sim.nr_gpfns(domid)
    }

    fn enable_logdirty(&self, domid: Domid) -> Result<()> {
        self.sim.enable_logdirty(domid)
    }

    fn disable_logdirty(&self, domid: Domid) -> Result<()> {
        self.sim.disable_logdirty(domid)
    }

    fn dirty_bitmap(&self, domid: Domid, pages: u64) -> Result<DirtyBitmap> {
        self.sim.dirty_bitmap(domid, pages)
    }

    fn clean(&self, domid: Domid, bitmap: Option<&mut DirtyBitmap>, pass: CleanPass) -> Result<DirtyCounts> {
        self.sim.clean(domid, bitmap, pass)
    }

    fn peek(&self, domid: Domid, bitmap: Option<&mut DirtyBitmap>) -> Result<DirtyCounts> {
        self.sim.peek(domid, bitmap)
    }

    fn page_types(&self, domid: Domid, gfns: &[Gfn], types: &mut [PageType]) -> Result<()> {
        self.sim.page_types(domid, gfns, types)
    }

    fn map(&self, domid: Domid, gfns: &[Gfn], access: Access) -> Result<ForeignPages> {
        // A gfn that the simulated domain does not have, for a page that may not be mapped.
        const NOWHERE: Gfn = Gfn(1 << 51);
        let mut state = self.enter("map")?;
        let strays =
            gfns.iter().filter(|gfn| gfn.0 != SHARED_INFO_FRAME && !state.m2p.contains_key(&gfn.0)).count();
        state.strays += strays as u32;
        let allowed = |gfn: &Gfn| match access {
            _ if gfn.0 == SHARED_INFO_FRAME => *gfn,
            _ if !state.m2p.contains_key(&gfn.0) => NOWHERE,
            Access::Write if state.tables.contains_key(&gfn.0) => NOWHERE,
            _ => *gfn,
        };
        let gfns: Vec<Gfn> = gfns.iter().map(allowed).collect();
        drop(state);
        self.sim.map(domid, &gfns, access)
    }

    fn hvm_context(&self, domid: Domid) -> Result<Vec<u8>> {
        Err(HypervisorError::call("hvm_context", domid, EINVAL))
    }

    fn set_hvm_context(&self, domid: Domid, _context: &[u8]) -> Result<()> {
        Err(HypervisorError::call("set_hvm_context", domid, EINVAL))
    }

    fn hvm_param(&self, domid: Domid, _index: u32) -> Result<u64> {
        Err(HypervisorError::call("hvm_param", domid, EINVAL))
    }

    fn set_hvm_param(&self, domid: Domid, _index: u32, _value: u64) -> Result<()> {
        Err(HypervisorError::call("set_hvm_param", domid, EINVAL))
    }

    fn tsc_info(&self, domid: Domid) -> Result<TscInfo> {
        self.sim.tsc_info(domid)
    }

    fn set_tsc_info(&self, domid: Domid, tsc: &TscInfo) -> Result<()> {
        self.sim.set_tsc_info(domid, tsc)
    }

    fn cpu_policy(&self, domid: Domid) -> Result<CpuPolicy> {
        self.sim.cpu_policy(domid)
    }

    fn set_cpu_policy(&self, domid: Domid, policy: &CpuPolicy) -> Result<()> {
        self.sim.set_cpu_policy(domid, policy)
    }

    fn populate(&self, domid: Domid, frames: &mut [Gfn], extent: Extent) -> Result<usize> {
        // A call that fails may have given some frames before.
        let mut state = self.enter("populate").inspect_err(|_| frames.fill(Gfn(0x777)))?;
        self.require(extent == Extent::Page, "populate", EINVAL)?;
        let count = frames.len();
        for (done, frame) in frames.iter_mut().enumerate() {
            if let Some(odd) = state.odd_frames.pop() {
                *frame = Gfn(odd);
                continue;
            }
            if state.m2p.len() as u64 >= self.max_pages {
                return Ok(done);
            }
            // 1237 has no factor in common with the number of frames.
            let mut mfn = SHARED_INFO_FRAME;
            while mfn == SHARED_INFO_FRAME || state.m2p.contains_key(&mfn) {
                mfn = (state.given * 1237 + 77) % FRAMES;
                state.given += 1;
            }
            assert_eq!(self.sim.populate(domid, &mut [Gfn(mfn)], Extent::Page)?, 1);
            state.m2p.insert(mfn, frame.0);
            *frame = Gfn(mfn);
        }
        Ok(count)
    }

    /// As with Xen, what a page table refers to stays until that reference goes; here it just has no owner any more.
    fn depopulate(&self, domid: Domid, gfns: &[Gfn]) -> Result<()> {
        let mut state = self.enter("depopulate")?;
        for gfn in gfns {
            let owned = state.m2p.remove(&gfn.0).is_some();
            state.strays += u32::from(!owned);
            self.require(owned, "depopulate", EINVAL)?;
        }
        state.calls.push(Call::Depopulate(gfns.iter().map(|gfn| gfn.0).collect()));
        self.sim.depopulate(domid, gfns)
    }

    fn seed_grants(&self, domid: Domid, grants: &[ReservedGrant]) -> Result<()> {
        self.enter("seed_grants")?.calls.push(Call::Grants);
        self.sim.seed_grants(domid, grants)
    }
}
