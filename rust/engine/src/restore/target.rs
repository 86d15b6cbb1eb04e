// SPDX-License-Identifier: GPL-3.0-or-later
//! The domain that is restored into: every call on it is made here, again while the hypervisor is busy, and what a restore
//! does while it works or waits: it lets the caller interrupt it, reports progress, limits how long the stream may stall,
//! and ends when the domain is no longer its own.
//!
//! Every call is made again by the same rule, [`HypervisorError::is_transient`]. A call that does part of its work says so
//! instead of failing: populating and pinning. A page of a mapping that has an errno of its own is not mapped again: Xen's library
//! itself waits for a page that is paged out.

use std::{
    cell::{Cell, RefCell},
    fmt,
    time::Duration,
};

use xenmig_hypervisor::{Extent, Hypervisor, HypervisorError, Moment};
use xenmig_stream::StreamError;
use xenmig_types::{DomainState, Domid, Gfn, Pfn};

use super::{
    caller::RestoreCaller,
    error::{DomainChange, RestoreError},
    events::{MissingPolicies, RestoreEvent, RestoreProgress},
    options::RestoreOptions,
};
use crate::watch::Watch;

/// How often the domain is looked at.
const DOMAIN_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// An empty, paused domain.
pub(super) struct Target<'a> {
    host: &'a dyn Hypervisor,
    domid: Domid,
    watch: RefCell<Watch<'a, dyn RestoreCaller + 'a>>,
    began: Moment,
    /// When the domain was last looked at.
    checked: Cell<Moment>,
    /// Why a wait for the stream was ended.
    halted: RefCell<Option<RestoreError>>,
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("domid", &self.domid).finish_non_exhaustive()
    }
}

impl<'a> Target<'a> {
    pub(super) fn new(
        host: &'a dyn Hypervisor,
        domid: Domid,
        options: &RestoreOptions,
        caller: &'a mut dyn RestoreCaller,
    ) -> Self {
        let watch = Watch::new(host, caller, options.progress_interval, options.stall_timeout);
        let began = watch.now();
        Self {
            host,
            domid,
            watch: RefCell::new(watch),
            began,
            checked: Cell::new(began),
            halted: RefCell::new(None),
        }
    }

    pub(super) const fn domid(&self) -> Domid {
        self.domid
    }

    /// Makes a call on the domain, and makes it again while the hypervisor says that it may succeed later.
    pub(super) fn call<T>(
        &self,
        mut call: impl FnMut(&dyn Hypervisor, Domid) -> Result<T, HypervisorError>,
    ) -> Result<T, RestoreError> {
        Ok(self.watch.borrow_mut().retry(|| call(self.host, self.domid))?)
    }

    /// Gives the domain a 4 KiB page at each pfn and returns their frames.
    pub(super) fn populate(
        &self,
        pfns: &[Pfn],
        progress: &mut RestoreProgress,
    ) -> Result<Vec<Gfn>, RestoreError> {
        if pfns.is_empty() {
            return Ok(Vec::new());
        }
        let (frames, given) = self.populate_extents(pfns, Extent::Page)?;
        if let Some(pfn) = pfns.get(given) {
            let (given, asked) = (given as u64, pfns.len() as u64);
            return Err(RestoreError::Populate {
                domid: self.domid,
                pfn: *pfn,
                given,
                asked,
                why: self.why_no_page(),
            });
        }
        progress.pages_populated += pfns.len() as u64;
        Ok(frames)
    }

    /// Returns why the domain was not given a page.
    fn why_no_page(&self) -> &'static str {
        match self.host.domain_info(self.domid) {
            Ok(info) if info.total_pages >= info.max_pages => "the domain's memory limit is reached",
            _ => "the host is out of memory, or refuses a page there",
        }
    }

    /// Asks for an extent at each of these pfns. Returns their frames, and how many of them, from the front, were given.
    pub(super) fn populate_extents(
        &self,
        firsts: &[Pfn],
        extent: Extent,
    ) -> Result<(Vec<Gfn>, usize), RestoreError> {
        let mut frames = Vec::new();
        let given = self.call(|host, domid| {
            frames = firsts.iter().map(|pfn| Gfn(pfn.0)).collect();
            host.populate(domid, &mut frames, extent)
        })?;
        Ok((frames, given))
    }

    /// Tells the caller that the static data is complete.
    pub(super) fn static_data_done(&self, missing: MissingPolicies) -> Result<(), RestoreError> {
        self.watch.borrow_mut().caller.static_data_done(missing).map_err(RestoreError::StaticData)
    }

    /// Tells the caller of an event.
    pub(super) fn observe(&self, event: &RestoreEvent) -> Result<(), RestoreError> {
        self.watch.borrow_mut().caller.observe(event).map_err(RestoreError::Observer)
    }

    /// Lets the caller interrupt the restore and hear of its progress, and looks at the domain, each if it is time.
    pub(super) fn attend(&self, progress: &RestoreProgress) -> Result<(), RestoreError> {
        let due = {
            let mut watch = self.watch.borrow_mut();
            watch.tick();
            watch.attend()?;
            watch.progress_due()
        };
        self.check_domain()?;
        if due { self.observe(&RestoreEvent::Progress(self.timed(progress))) } else { Ok(()) }
    }

    /// Returns progress with the time that has passed until the clock was last read.
    pub(super) fn timed(&self, progress: &RestoreProgress) -> RestoreProgress {
        RestoreProgress { elapsed: self.watch.borrow().now().since(self.began), ..progress.clone() }
    }

    /// Reads the clock.
    pub(super) fn tick(&self) {
        self.watch.borrow_mut().tick();
    }

    /// Called at least every 100 ms while the stream has nothing to read, of which `moved` bytes were read so far. Says
    /// whether to go on waiting, and keeps the reason if not.
    pub(super) fn keep_waiting(&self, moved: u64) -> bool {
        let waited = self.watch.borrow_mut().while_waiting(moved).map_err(RestoreError::from);
        match waited.and_then(|()| self.check_domain()) {
            Ok(()) => true,
            Err(reason) => {
                self.halted.replace(Some(reason));
                false
            }
        }
    }

    /// Fails if the domain is not as it was, which is looked at once a second.
    fn check_domain(&self) -> Result<(), RestoreError> {
        let now = self.watch.borrow().now();
        if now.since(self.checked.get()) < DOMAIN_CHECK_INTERVAL {
            return Ok(());
        }
        self.checked.set(now);
        self.change().map_or(Ok(()), |change| Err(RestoreError::Changed { domid: self.domid, change }))
    }

    /// Finds out what has happened to the domain. Only a hypervisor that says so counts.
    fn change(&self) -> Option<DomainChange> {
        match self.host.domain_info(self.domid) {
            Ok(info) => match info.state {
                DomainState::Paused => None,
                DomainState::Running => Some(DomainChange::Started),
                DomainState::Shutdown { .. } => Some(DomainChange::ShutDown),
                DomainState::Dying => Some(DomainChange::Destroyed),
            },
            Err(error) => error.is_gone().then_some(DomainChange::Destroyed),
        }
    }

    /// Returns the cause behind the error of a restore: a read that was ended on purpose, or a call that failed because the
    /// domain is no longer what it was.
    pub(super) fn explain(&self, error: RestoreError) -> RestoreError {
        match error {
            RestoreError::Stream(StreamError::Io { source, .. }) => {
                self.halted.take().unwrap_or(RestoreError::Transport(source))
            }
            error if error.is_of_the_domain() => match self.change() {
                Some(change) => RestoreError::Changed { domid: self.domid, change },
                None => error,
            },
            error => error,
        }
    }
}
