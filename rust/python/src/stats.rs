// SPDX-License-Identifier: GPL-3.0-or-later
//! What a policy and a progress callback are told: the engine's statistics, copied once per consult and turned into
//! Python numbers only where a field is read.

use pyo3::{IntoPyObjectExt, exceptions::PyValueError, prelude::*, types::PyDict};
use xenmig_engine::{Phase, PrecopyStats, RoundStats};
use xenmig_types::PAGE_SHIFT;

use crate::{
    args::{self, Count, count},
    record::record,
};

const PHASES: [(&str, Phase); 5] = [
    (Phase::BeforeRound.name(), Phase::BeforeRound),
    (Phase::Batch.name(), Phase::Batch),
    (Phase::AfterRound.name(), Phase::AfterRound),
    (Phase::StopAndCopy.name(), Phase::StopAndCopy),
    (Phase::Verify.name(), Phase::Verify),
];

/// What is known at one consult. The first three fields are libxc's `struct precopy_stats`.
#[pyclass(frozen, module = "xenmig._native", name = "PrecopyStats")]
#[derive(Debug)]
pub(crate) struct PyPrecopyStats(pub(crate) PrecopyStats);

record! {
    PyPrecopyStats;
    /// Rounds sent so far.
    iteration: u32 => |stats| stats.iteration;
    /// Sum of the dirty counts of the rounds sent so far, in pages; holes count as well.
    total_written: u64 => |stats| stats.total_written;
    /// Pages that the coming round claims; ``None`` after a round and within it.
    dirty_count: Option<u64> => |stats| stats.dirty_count;
    /// When the question is asked: ``"before_round"``, ``"batch"`` or ``"after_round"``. Progress is also reported
    /// in ``"stop_and_copy"`` and ``"verify"``, when the guest is suspended.
    phase: &'static str => |stats| stats.phase.name();
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
    /// Pages that the final pass would have to send if the guest were suspended now: an upper bound, as a page may
    /// be both unsent and dirty again.
    pages_owed: u64 => |stats| stats.pages_owed();
    /// Bytes written to the stream so far.
    bytes_sent: u64 => |stats| stats.bytes_sent;
    /// Seconds since the save began.
    elapsed_s: f64 => |stats| stats.elapsed.as_secs_f64();
    /// Seconds since the round began; 0 before it.
    round_elapsed_s: f64 => |stats| stats.round_elapsed.as_secs_f64();
    /// Bytes per second that the stream took lately; ``None`` before the first batch.
    send_rate_bytes_per_s: Option<f64> => |stats| stats.send_rate;
    /// Pages per second that the guest dirtied lately, each counted once a CLEAN; ``None`` before the first CLEAN or
    /// PEEK.
    dirty_rate_pages_per_s: Option<f64> => |stats| stats.dirty_rate;
    /// Seconds that ``pages_owed`` would take at the present send rate; ``None`` while there is no rate.
    expected_copy_s: Option<f64> => |stats| stats.expected_copy_s();
    {
        /// Makes statistics by hand, for a test of a policy.
        #[staticmethod]
        #[pyo3(signature = (
            *, iteration = 0, total_written = 0, dirty_count = None, phase = "before_round",
            p2m_size = 0, ram_pages = 0, pages_claimed = 0, pages_sent = 0,
            pages_skipped = 0, pages_deferred = 0, pages_remaining = 0, pages_redirtied = None,
            bytes_sent = 0, elapsed_s = 0.0, round_elapsed_s = 0.0, send_rate_bytes_per_s = None,
            dirty_rate_pages_per_s = None,
        ))]
        #[expect(clippy::too_many_arguments, reason = "one for each field")]
        fn example(
            #[pyo3(from_py_with = count)] iteration: u64,
            #[pyo3(from_py_with = count)] total_written: u64,
            dirty_count: Option<Count>,
            phase: &str,
            #[pyo3(from_py_with = count)] p2m_size: u64,
            #[pyo3(from_py_with = count)] ram_pages: u64,
            #[pyo3(from_py_with = count)] pages_claimed: u64,
            #[pyo3(from_py_with = count)] pages_sent: u64,
            #[pyo3(from_py_with = count)] pages_skipped: u64,
            #[pyo3(from_py_with = count)] pages_deferred: u64,
            #[pyo3(from_py_with = count)] pages_remaining: u64,
            pages_redirtied: Option<Count>,
            #[pyo3(from_py_with = count)] bytes_sent: u64,
            elapsed_s: f64,
            round_elapsed_s: f64,
            send_rate_bytes_per_s: Option<f64>,
            dirty_rate_pages_per_s: Option<f64>,
        ) -> PyResult<Self> {
            Ok(Self(PrecopyStats {
                iteration: rounds("iteration", iteration)?,
                total_written,
                dirty_count: dirty_count.map(|count| count.0),
                phase: args::choice("phase", phase, &PHASES).map_err(PyValueError::new_err)?,
                p2m_size,
                ram_pages: memory("ram_pages", ram_pages)?,
                pages_claimed,
                pages_sent,
                pages_skipped,
                pages_deferred,
                pages_remaining,
                pages_redirtied: pages_redirtied.map(|count| count.0),
                bytes_sent,
                elapsed: args::seconds("elapsed_s", elapsed_s)?,
                round_elapsed: args::seconds("round_elapsed_s", round_elapsed_s)?,
                send_rate: rate("send_rate_bytes_per_s", send_rate_bytes_per_s)?,
                dirty_rate: rate("dirty_rate_pages_per_s", dirty_rate_pages_per_s)?,
            }))
        }
    }
}

/// What became of one round, or of a pass over the memory of the suspended guest.
#[pyclass(frozen, module = "xenmig._native", name = "RoundStats")]
#[derive(Debug)]
pub(crate) struct PyRoundStats(pub(crate) RoundStats);

record! {
    PyRoundStats;
    /// The round's number, from 0.
    iteration: u32 => |round| round.iteration;
    /// ``"before_round"`` for a round of the precopy, ``"stop_and_copy"`` for the final pass, ``"verify"`` for the
    /// pass that sends everything once more.
    phase: &'static str => |round| round.phase.name();
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
    elapsed_s: f64 => |round| round.elapsed.as_secs_f64();
}

/// Takes a size of memory in pages, whose bytes must be countable.
fn memory(name: &str, pages: u64) -> PyResult<u64> {
    if pages <= u64::MAX >> PAGE_SHIFT {
        Ok(pages)
    } else {
        Err(PyValueError::new_err(format!("{name} is {pages}: an address space has 2**52 pages")))
    }
}

fn rounds(name: &str, rounds: u64) -> PyResult<u32> {
    u32::try_from(rounds)
        .map_err(|_| PyValueError::new_err(format!("{name} is {rounds}: give 0 to 2**32 - 1")))
}

fn rate(name: &str, per_second: Option<f64>) -> PyResult<Option<f64>> {
    match per_second {
        Some(rate) if !(0.0..f64::INFINITY).contains(&rate) => {
            Err(PyValueError::new_err(format!("{name} is {rate:?}: a rate is 0 or more, and finite")))
        }
        rate => Ok(rate),
    }
}
