// SPDX-License-Identifier: GPL-3.0-or-later
//! Policies for the tests, which write down every question and their answer.

use xenmig_engine::{CallerError, Decision, Policy, PrecopyStats, Verdict};

/// One consult.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Consult {
    pub(crate) stats: PrecopyStats,
    pub(crate) decision: Decision,
}

/// A policy made of a function of the number of the consult, from 0, and the statistics.
pub(crate) struct Recorder<F> {
    answer: F,
    pub(crate) consults: Vec<Consult>,
}

impl<F: FnMut(usize, &PrecopyStats) -> Decision> Recorder<F> {
    pub(crate) fn new(answer: F) -> Self {
        Self { answer, consults: Vec::new() }
    }
}

impl<F: FnMut(usize, &PrecopyStats) -> Decision> Policy for Recorder<F> {
    fn decide(&mut self, stats: &PrecopyStats) -> Result<Verdict, CallerError> {
        let last = self.consults.last().map_or(Decision::Continue, |consult| consult.decision);
        assert_eq!(last, Decision::Continue, "asked again behind this answer");
        let decision = (self.answer)(self.consults.len(), stats);
        self.consults.push(Consult { stats: stats.clone(), decision });
        Ok(Verdict { decision, reason: Some(format!("consult {}", self.consults.len() - 1)) })
    }
}

/// Goes on until consult `last`, and gives another answer there.
pub(crate) fn at_consult(
    last: usize,
    answer: Decision,
) -> Recorder<impl FnMut(usize, &PrecopyStats) -> Decision> {
    Recorder::new(move |number, _| if number == last { answer } else { Decision::Continue })
}

/// The rule of libxc, written down a second time.
pub(crate) fn libxc_rule(iteration: u32, dirty_count: Option<u64>) -> Decision {
    match dirty_count {
        Some(0..50) => Decision::StopAndCopy,
        _ if iteration > 4 => Decision::StopAndCopy,
        _ => Decision::Continue,
    }
}
