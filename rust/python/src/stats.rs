// SPDX-License-Identifier: GPL-3.0-or-later
//! What a policy and a progress callback are told: the engine's statistics, copied once per consult and turned into
//! Python numbers only where a field is read.

use std::time::Duration;

use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    types::{PyDict, PyType},
};
use xenmig_engine::{Phase, PrecopyStats, RoundStats};
use xenmig_types::PAGE_SHIFT;

use crate::{args::shown, field::Field, record::record};

/// The phases by name.
pub(crate) const PHASES: [(&str, Phase); 6] = [
    (Phase::BeforeRound.name(), Phase::BeforeRound),
    (Phase::Batch.name(), Phase::Batch),
    (Phase::AfterRound.name(), Phase::AfterRound),
    (Phase::Waiting.name(), Phase::Waiting),
    (Phase::StopAndCopy.name(), Phase::StopAndCopy),
    (Phase::Verify.name(), Phase::Verify),
];

record! {
    /// What is known at one consult. The first three fields are libxc's `struct precopy_stats`.
    PyPrecopyStats = "PrecopyStats" of PrecopyStats, || PrecopyStats::new(0, 0);
    /// Rounds sent so far.
    iteration: u32 => |stats| stats.iteration;
    /// Sum of the dirty counts of the rounds sent so far, in pages; holes count as well.
    total_written: u64 => |stats| stats.total_written;
    /// Pages that the coming round claims; ``None`` after a round and within it.
    dirty_count: Option<u64> => |stats| stats.dirty_count;
    /// When the question is asked: ``"before_round"``, ``"batch"``, ``"after_round"``, or ``"waiting"`` while the other
    /// end takes nothing. Progress is also reported in ``"stop_and_copy"`` and ``"verify"``, when the guest is suspended.
    phase: Phase => |stats| stats.phase;
    /// Size of the p2m in pages, holes included.
    p2m_size: u64 => |stats| stats.p2m_size;
    /// Pages of memory that the domain had when the save began.
    ram_pages: u64 => |stats| stats.ram_pages;
    /// Pages taken out of the dirty bitmap so far.
    pages_claimed: u64 => |stats| stats.pages_claimed;
    /// Pages whose contents were written so far, a page as often as it was written.
    pages_sent: u64 => |stats| stats.pages_sent;
    /// Pages left out so far because they were dirty again when their turn came.
    pages_skipped: u64 => |stats| stats.pages_skipped;
    /// Pages owed to the final pass because they could not be read when their turn came.
    pages_deferred: u64 => |stats| stats.pages_deferred;
    /// Pages of this round that are still to be sent.
    pages_remaining: u64 => |stats| stats.pages_remaining;
    /// Pages dirtied since the last CLEAN, as of the last PEEK; ``None`` if there was none in this round.
    pages_redirtied: Option<u64> => |stats| stats.pages_redirtied;
    /// Bytes written to the stream so far.
    bytes_sent: u64 => |stats| stats.bytes_sent;
    /// Seconds since the save began.
    elapsed_s: Duration => |stats| stats.elapsed;
    /// Seconds since the round began; 0 before it.
    round_elapsed_s: Duration => |stats| stats.round_elapsed;
    /// Bytes per second that the stream took lately; ``None`` before the first batch.
    send_rate_bytes_per_s: Option<f64> => |stats| stats.send_rate;
    /// Pages per second that the guest dirtied lately, each counted once a CLEAN; ``None`` before the first CLEAN or
    /// PEEK.
    dirty_rate_pages_per_s: Option<f64> => |stats| stats.dirty_rate;
    @derived {
        /// Pages that the final pass would have to send if the guest were suspended now: an upper bound, as a page may
        /// be both unsent and dirty again.
        pages_owed: u64 => |stats| stats.pages_owed();
        /// Seconds that ``pages_owed`` would take at the present send rate; ``None`` while there is no rate.
        expected_copy_s: Option<f64> => |stats| stats.expected_copy_s();
    }
    {
        /// Makes statistics by hand, for a test of a policy, or again from what ``to_dict`` gave.
        ///
        /// Each field may be given by its name. Counts and times are 0 by default, the phase is ``"before_round"``,
        /// all else is ``None``. ``pages_owed`` and ``expected_copy_s`` follow from the other fields: if they are given,
        /// they must agree.
        #[classmethod]
        #[pyo3(signature = (**fields))]
        fn example(class: &Bound<'_, PyType>, fields: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
            let usual = PrecopyStats { dirty_count: None, pages_remaining: 0, ..PrecopyStats::new(0, 0) };
            let all = Self::from(&usual).to_dict(class.py())?;
            for (name, value) in fields.into_iter().flatten() {
                all.set_item(name, value)?;
            }
            let claimed = Self::_from_dict(class, &all)?.source();
            check(&claimed)?;
            let made = Self::from(&claimed);
            if let Some(given) = fields {
                made.check_derived(given)?;
            }
            Ok(made)
        }
    }
}

impl PyPrecopyStats {
    /// Compares the derived fields that are given with what follows from the others.
    fn check_derived(&self, given: &Bound<'_, PyDict>) -> PyResult<()> {
        let made = self.to_dict(given.py())?;
        for name in Self::DERIVED {
            let (Some(given), Some(follows)) = (given.get_item(name)?, made.get_item(name)?) else {
                continue;
            };
            if !same(&given, &follows)? {
                return Err(PyValueError::new_err(format!(
                    "{name} is {}, but {follows} follows from the other fields: leave it out, or correct them",
                    shown(&given)
                )));
            }
        }
        Ok(())
    }
}

record! {
    /// What became of one round, or of a pass over the memory of the suspended guest.
    PyRoundStats = "RoundStats" of RoundStats;
    /// The round's number, from 0.
    iteration: u32 => |round| round.iteration;
    /// ``"before_round"`` for a round of the precopy, ``"stop_and_copy"`` for the final pass, ``"verify"`` for the
    /// pass that sends everything once more.
    phase: Phase => |round| round.phase;
    /// Pages that the dirty bitmap held for it, those that were never reached included.
    dirty_count: u64 => |round| round.dirty_count;
    /// Pages taken out of the bitmap.
    pages_claimed: u64 => |round| round.pages_claimed;
    /// Pages whose contents were written.
    pages_sent: u64 => |round| round.pages_sent;
    /// Pages left out because they were dirty again.
    pages_skipped: u64 => |round| round.pages_skipped;
    /// Pages newly owed to the final pass.
    pages_deferred: u64 => |round| round.pages_deferred;
    /// Bytes written to the stream.
    bytes_sent: u64 => |round| round.bytes_sent;
    /// How long it took, in seconds.
    elapsed_s: Duration => |round| round.elapsed;
}

/// Checks what the engine takes for granted.
fn check(stats: &PrecopyStats) -> PyResult<()> {
    if stats.ram_pages > u64::MAX >> PAGE_SHIFT {
        let message =
            format!("ram_pages: {} is too large: an address space has 2**52 pages", stats.ram_pages);
        return Err(PyValueError::new_err(message));
    }
    for (name, rate) in
        [("send_rate_bytes_per_s", stats.send_rate), ("dirty_rate_pages_per_s", stats.dirty_rate)]
    {
        if rate.is_some_and(f64::is_infinite) {
            return Err(PyValueError::new_err(format!("{name} is infinite: give a finite rate")));
        }
    }
    Ok(())
}

/// Says whether two numbers, or `None`s, are the same, but for rounding.
fn same(given: &Bound<'_, PyAny>, follows: &Bound<'_, PyAny>) -> PyResult<bool> {
    /// What is left of a number that was written with nine digits.
    const PRECISION: f64 = 1e-8;
    if given.eq(follows)? {
        return Ok(true);
    }
    let numbers = (given.extract::<f64>(), follows.extract::<f64>());
    Ok(matches!(numbers, (Ok(a), Ok(b)) if (a - b).abs() <= PRECISION * b.abs()))
}
