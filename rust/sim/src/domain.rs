// SPDX-License-Identifier: GPL-3.0-or-later
//! One simulated domain: what it consists of, what its vCPUs do, and what tests inject and count. Its states are in
//! `life.rs`, memory contents in `contents.rs`, the verbs of the engine in `verbs.rs`.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use xenmig_hypervisor::{Clock, HypervisorError, Process, ReservedGrant, Result};
use xenmig_types::{DomainState, Domid, PAGE_SIZE_U64, Pfn};

use crate::{
    activity::Activity,
    blobs::BlobState,
    counters::{Calls, Counters, Verb},
    domain_config::DomainConfig,
    error::SimError,
    gate::lock,
    guest::Guest,
    inject::{Fault, Faults},
    layout::Layout,
    life::Life,
    machine::Machine,
    memory::available_bytes,
    pv::{CannotBoot, Churn, PvConfig, PvDomain},
    script::{Action, Script, When},
    workload::{Plan, Workload},
};

/// Domains smaller than this are not worth asking the machine whether it has the memory.
const SMALL_BYTES: u64 = 256 << 20;

/// A domain of a [`SimHost`](super::SimHost). It lives until it is destroyed and the last reference is gone; mapped
/// pages keep its memory even longer.
#[derive(Debug)]
pub struct SimDomain {
    pub(super) domid: Domid,
    pub(super) process: Process,
    vcpus: u32,
    seed: u64,
    memory_bytes: u64,
    pub(super) xen_mapped_pages: u64,
    pub(super) guest: Arc<Guest>,
    /// The control lock: held by whoever changes the domain's state, its pages or its log-dirty mode.
    pub(super) life: Arc<Mutex<Life>>,
    activity: Activity,
    pub(super) blobs: Mutex<BlobState>,
    /// Whether there is a script, so that a call without one takes no lock.
    scripted: AtomicBool,
    script: Mutex<Arc<Script>>,
    pub(super) faults: Faults,
    calls: Calls,
    pub(super) totals: Totals,
}

/// Sums that verbs keep for [`Counters`].
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) clean_ns: AtomicU64,
    pub(super) peek_ns: AtomicU64,
    pub(super) pages_populated: AtomicU64,
    pub(super) superpages_populated: AtomicU64,
}

impl SimDomain {
    /// Makes the domain and starts its vCPUs, which are threads unless there is a clock. `machine` is asked for if it is a PV guest.
    pub(super) fn new(
        domid: Domid,
        config: &DomainConfig,
        clock: Option<&Arc<dyn Clock>>,
        machine: impl FnOnce() -> std::result::Result<Arc<Machine>, SimError>,
    ) -> std::result::Result<Self, SimError> {
        let layout = config.validate()?;
        let vcpus = usize::try_from(config.vcpus).unwrap_or(usize::MAX);
        let pv = config.pv.as_ref().map(|pv| new_pv(domid, config, pv, layout, &machine()?)).transpose()?;
        let guest = Guest::new(layout, pv, vcpus, config.vram_tracking)
            .map_err(SimError::system("reserving address space for the domain"))?;
        if config.populated {
            layout.populate(&guest.memory, &config.holes);
        }
        let pages = if config.populated { guest.memory.total_pages() } else { layout.max_pages() };
        let needed_bytes = pages * PAGE_SIZE_U64;
        if needed_bytes >= SMALL_BYTES
            && let Some(available_bytes) = available_bytes().filter(|available| *available < needed_bytes)
        {
            return Err(SimError::MemoryTooLarge { needed_bytes, available_bytes });
        }
        if let Some((guest, pv)) = guest.pv().zip(config.pv.as_ref()).filter(|_| config.populated) {
            guest.boot(config, pv).map_err(|error| match error {
                CannotBoot::NoFrames => SimError::NoFrames { domid, frames: guest.machine_frames() },
                CannotBoot::TooSmall => SimError::invalid(format!(
                    "{} pages are too few for the page tables, p2m and GDTs of this PV guest",
                    layout.ram_pages
                )),
            })?;
        }
        let blobs = if config.populated {
            BlobState::of_guest(&config.blobs, config.seed)
        } else {
            BlobState::empty(&config.blobs)
        };
        let domain = Self {
            domid,
            process: Process::current(),
            vcpus: config.vcpus,
            seed: config.seed,
            memory_bytes: config.memory_bytes,
            xen_mapped_pages: config.xen_mapped_pages,
            guest: Arc::new(guest),
            life: Arc::new(Mutex::new(Life::new(!config.populated))),
            activity: Activity::new(clock),
            blobs: Mutex::new(blobs),
            scripted: AtomicBool::new(false),
            script: Mutex::default(),
            faults: Faults::default(),
            calls: Calls::default(),
            totals: Totals::default(),
        };
        if config.populated {
            domain.guest.register_xen_mapped(domain.xen_mapped_pages);
        } else {
            domain.guest.gate.close();
        }
        domain.set_workload(config.workload.clone())?;
        if let Some(pv) = &config.pv {
            domain.set_churn(pv.churn)?;
        }
        Ok(domain)
    }

    /// Returns the domain's number.
    #[must_use]
    pub const fn domid(&self) -> Domid {
        self.domid
    }

    /// Returns the size of RAM in pages, holes included.
    #[must_use]
    pub const fn memory_pages(&self) -> u64 {
        self.memory_bytes / PAGE_SIZE_U64
    }

    /// Returns the number of its vCPUs.
    #[must_use]
    pub const fn vcpus(&self) -> u32 {
        self.vcpus
    }

    /// Returns how many pages the domain has now.
    #[must_use]
    pub fn populated_pages(&self) -> u64 {
        self.guest.memory.total_pages()
    }

    /// Returns the size of the p2m in pages, as the verb `nr_gpfns` does, but as a question that is not counted and
    /// in which no fault is injected.
    #[must_use]
    pub fn p2m_pages(&self) -> u64 {
        self.guest.pv().map_or_else(|| self.guest.memory.p2m_pages(), |guest| guest.nr_gpfns())
    }

    /// Says whether the domain has a page at this pfn.
    #[must_use]
    pub fn is_populated(&self, pfn: Pfn) -> bool {
        self.guest.memory.populated().get(pfn.0)
    }

    /// Returns what a toolstack has granted in reserved entries of the domain's grant table.
    #[must_use]
    pub fn grants(&self) -> Vec<ReservedGrant> {
        lock(&self.blobs).grants()
    }

    /// Returns the pages that Xen keeps mapped: written without being logged, reported by FINAL alone.
    #[must_use]
    pub fn xen_mapped(&self) -> &[Pfn] {
        self.guest.xen_mapped()
    }

    /// Returns how many pages the vCPUs and the script wrote so far, a page that was written twice counted twice.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.guest.writes()
    }

    /// Gives the vCPUs something else to do.
    ///
    /// # Errors
    ///
    /// [`SimError::InvalidConfig`] for numbers that mean nothing, [`SimError::WrongState`] if it is destroyed,
    /// [`SimError::System`] if no thread can be started.
    pub fn set_workload(&self, workload: Workload) -> std::result::Result<(), SimError> {
        self.process.check("set_workload")?;
        let ram_pages = self.guest.layout.ram_pages;
        workload.validate(ram_pages)?;
        self.catch_up();
        let plan = workload.needs_threads().then(|| Plan::new(&workload, ram_pages));
        self.activity.set_plan(&self.guest, plan, (self.vcpus, self.seed), || {
            self.expect_alive("change the workload of")
        })?;
        let script = if let Workload::Scripted(script) = workload { Some(script) } else { None };
        self.scripted.store(script.is_some(), Ordering::Release);
        *lock(&self.script) = Arc::new(script.unwrap_or_default());
        Ok(())
    }

    /// Gives a PV guest's kernel something else to do in the background.
    ///
    /// # Errors
    ///
    /// [`SimError::InvalidConfig`] for numbers that mean nothing, and for a guest that is not PV;
    /// [`SimError::WrongState`] if it is destroyed, [`SimError::System`] if no thread can be started.
    pub fn set_churn(&self, churn: Churn) -> std::result::Result<(), SimError> {
        self.process.check("set_churn")?;
        churn.validate()?;
        if self.guest.pv.is_none() {
            return Err(SimError::invalid("only the kernel of a PV guest does something in the background"));
        }
        self.catch_up();
        self.activity
            .set_churn(&self.guest, &self.life, churn, || self.expect_alive("change the workload of"))
    }

    fn expect_alive(&self, op: &'static str) -> std::result::Result<(), SimError> {
        self.expect_state(op, &lock(&self.life), |state| state != DomainState::Dying)
    }

    /// Injects a fault, beside those that are there.
    pub fn inject(&self, fault: Fault) {
        self.faults.add(fault, |verb| self.calls.get(verb));
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.faults.clear();
    }

    /// Returns the counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let total = |total: &AtomicU64| total.load(Ordering::Acquire);
        let mut counters = Counters::of(&self.calls, &self.guest.memory.mappings);
        counters.clean_time_ns = total(&self.totals.clean_ns);
        counters.logdirty_pause_ns = counters.clean_time_ns + total(&self.totals.peek_ns);
        counters.logdirty_on = self.guest.logdirty.is_on();
        counters.pages_populated = total(&self.totals.pages_populated);
        counters.superpages_populated = total(&self.totals.superpages_populated);
        counters
    }

    /// Lets the guest do what has fallen due, if it has no threads for that.
    pub(super) fn catch_up(&self) {
        self.activity.catch_up(&self.guest, &self.life);
    }

    /// Begins a call: lets the guest catch up, counts the call, lets the script act, and makes it fail if a fault says so. Returns how many calls of
    /// the verb there were before.
    pub(super) fn enter(&self, verb: Verb) -> Result<u64> {
        self.process.check(verb.name())?;
        self.catch_up();
        let number = self.calls.count(verb);
        if let Some(when) = When::before(verb, number) {
            self.play(when);
        }
        match self.faults.errno(verb, number) {
            Some(errno) => Err(HypervisorError::call(verb.name(), self.domid, errno)),
            None => Ok(number),
        }
    }

    /// Lets the script act, if the domain is running.
    pub(super) fn play(&self, when: When) {
        if !self.scripted.load(Ordering::Acquire) {
            return;
        }
        let script = Arc::clone(&lock(&self.script));
        for action in script.actions(when) {
            let life = lock(&self.life);
            if life.state() == DomainState::Running {
                let _possible = self.act(*action);
            }
        }
    }

    /// Does what the guest is to do. What cannot be done is not done, as the script's documentation says. The caller
    /// holds the control lock.
    fn act(&self, action: Action) -> bool {
        match action {
            Action::Write(pfn) => self.guest.write_once(pfn),
            Action::BalloonOut(pfn) => matches!(self.take_page(pfn), Ok(true)),
            Action::BalloonIn(pfn) => self.give_pages(pfn, 1),
            action => self.guest.pv().is_some_and(|guest| guest.act(action)),
        }
    }

    /// Lets the guest do something now, as a script does. Says whether it could: it runs, and the action is possible.
    pub fn perform(&self, action: Action) -> bool {
        if self.process.check("perform").is_err() {
            return false;
        }
        let life = lock(&self.life);
        life.state() == DomainState::Running && self.act(action)
    }

    /// Takes a page away and says whether there was one. A PV guest gives back data alone. The caller holds the control
    /// lock.
    pub(super) fn take_page(&self, pfn: Pfn) -> io::Result<bool> {
        if let Some(guest) = self.guest.pv() {
            return Ok(guest.act(Action::BalloonOut(pfn)));
        }
        let stopped = self.guest.gate.stop();
        let taken = self.guest.memory.take(pfn);
        if matches!(taken, Ok(true)) {
            self.guest.logdirty.mark(pfn);
        }
        drop(stopped);
        taken
    }

    /// Gives the domain pages and says whether that was possible. The caller holds the control lock.
    pub(super) fn give_pages(&self, first: Pfn, count: u64) -> bool {
        if let Some(guest) = self.guest.pv() {
            return count == 1 && guest.act(Action::BalloonIn(first));
        }
        let memory = &self.guest.memory;
        let possible = memory.is_free(first, count)
            && memory.total_pages().saturating_add(count) <= self.guest.layout.max_pages();
        if possible {
            memory.give_poisoned(first, count);
            if self.guest.logdirty.is_on() {
                (first.0..first.0 + count).for_each(|pfn| self.guest.logdirty.mark(Pfn(pfn)));
            }
        }
        possible
    }

    /// Ends the guest's threads for good.
    pub(super) fn end_threads(&self) {
        if self.process == Process::current() {
            self.activity.end(&self.guest);
        } else {
            self.activity.forget();
        }
    }
}

/// Makes what a PV domain has beside memory.
fn new_pv(
    domid: Domid,
    config: &DomainConfig,
    pv: &PvConfig,
    layout: Layout,
    machine: &Arc<Machine>,
) -> std::result::Result<PvDomain, SimError> {
    // Two domains of one configuration, each the first on its host, must not have the same frames.
    machine.stir(config.seed << 1 | u64::from(config.populated));
    PvDomain::new(machine, pv, layout.capacity(), config.vcpus, config.seed)
        .map_err(SimError::system("reserving address space for the domain"))?
        .ok_or(SimError::NoFrames { domid, frames: machine.frames() })
}

impl Drop for SimDomain {
    fn drop(&mut self) {
        self.end_threads();
    }
}
