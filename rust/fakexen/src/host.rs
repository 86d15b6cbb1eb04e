// SPDX-License-Identifier: GPL-3.0-or-later
//! The host: the simulated domains, each with what the simulation does not have and the Xen libraries ask for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use xenmig_sim::{SimDomain, SimHost};
use xenmig_types::{DomainState, Domid};

use crate::{
    cpu_policy::Policy,
    failure::Failure,
    grant_table::GrantTable,
    spec::Spec,
    tally::{Scope, Tally},
};

/// A domain.
#[derive(Debug)]
pub(crate) struct Domain {
    /// Its number.
    pub(crate) domid: Domid,
    /// Its memory, its vCPUs, its state.
    pub(crate) sim: Arc<SimDomain>,
    /// Its grant table.
    pub(crate) grants: GrantTable,
    /// Types that `getpageframeinfo3` reports instead of the true ones, as numbers 0 to 15.
    pub(crate) types: BTreeMap<u64, u64>,
    /// Calls about this domain.
    pub(crate) tally: Tally,
    /// Whether it is a PV guest.
    pv: bool,
    /// Whether it ever ran: its CPU policy cannot be changed any more.
    started: AtomicBool,
}

#[derive(Debug)]
struct Host {
    sim: RwLock<SimHost>,
    domains: RwLock<BTreeMap<u16, Arc<Domain>>>,
}

static HOST: LazyLock<Host> =
    LazyLock::new(|| Host { sim: RwLock::new(SimHost::new()), domains: RwLock::new(BTreeMap::new()) });

/// Returns the host that answers for the simulated domains.
pub(crate) fn sim() -> SimHost {
    HOST.sim.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Returns a domain.
pub(crate) fn domain(domid: u16) -> Option<Arc<Domain>> {
    HOST.domains.read().unwrap_or_else(PoisonError::into_inner).get(&domid).cloned()
}

/// Returns the first domain whose number is not below `domid`.
pub(crate) fn domain_from(domid: u16) -> Option<Arc<Domain>> {
    let domains = HOST.domains.read().unwrap_or_else(PoisonError::into_inner);
    domains.range(domid..).next().map(|(_, domain)| Arc::clone(domain))
}

/// Returns what a call about a domain is counted for, or about one that does not exist.
pub(crate) fn scope(domain: Option<&Domain>) -> Scope<'_> {
    domain.map_or(Scope::Host, Domain::scope)
}

/// Returns all numbers.
pub(crate) fn domids() -> Vec<u16> {
    HOST.domains.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
}

/// Makes a domain.
pub(crate) fn create(spec: &Spec) -> Result<Arc<Domain>, Failure> {
    let grants = GrantTable::new().map_err(|error| Failure::system("making a grant table", &error))?;
    let policy = Policy::of_spec(spec)?;
    let config = spec.config()?;
    let sim = sim().create(config)?;
    let ready = prepare(&sim, spec, &policy);
    let domain = Arc::new(Domain {
        domid: sim.domid(),
        started: AtomicBool::new(sim.state() != DomainState::Paused),
        sim,
        grants,
        types: spec.types.iter().copied().collect(),
        tally: Tally::new(),
        pv: spec.pv.is_some(),
    });
    if let Err(failure) = ready {
        self::sim().destroy(domain.domid)?;
        return Err(failure);
    }
    let mut domains = HOST.domains.write().unwrap_or_else(PoisonError::into_inner);
    domains.insert(domain.domid.get(), Arc::clone(&domain));
    Ok(domain)
}

fn prepare(sim: &SimDomain, spec: &Spec, policy: &Policy) -> Result<(), Failure> {
    use xenmig_hypervisor::Hypervisor;
    if spec.populated && spec.fill {
        sim.fill(spec.seed);
    }
    if spec.warm {
        sim.raw().warm().map_err(|error| Failure::system("backing RAM with memory", &error))?;
    }
    self::sim().set_cpu_policy(sim.domid(), &policy.serialise())?;
    // Now that the domain is there: a script may name entries of its page tables by what they lead to.
    sim.set_workload(spec.workload.workload(sim))?;
    Ok(())
}

/// Destroys all domains. Those that come have the same numbers and machine frames again as those that went.
pub(crate) fn reset() -> Result<(), Failure> {
    domids().into_iter().try_for_each(destroy)?;
    *HOST.sim.write().unwrap_or_else(PoisonError::into_inner) = SimHost::new();
    Ok(())
}

/// Destroys a domain. Its memory goes when the last mapping is gone.
pub(crate) fn destroy(domid: u16) -> Result<(), Failure> {
    let mut domains = HOST.domains.write().unwrap_or_else(PoisonError::into_inner);
    let domain = domains.remove(&domid).ok_or_else(|| Failure::no_domain(domid))?;
    drop(domains);
    sim().destroy(domain.domid)?;
    Ok(())
}

impl Domain {
    /// Returns what a call about this domain is counted for.
    pub(crate) fn scope(&self) -> Scope<'_> {
        Scope::Domain { domid: self.domid, tally: &self.tally }
    }

    /// Says whether it is a PV guest, which knows its pages by the machine's frames.
    pub(crate) fn is_pv(&self) -> bool {
        self.pv
    }

    /// Notes that the domain runs.
    pub(crate) fn start(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Says whether it ever ran.
    pub(crate) fn has_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }
}
