// SPDX-License-Identifier: GPL-3.0-or-later
//! What makes a running guest busy: threads, which keep to the machine's clock; or, on a host with another clock, the
//! calls on its domain, each of which first lets the guest do what has fallen due since the one before.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use xenmig_hypervisor::{Clock, Moment};
use xenmig_types::DomainState;

use crate::{
    error::SimError,
    gate::lock,
    guest::Guest,
    life::Life,
    pv::{Churn, ChurnPace, ChurnThread},
    vcpu::Vcpu,
    vcpu_threads::VcpuThreads,
    workload::Plan,
};

/// How much time the vCPUs take turns for.
const TURN: Duration = Duration::from_millis(1);

/// What keeps a domain's guest busy.
#[derive(Debug)]
pub(crate) enum Activity {
    /// Threads.
    Threads {
        /// Those of the vCPUs.
        vcpus: Mutex<Option<VcpuThreads>>,
        /// That of a PV guest's kernel.
        churn: Mutex<Option<ChurnThread>>,
    },
    /// Calls.
    Calls {
        /// The host's clock.
        clock: Arc<dyn Clock>,
        /// What falls due.
        due: Mutex<Due>,
    },
}

/// What falls due in a guest that has no threads.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// Until when everything was done.
    done: Moment,
    plan: Option<Plan>,
    vcpus: Vec<Vcpu>,
    churn: Option<ChurnPace>,
}

impl Activity {
    /// Makes an idle guest; with a clock, one without threads.
    pub(crate) fn new(clock: Option<&Arc<dyn Clock>>) -> Self {
        match clock {
            Some(clock) => {
                let due = Due { done: clock.now(), ..Due::default() };
                Self::Calls { clock: Arc::clone(clock), due: Mutex::new(due) }
            }
            None => Self::Threads { vcpus: Mutex::default(), churn: Mutex::default() },
        }
    }

    /// Gives `count` vCPUs something else to do; nothing without a plan. `allowed` is asked while no one else can.
    pub(crate) fn set_plan(
        &self,
        guest: &Arc<Guest>,
        plan: Option<Plan>,
        (count, seed): (u32, u64),
        allowed: impl FnOnce() -> Result<(), SimError>,
    ) -> Result<(), SimError> {
        match self {
            Self::Threads { vcpus, .. } => {
                let mut vcpus = lock(vcpus);
                allowed()?;
                if let Some(vcpus) = vcpus.take() {
                    vcpus.stop(guest);
                }
                let started = plan.map(|plan| VcpuThreads::start(guest, plan, count, seed)).transpose();
                *vcpus = started.map_err(SimError::system("starting a vCPU thread"))?;
            }
            Self::Calls { due, .. } => {
                let mut due = lock(due);
                allowed()?;
                due.vcpus = (0..count).map(|number| Vcpu::new(number, count, seed)).collect();
                due.plan = plan;
            }
        }
        Ok(())
    }

    /// Gives a PV guest's kernel something else to do in the background.
    pub(crate) fn set_churn(
        &self,
        guest: &Arc<Guest>,
        life: &Arc<Mutex<Life>>,
        churn: Churn,
        allowed: impl FnOnce() -> Result<(), SimError>,
    ) -> Result<(), SimError> {
        match self {
            Self::Threads { churn: thread, .. } => {
                let mut thread = lock(thread);
                allowed()?;
                if let Some(thread) = thread.take() {
                    thread.stop(guest);
                }
                let start = || ChurnThread::start(guest, life, churn);
                let started: io::Result<_> = churn.is_any().then(start).transpose();
                *thread = started.map_err(SimError::system("starting the kernel's thread"))?;
            }
            Self::Calls { due, .. } => {
                let mut due = lock(due);
                allowed()?;
                due.churn = churn.is_any().then(|| ChurnPace::new(churn));
            }
        }
        Ok(())
    }

    /// Lets a guest without threads do what has fallen due, if it runs. The time for which it does not run is none of
    /// its time. The caller does not hold the control lock.
    pub(crate) fn catch_up(&self, guest: &Guest, life: &Mutex<Life>) {
        let Self::Calls { clock, due } = self else { return };
        let mut due = lock(due);
        let now = clock.now();
        let mut left = now.since(due.done);
        due.done = now;
        if lock(life).state() != DomainState::Running {
            return;
        }
        let Due { plan, vcpus, churn, .. } = &mut *due;
        while !left.is_zero() {
            let turn = left.min(TURN);
            left -= turn;
            if let Some(plan) = plan {
                vcpus.iter_mut().for_each(|vcpu| vcpu.run_for(guest, plan, turn));
            }
            if let Some(churn) = churn {
                churn.run_for(guest, life, turn, || false);
            }
        }
    }

    /// Ends the threads, if there are any, and waits for them.
    pub(crate) fn end(&self, guest: &Guest) {
        if let Self::Threads { vcpus, churn } = self {
            if let Some(churn) = lock(churn).take() {
                churn.stop(guest);
            }
            if let Some(vcpus) = lock(vcpus).take() {
                vcpus.stop(guest);
            }
        }
    }

    /// Forgets the threads in a child after fork: it has none of them, and may have a copy of a lock that one of them
    /// held.
    pub(crate) fn forget(&self) {
        if let Self::Threads { vcpus, churn } = self {
            std::mem::forget(lock(churn).take());
            std::mem::forget(lock(vcpus).take());
        }
    }
}
