// SPDX-License-Identifier: GPL-3.0-or-later
//! What a save and a restore do besides their work, and at which pace: they let the caller interrupt them, make calls
//! again that the hypervisor was too busy for, limit how long the other end may stall, and say when progress is due.
//!
//! ```text
//! between batches:      tick ─► attend ─► progress_due
//! while a call is busy: retry ─► wait
//! while a peer stalls:  while_waiting(bytes moved) ─► stall limit
//! ```
//!
//! A watch reads the host's [`Clock`] when it is told to ([`Watch::tick`]), which is twice a batch: reading the clock is
//! what a consult costs most.

use std::{fmt, time::Duration};

use xenmig_hypervisor::{BUSY_RETRIES, BUSY_WAIT, Clock, Hypervisor, HypervisorError, Moment};

use crate::{CallerError, Interrupt};

/// The caller is asked at least this often whether to go on.
pub(crate) const LISTEN_INTERVAL: Duration = Duration::from_millis(100);

/// Why a watch ends a run.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The caller interrupted it.
    Interrupted(CallerError),
    /// The other end has moved no byte for this long.
    Stalled(Duration),
    /// A call of the hypervisor failed for good.
    Hypervisor(HypervisorError),
}

/// How long the other end has taken or sent nothing.
#[derive(Clone, Copy, Debug)]
struct Stall {
    limit: Option<Duration>,
    /// Bytes moved when it was last looked at, and since when it has been that many.
    moved: u64,
    since: Moment,
}

/// Keeps time for one run, and speaks to its caller.
pub(crate) struct Watch<'a, C: ?Sized> {
    clock: &'a dyn Clock,
    pub(crate) caller: &'a mut C,
    now: Moment,
    listened: Moment,
    told: Option<Moment>,
    progress_interval: Duration,
    stall: Stall,
}

impl<C: ?Sized> fmt::Debug for Watch<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("now", &self.now).field("stall", &self.stall).finish_non_exhaustive()
    }
}

impl<'a, C: Interrupt + ?Sized> Watch<'a, C> {
    /// Starts to watch over a run on `host`. Progress is due at most once per `progress_interval`. The other end may
    /// stall for `stall_limit`, or for ever.
    pub(crate) fn new(
        host: &'a dyn Hypervisor,
        caller: &'a mut C,
        progress_interval: Duration,
        stall_limit: Option<Duration>,
    ) -> Self {
        let clock = host.clock();
        let now = clock.now();
        let stall = Stall { limit: stall_limit, moved: 0, since: now };
        Self { clock, caller, now, listened: now, told: None, progress_interval, stall }
    }

    /// Reads the clock.
    pub(crate) fn tick(&mut self) -> Moment {
        self.now = self.clock.now();
        self.now
    }

    /// Returns the moment at which the clock was last read.
    pub(crate) const fn now(&self) -> Moment {
        self.now
    }

    /// Asks the caller whether to go on, if it is time.
    pub(crate) fn attend(&mut self) -> Result<(), Halt> {
        if self.now.since(self.listened) < LISTEN_INTERVAL {
            return Ok(());
        }
        self.listen()
    }

    /// Says whether the caller is to hear of progress, which counts as done then.
    pub(crate) fn progress_due(&mut self) -> bool {
        let due = self.told.is_none_or(|told| self.now.since(told) >= self.progress_interval);
        if due {
            self.told = Some(self.now);
        }
        due
    }

    /// Sets how long the other end may stall from now on.
    pub(crate) fn limit_stalls(&mut self, limit: Option<Duration>) {
        self.stall = Stall { limit, since: self.tick(), ..self.stall };
    }

    /// Called at least every 100 ms while the other end is not ready; `moved` bytes have gone through the stream so far.
    pub(crate) fn while_waiting(&mut self, moved: u64) -> Result<(), Halt> {
        self.tick();
        if moved != self.stall.moved {
            self.stall.moved = moved;
            self.stall.since = self.now;
        }
        self.attend()?;
        let stalled = self.now.since(self.stall.since);
        match self.stall.limit {
            Some(limit) if stalled >= limit => Err(Halt::Stalled(stalled)),
            _ => Ok(()),
        }
    }

    /// Says whether the other end has moved no byte for as long as the caller may have to wait.
    pub(crate) fn is_stalled(&self) -> bool {
        self.now.since(self.stall.since) >= LISTEN_INTERVAL
    }

    /// Makes a call of the hypervisor, and makes it again while the hypervisor says that it may succeed later, for about
    /// a second.
    pub(crate) fn retry<T>(
        &mut self,
        mut call: impl FnMut() -> Result<T, HypervisorError>,
    ) -> Result<T, Halt> {
        let mut tries = 0;
        loop {
            match call() {
                Err(error) if error.is_transient() && tries < BUSY_RETRIES => tries += 1,
                result => return result.map_err(Halt::Hypervisor),
            }
            self.wait(BUSY_WAIT)?;
        }
    }

    /// Sleeps, and lets the caller interrupt that.
    pub(crate) fn wait(&mut self, time: Duration) -> Result<(), Halt> {
        let until = self.tick() + time;
        while self.now < until {
            self.clock.sleep_until(until.min(self.now + LISTEN_INTERVAL));
            self.tick();
            self.attend()?;
        }
        Ok(())
    }

    fn listen(&mut self) -> Result<(), Halt> {
        self.listened = self.now;
        self.caller.interrupted().map_err(Halt::Interrupted)
    }
}
