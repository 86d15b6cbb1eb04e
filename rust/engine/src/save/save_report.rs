// SPDX-License-Identifier: GPL-3.0-or-later
//! What a save comes to, put together from its events.

use std::time::Duration;

use super::save_events::{Event, Stage};
use crate::{
    policy::decision::Phase,
    policy::{
        decision::Verdict,
        statistics::{PrecopyStats, RoundStats},
    },
};

/// Where the time went in which the guest did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Downtime {
    /// From the call of [`Caller::suspend`](crate::Caller::suspend) to the last byte of the stream. What the receiver
    /// still does with these bytes is not in it.
    pub total: Duration,
    /// Until the guest was suspended.
    pub suspend: Duration,
    /// Fetching the last dirty bitmap.
    pub clean: Duration,
    /// Sending pages.
    pub pages: Duration,
    /// Fetching and sending the state that is not memory.
    pub state: Duration,
}

/// A save that succeeded.
#[derive(Clone, Debug)]
pub struct SaveReport {
    /// Size of the p2m in pages.
    pub p2m_size: u64,
    /// Rounds sent while the guest ran.
    pub rounds: u32,
    /// Every round, and the final passes.
    pub passes: Vec<RoundStats>,
    /// Pages taken out of dirty bitmaps.
    pub pages_claimed: u64,
    /// Pages whose contents were written, a page as often as it was written.
    pub pages_sent: u64,
    /// Pages left out because they were dirty again.
    pub pages_skipped: u64,
    /// Pages that were owed to the final pass.
    pub pages_deferred: u64,
    /// Bytes of the stream.
    pub bytes_sent: u64,
    /// How often the policy was asked.
    pub consults: u64,
    /// What ended the precopy; `None` for a save that was not live.
    pub verdict: Option<Verdict>,
    /// From the call to the last byte.
    pub elapsed: Duration,
    /// The time in which the guest did not run.
    pub downtime: Downtime,
    /// What went wrong without harm: log-dirty mode that could not be switched off, for one.
    pub warnings: Vec<String>,
}

/// What the events of a save have told so far.
#[derive(Debug, Default)]
pub(crate) struct Record {
    passes: Vec<RoundStats>,
    consults: u64,
    /// The last answer that ended the precopy.
    verdict: Option<Verdict>,
    /// When each stage began, since the save did.
    stages: Vec<(Stage, Duration)>,
}

impl Record {
    /// Enters an event.
    pub(crate) fn enter(&mut self, event: &Event<'_>) {
        match event {
            Event::Stage { stage, elapsed } => self.stages.push((*stage, *elapsed)),
            Event::Round(round) => self.passes.push((*round).clone()),
            Event::Consult { verdict, .. } => {
                self.consults += 1;
                if verdict.decision != crate::Decision::Continue {
                    self.verdict = Some((*verdict).clone());
                }
            }
            Event::Progress(_) => {}
        }
    }

    /// Puts the report of a save together that has come to [`Stage::Complete`]; `totals` are its last statistics.
    pub(crate) fn report(self, totals: &PrecopyStats) -> SaveReport {
        let live = self.passes.iter().filter(|pass| pass.phase == Phase::BeforeRound).count();
        SaveReport {
            p2m_size: totals.p2m_size,
            rounds: u32::try_from(live).unwrap_or(u32::MAX),
            pages_claimed: totals.pages_claimed,
            pages_sent: totals.pages_sent,
            pages_skipped: totals.pages_skipped,
            pages_deferred: totals.pages_deferred,
            bytes_sent: totals.bytes_sent,
            consults: self.consults,
            downtime: self.downtime(),
            passes: self.passes,
            verdict: self.verdict,
            elapsed: totals.elapsed,
            warnings: Vec::new(),
        }
    }

    fn downtime(&self) -> Downtime {
        let began = |wanted| self.stages.iter().find(|(stage, _)| *stage == wanted).map(|(_, at)| *at);
        // From one stage to the next that there was.
        let between = |from, to: &[Stage]| {
            let end = to.iter().find_map(|stage| began(*stage));
            began(from).zip(end).map_or(Duration::ZERO, |(from, to)| to.saturating_sub(from))
        };
        Downtime {
            total: between(Stage::Suspend, &[Stage::Complete]),
            suspend: between(Stage::Suspend, &[Stage::LastClean, Stage::StopAndCopy]),
            clean: between(Stage::LastClean, &[Stage::StopAndCopy]),
            pages: between(Stage::StopAndCopy, &[Stage::State]),
            state: between(Stage::State, &[Stage::Complete]),
        }
    }
}
