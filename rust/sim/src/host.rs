// SPDX-License-Identifier: GPL-3.0-or-later
//! The host: a table of domains. Clones are the same host.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use xenmig_hypervisor::{Clock, Process};
use xenmig_types::Domid;

use crate::{
    claims::Claims,
    domain::SimDomain,
    domain_config::DomainConfig,
    error::SimError,
    machine::{DEFAULT_FRAMES, Machine},
};

/// A host whose domains live in this process. Nothing of it follows a fork: every verb is refused in a child.
#[derive(Clone, Debug)]
pub struct SimHost {
    pub(super) process: Process,
    domains: Arc<RwLock<BTreeMap<Domid, Arc<SimDomain>>>>,
    pub(crate) claims: Claims,
    machine_frames: u64,
    /// `None` for the machine's.
    pub(super) clock: Option<Arc<dyn Clock>>,
    /// Made when the first PV guest is: no other domain has frames.
    machine: Arc<OnceLock<Arc<Machine>>>,
}

impl Default for SimHost {
    fn default() -> Self {
        Self::new()
    }
}

impl SimHost {
    /// Opens an empty host.
    #[must_use]
    pub fn new() -> Self {
        Self::with_machine(DEFAULT_FRAMES)
    }

    /// Opens an empty host whose machine has this number of frames for PV guests. It is clamped to 4096 to 2^28.
    /// Xen itself has about 1 % of them; all PV guests together may have 4 KiB of memory for each frame.
    #[must_use]
    pub fn with_machine(frames: u64) -> Self {
        Self {
            process: Process::current(),
            domains: Arc::default(),
            claims: Claims::default(),
            machine_frames: frames,
            clock: None,
            machine: Arc::default(),
        }
    }

    /// Puts the host on a clock, for the domains that are made after this.
    ///
    /// They have no threads. A guest does what falls due on this clock when the next call on its domain begins: a verb,
    /// a suspension, a change of its workload. So with a [`ManualClock`](xenmig_hypervisor::ManualClock), the same
    /// configuration and the same calls give the same memory and the same dirty pages, every time.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Makes a domain and lets it run; an empty one, to be restored into, stays paused.
    ///
    /// # Errors
    ///
    /// [`SimError::InvalidConfig`], [`SimError::DomidInUse`], [`SimError::NoFreeDomid`],
    /// [`SimError::MemoryTooLarge`], [`SimError::NoFrames`], or [`SimError::System`].
    pub fn create(&self, config: DomainConfig) -> Result<Arc<SimDomain>, SimError> {
        self.process.check("createdomain")?;
        let mut domains = self.domains.write().unwrap_or_else(PoisonError::into_inner);
        let domid = match config.domid {
            Some(domid) if domains.contains_key(&domid) => return Err(SimError::DomidInUse { domid }),
            Some(domid) => domid,
            None => (1..i64::from(Domid::FIRST_RESERVED))
                .filter_map(|number| Domid::new(number).ok())
                .find(|domid| !domains.contains_key(domid))
                .ok_or(SimError::NoFreeDomid)?,
        };
        let domain = Arc::new(SimDomain::new(domid, &config, self.clock.as_ref(), || self.machine())?);
        domains.insert(domid, Arc::clone(&domain));
        Ok(domain)
    }

    /// Returns a domain.
    ///
    /// # Errors
    ///
    /// [`SimError::NoSuchDomain`] if there is none of this number.
    pub fn domain(&self, domid: Domid) -> Result<Arc<SimDomain>, SimError> {
        self.process.check("getdomaininfo")?;
        self.find(domid).ok_or(SimError::NoSuchDomain { domid })
    }

    /// Destroys a domain: its vCPU threads have ended when this returns. Its memory goes when the last mapping and
    /// the last holder of the [`SimDomain`] are gone.
    ///
    /// # Errors
    ///
    /// [`SimError::NoSuchDomain`] if there is none of this number.
    pub fn destroy(&self, domid: Domid) -> Result<(), SimError> {
        self.process.check("destroydomain")?;
        let removed = self.domains.write().unwrap_or_else(PoisonError::into_inner).remove(&domid);
        let domain = removed.ok_or(SimError::NoSuchDomain { domid })?;
        domain.kill();
        Ok(())
    }

    /// Returns the numbers of all domains, in order.
    #[must_use]
    pub fn domids(&self) -> Vec<Domid> {
        self.domains.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Returns the machine.
    fn machine(&self) -> Result<Arc<Machine>, SimError> {
        if let Some(machine) = self.machine.get() {
            return Ok(Arc::clone(machine));
        }
        // Whoever makes a domain holds the table of domains, so there is no second machine.
        let machine = Machine::new(self.machine_frames).map_err(SimError::system("making machine memory"))?;
        Ok(Arc::clone(self.machine.get_or_init(|| Arc::new(machine))))
    }

    /// Returns all domains, in the order of their numbers.
    pub(super) fn all(&self) -> Vec<Arc<SimDomain>> {
        self.domains.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Returns a domain, if it exists.
    pub(super) fn find(&self, domid: Domid) -> Option<Arc<SimDomain>> {
        self.domains.read().unwrap_or_else(PoisonError::into_inner).get(&domid).cloned()
    }
}
