// SPDX-License-Identifier: GPL-3.0-or-later
//! How a simulated domain changes its state: suspend and resume, pause and unpause, destruction. Each closes or opens the
//! gate, and lets a PV guest's kernel prepare or go on.

use xenmig_types::DomainState;

use crate::{counters::Verb, domain::SimDomain, error::SimError, gate::lock, life::Life};

impl SimDomain {
    /// Returns the domain's state.
    #[must_use]
    pub fn state(&self) -> DomainState {
        lock(&self.life).state()
    }

    /// Lets the guest suspend itself: its vCPUs stop between two writes, and the state is `Shutdown { reason: 2 }`.
    ///
    /// # Errors
    ///
    /// [`SimError::WrongState`] unless it is running; an injected fault.
    pub fn suspend(&self) -> std::result::Result<(), SimError> {
        self.enter(Verb::Suspend)?;
        let mut life = lock(&self.life);
        self.expect_state("suspend", &life, |state| state == DomainState::Running)?;
        self.guest.gate.close();
        if let Some(guest) = self.guest.pv() {
            guest.fall_asleep();
        }
        for page in 0..self.guest.xen_mapped().len() {
            self.guest.write_unlogged(page);
        }
        life.shutdown = Some(DomainState::SHUTDOWN_SUSPEND);
        Ok(())
    }

    /// Lets the guest run again after a suspension, or for the first time after a restore.
    ///
    /// # Errors
    ///
    /// [`SimError::WrongState`] if it is running or destroyed; [`SimError::Unsound`] if it is a PV guest that does not
    /// find its way in its memory; an injected fault.
    pub fn resume(&self) -> std::result::Result<(), SimError> {
        self.enter(Verb::Resume)?;
        self.change(
            "resume",
            |state| matches!(state, DomainState::Shutdown { .. } | DomainState::Paused),
            |life| {
                if life.shutdown.take().is_none() {
                    life.paused = false;
                }
            },
        )
    }

    /// Stops the vCPUs without the guest's knowing.
    ///
    /// # Errors
    ///
    /// [`SimError::WrongState`] if it is paused or destroyed.
    pub fn pause(&self) -> std::result::Result<(), SimError> {
        self.process.check("pause")?;
        self.catch_up();
        let allowed = |state| matches!(state, DomainState::Running | DomainState::Shutdown { .. });
        self.change("pause", allowed, |life| life.paused = true)
    }

    /// Undoes [`SimDomain::pause`], or starts a domain that was restored.
    ///
    /// # Errors
    ///
    /// [`SimError::WrongState`] if it is running or destroyed; [`SimError::Unsound`] as for [`SimDomain::resume`].
    pub fn unpause(&self) -> std::result::Result<(), SimError> {
        self.process.check("unpause")?;
        self.catch_up();
        let allowed = |state| matches!(state, DomainState::Paused | DomainState::Shutdown { .. });
        self.change("unpause", allowed, |life| life.paused = false)
    }

    /// Ends the vCPU threads for good. Called when the domain is destroyed.
    pub(super) fn kill(&self) {
        let mut life = lock(&self.life);
        let ran = life.state() == DomainState::Running;
        life.dying = true;
        if ran {
            self.guest.gate.close();
        }
        drop(life);
        self.end_threads();
    }

    /// Changes the state, and opens or closes the gate with it.
    fn change(
        &self,
        op: &'static str,
        allowed: impl FnOnce(DomainState) -> bool,
        change: impl FnOnce(&mut Life),
    ) -> std::result::Result<(), SimError> {
        let mut life = lock(&self.life);
        self.expect_state(op, &life, allowed)?;
        let ran = life.state() == DomainState::Running;
        let before = *life;
        change(&mut life);
        match (ran, life.state() == DomainState::Running) {
            (false, true) => {
                if let Err(lost) = self.guest.pv().map_or(Ok(()), |guest| guest.wake()) {
                    *life = before;
                    return Err(SimError::Unsound { domid: self.domid, reason: lost.to_string() });
                }
                self.guest.register_xen_mapped(self.xen_mapped_pages);
                self.guest.gate.open();
            }
            (true, false) => self.guest.gate.close(),
            _ => {}
        }
        Ok(())
    }

    /// Checks the state.
    pub(super) fn expect_state(
        &self,
        op: &'static str,
        life: &Life,
        allowed: impl FnOnce(DomainState) -> bool,
    ) -> std::result::Result<(), SimError> {
        let state = life.state();
        if allowed(state) { Ok(()) } else { Err(SimError::WrongState { op, domid: self.domid, state }) }
    }
}
