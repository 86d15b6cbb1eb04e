// SPDX-License-Identifier: GPL-3.0-or-later
//! A toolstack for the simulated host: it suspends and resumes, or fails to, as a test says, and writes down what it
//! was asked. The engine calls it; the tests read it.

#![allow(clippy::disallowed_methods, reason = "tests measure by the machine\'s clock how soon a save ends")]

use std::time::{Duration, Instant};

use xenmig_engine::{Caller, CallerError, Event, Interrupt, PrecopyStats};
use xenmig_sim::{Fault, SimDomain, Verb};

use super::Mine;

/// What comes of being asked to suspend the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Suspends {
    /// It is suspended.
    #[default]
    Works,
    /// An error, and the guest runs.
    Refuses,
    /// No error, and the guest runs all the same.
    Pretends,
    /// An error, and the guest is suspended all the same.
    WorksThenFails,
    /// A panic, with the guest running.
    Panics,
}

/// What comes of being asked to resume it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Resumes {
    /// It runs again.
    #[default]
    Works,
    /// That is another part's task.
    Cannot,
    /// An error.
    Fails,
}

/// What the toolstack was asked, in order. Progress and interrupts are counted instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Suspend {
        /// Type queries made before it: as many batches.
        batches: u64,
        /// CLEANs made before it.
        cleans: u64,
    },
    Resume,
    DeviceModel(bool),
}

/// The toolstack of one domain.
#[derive(Debug)]
pub(crate) struct Toolstack<'a> {
    pub(crate) domain: &'a SimDomain,
    pub(crate) suspends: Suspends,
    pub(crate) resumes: Resumes,
    /// The device model refuses to have its log-dirty mode set to this.
    pub(crate) device_model_refuses: Option<bool>,
    /// The progress callback fails at this call, counted from 0.
    pub(crate) progress_fails: Option<usize>,
    /// The domain's faults are gone when it is to be suspended.
    pub(crate) heals: bool,
    /// Faults that are there from then on.
    pub(crate) breaks: Vec<Fault>,
    /// The save is interrupted after this time.
    pub(crate) interrupts_after: Option<Duration>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) progress: Vec<PrecopyStats>,
    /// Every event, as its debug format has it.
    pub(crate) events: Vec<String>,
    pub(crate) interrupt_checks: Vec<Instant>,
    pub(crate) began: Instant,
}

impl<'a> Toolstack<'a> {
    pub(crate) fn new(domain: &'a SimDomain) -> Self {
        Self {
            domain,
            suspends: Suspends::default(),
            resumes: Resumes::default(),
            device_model_refuses: None,
            progress_fails: None,
            heals: false,
            breaks: Vec::new(),
            interrupts_after: None,
            asked: Vec::new(),
            progress: Vec::new(),
            events: Vec::new(),
            interrupt_checks: Vec::new(),
            began: Instant::now(),
        }
    }

    /// Says whether the guest was to be suspended at any time.
    pub(crate) fn was_asked_to_suspend(&self) -> bool {
        self.asked.iter().any(|asked| matches!(asked, Asked::Suspend { .. }))
    }
}

impl Caller for Toolstack<'_> {
    fn suspend(&mut self) -> Result<(), CallerError> {
        let counters = self.domain.counters();
        let (batches, cleans) = (counters.calls(Verb::PageTypes), counters.calls(Verb::Clean));
        self.asked.push(Asked::Suspend { batches, cleans });
        if self.heals {
            self.domain.clear_faults();
        }
        self.breaks.iter().for_each(|fault| self.domain.inject(*fault));
        match self.suspends {
            Suspends::Works => Ok(self.domain.suspend()?),
            Suspends::Refuses => Err(Mine("suspend").into()),
            Suspends::Pretends => Ok(()),
            Suspends::WorksThenFails => {
                self.domain.suspend()?;
                Err(Mine("suspend").into())
            }
            Suspends::Panics => panic!("a panic in suspend"),
        }
    }

    fn resume(&mut self) -> Result<bool, CallerError> {
        self.asked.push(Asked::Resume);
        match self.resumes {
            Resumes::Works => {
                self.domain.resume()?;
                Ok(true)
            }
            Resumes::Cannot => Ok(false),
            Resumes::Fails => Err(Mine("resume").into()),
        }
    }

    fn device_model_logdirty(&mut self, on: bool) -> Result<(), CallerError> {
        self.asked.push(Asked::DeviceModel(on));
        if self.device_model_refuses == Some(on) { Err(Mine("device model").into()) } else { Ok(()) }
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), CallerError> {
        self.events.push(format!("{event:?}"));
        let Event::Progress(stats) = event else { return Ok(()) };
        self.progress.push((*stats).clone());
        let number = self.progress.len() - 1;
        if self.progress_fails == Some(number) { Err(Mine("progress").into()) } else { Ok(()) }
    }
}

impl Interrupt for Toolstack<'_> {
    fn interrupted(&mut self) -> Result<(), CallerError> {
        self.interrupt_checks.push(Instant::now());
        match self.interrupts_after {
            Some(time) if self.began.elapsed() >= time => Err(Mine("interrupt").into()),
            _ => Ok(()),
        }
    }
}
