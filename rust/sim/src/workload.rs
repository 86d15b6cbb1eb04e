// SPDX-License-Identifier: GPL-3.0-or-later
//! What a simulated domain does with its memory, as the user says it ([`Workload`]) and as its vCPUs follow it
//! (`Plan`).

use std::time::Duration;

use crate::{error::SimError, script::Script};

/// Which pages a domain's vCPUs write, and how often. Rates are sums over all vCPUs, in pages per second.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Workload {
    /// Nothing is written.
    #[default]
    Idle,
    /// Every page is as likely to be written as any other.
    Uniform {
        /// Pages written per second.
        pages_per_s: f64,
    },
    /// A small set of pages is written often, the rest seldom.
    HotCold {
        /// Size of the hot set: the first pages of RAM.
        hot_pages: u64,
        /// Hot pages written per second.
        hot_pages_per_s: f64,
        /// Cold pages written per second.
        cold_pages_per_s: f64,
    },
    /// One workload after the other, then again from the first. A phase can be idle, uniform or hot/cold.
    Phased(Vec<Phase>),
    /// Pages are written exactly where the script says, by the thread that makes the call.
    Scripted(Script),
}

/// One phase of [`Workload::Phased`].
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// How long it lasts, in seconds of running.
    pub seconds: f64,
    /// What is written meanwhile.
    pub workload: Workload,
}

impl Workload {
    /// Checks the numbers against a domain of `ram_pages` pages.
    pub(super) fn validate(&self, ram_pages: u64) -> Result<(), SimError> {
        match self {
            Self::Idle | Self::Scripted(_) => Ok(()),
            Self::Uniform { pages_per_s } => check_rate("pages_per_s", *pages_per_s),
            Self::HotCold { hot_pages, hot_pages_per_s, cold_pages_per_s } => {
                check_rate("hot_pages_per_s", *hot_pages_per_s)?;
                check_rate("cold_pages_per_s", *cold_pages_per_s)?;
                if (1..=ram_pages).contains(hot_pages) {
                    Ok(())
                } else {
                    Err(SimError::invalid(format!(
                        "hot_pages is {hot_pages}: give 1 to {ram_pages}, the pages of this domain"
                    )))
                }
            }
            Self::Phased(phases) if phases.is_empty() => {
                Err(SimError::invalid("a phased workload needs at least one phase"))
            }
            Self::Phased(phases) => phases.iter().try_for_each(|phase| phase.validate(ram_pages)),
        }
    }

    /// Says whether vCPU threads are needed for it.
    pub(super) fn needs_threads(&self) -> bool {
        match self {
            Self::Idle | Self::Scripted(_) => false,
            Self::Uniform { pages_per_s } => *pages_per_s > 0.0,
            Self::HotCold { hot_pages_per_s, cold_pages_per_s, .. } => {
                hot_pages_per_s + cold_pages_per_s > 0.0
            }
            Self::Phased(phases) => phases.iter().any(|phase| phase.workload.needs_threads()),
        }
    }

    fn streams(&self, ram_pages: u64) -> Vec<WriteStream> {
        match self {
            Self::Idle | Self::Scripted(_) | Self::Phased(_) => Vec::new(),
            Self::Uniform { pages_per_s } => {
                vec![WriteStream { first: 0, pages: ram_pages, pages_per_s: *pages_per_s }]
            }
            Self::HotCold { hot_pages, hot_pages_per_s, cold_pages_per_s } => {
                let cold_pages = ram_pages.saturating_sub(*hot_pages);
                vec![
                    WriteStream { first: 0, pages: *hot_pages, pages_per_s: *hot_pages_per_s },
                    WriteStream { first: *hot_pages, pages: cold_pages, pages_per_s: *cold_pages_per_s },
                ]
            }
        }
    }
}

impl Phase {
    fn validate(&self, ram_pages: u64) -> Result<(), SimError> {
        // A shorter phase than a vCPU's slice would be skipped; a longer one than years is a mistake.
        if !(0.001..=1e9).contains(&self.seconds) {
            let seconds = self.seconds;
            return Err(SimError::invalid(format!("a phase of {seconds} s: give 0.001 s or more")));
        }
        if matches!(self.workload, Workload::Phased(_) | Workload::Scripted(_)) {
            return Err(SimError::invalid("a phase must be idle, uniform or hot/cold"));
        }
        self.workload.validate(ram_pages)
    }
}

fn check_rate(name: &str, pages_per_s: f64) -> Result<(), SimError> {
    if (0.0..=1e9).contains(&pages_per_s) {
        Ok(())
    } else {
        Err(SimError::invalid(format!("{name} is {pages_per_s}: give 0 to 1e9 pages per second")))
    }
}

/// A stream of writes to random pages of one part of RAM, counted in RAM pages from `first` on.
#[derive(Clone, Debug)]
pub(super) struct WriteStream {
    pub(super) first: u64,
    pub(super) pages: u64,
    pub(super) pages_per_s: f64,
}

/// A workload as a vCPU follows it.
#[derive(Debug)]
pub(super) struct Plan {
    phases: Vec<(Duration, Vec<WriteStream>)>,
    cycle: Duration,
}

impl Plan {
    /// Makes the plan of a valid workload.
    pub(super) fn new(workload: &Workload, ram_pages: u64) -> Self {
        let phases: Vec<_> = match workload {
            Workload::Phased(phases) => phases
                .iter()
                .map(|phase| (Duration::from_secs_f64(phase.seconds), phase.workload.streams(ram_pages)))
                .collect(),
            other => vec![(Duration::MAX, other.streams(ram_pages))],
        };
        let cycle = phases.iter().fold(Duration::ZERO, |sum, (length, _)| sum.saturating_add(*length));
        Self { phases, cycle }
    }

    /// Returns what is written after `running` time of running, and for how long that lasts.
    pub(super) fn at(&self, running: Duration) -> (&[WriteStream], Duration) {
        let cycle_ns = self.cycle.as_nanos().max(1);
        let mut at_ns = running.as_nanos() % cycle_ns;
        for (length, streams) in &self.phases {
            if let Some(left_ns) = length.as_nanos().checked_sub(at_ns).filter(|left| *left > 0) {
                let left = Duration::from_nanos(u64::try_from(left_ns).unwrap_or(u64::MAX));
                return (streams, left);
            }
            at_ns -= length.as_nanos();
        }
        (&[], Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uniform(pages_per_s: f64) -> Workload {
        Workload::Uniform { pages_per_s }
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        for rate in [f64::NAN, -1.0, f64::INFINITY, f64::NEG_INFINITY, 1e10] {
            assert!(uniform(rate).validate(10).is_err(), "{rate}");
            let hot = Workload::HotCold { hot_pages: 1, hot_pages_per_s: rate, cold_pages_per_s: 0.0 };
            assert!(hot.validate(10).is_err(), "{rate}");
            let phase = Phase { seconds: rate, workload: Workload::Idle };
            assert!(Workload::Phased(vec![phase]).validate(10).is_err(), "{rate}");
        }
        for hot_pages in [0, 11] {
            let hot = Workload::HotCold { hot_pages, hot_pages_per_s: 1.0, cold_pages_per_s: 0.0 };
            assert!(hot.validate(10).is_err());
        }
        assert!(Workload::Phased(Vec::new()).validate(10).is_err());
        let nested = Phase { seconds: 1.0, workload: Workload::Phased(Vec::new()) };
        assert!(Workload::Phased(vec![nested]).validate(10).is_err());
    }

    #[test]
    fn phases_follow_each_other_and_begin_again() {
        let phases = [(1.0, 10.0), (2.0, 20.0)];
        let workload = Workload::Phased(
            phases.map(|(seconds, rate)| Phase { seconds, workload: uniform(rate) }).to_vec(),
        );
        workload.validate(100).unwrap();
        let plan = Plan::new(&workload, 100);
        for (at_ms, rate, left_ms) in
            [(0, 10.0, 1000), (999, 10.0, 1), (1000, 20.0, 2000), (2999, 20.0, 1), (3000, 10.0, 1000)]
        {
            let (streams, left) = plan.at(Duration::from_millis(at_ms));
            assert_eq!((streams[0].pages_per_s, left), (rate, Duration::from_millis(left_ms)), "{at_ms} ms");
        }
    }
}
