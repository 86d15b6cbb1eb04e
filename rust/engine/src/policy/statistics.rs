// SPDX-License-Identifier: GPL-3.0-or-later
//! What a policy is told, and what a finished round comes to.

use std::time::Duration;

use xenmig_types::PAGE_SIZE_U64;

use super::decision::Phase;

/// What is known at one consult. The first three fields are libxc's `struct precopy_stats`.
#[derive(Clone, Debug, PartialEq)]
pub struct PrecopyStats {
    /// Rounds sent so far.
    pub iteration: u32,
    /// Sum of the dirty counts of the rounds sent so far, in pages; holes count as well.
    pub total_written: u64,
    /// Pages that the coming round claims; `None` after a round and within it.
    pub dirty_count: Option<u64>,
    /// At which point the question is asked.
    pub phase: Phase,
    /// Size of the p2m in pages, holes included.
    pub p2m_size: u64,
    /// Pages of memory that the domain had when the save began.
    pub ram_pages: u64,
    /// Pages taken out of the dirty bitmap so far.
    pub pages_claimed: u64,
    /// Pages whose contents were written so far, a page as often as it was written.
    pub pages_sent: u64,
    /// Pages left out so far because they were dirty again when their turn came.
    pub pages_skipped: u64,
    /// Pages owed to the final pass because they could not be read now.
    pub pages_deferred: u64,
    /// Pages of this round that are still to be sent.
    pub pages_remaining: u64,
    /// Pages dirtied since the last CLEAN, as of the last PEEK; `None` if there was none in this round.
    pub pages_redirtied: Option<u64>,
    /// Bytes written to the stream so far.
    pub bytes_sent: u64,
    /// Time since the save began.
    pub elapsed: Duration,
    /// Time since the round began; zero before it.
    pub round_elapsed: Duration,
    /// Bytes per second that the stream took lately; `None` before the first batch.
    pub send_rate: Option<f64>,
    /// Pages per second that the guest dirtied lately, each counted once a CLEAN; `None` before the first CLEAN or
    /// PEEK.
    pub dirty_rate: Option<f64>,
}

impl PrecopyStats {
    /// Returns what is known before anything was done about a domain with `ram_pages` pages of memory in a p2m of
    /// `p2m_size` pages.
    #[must_use]
    pub const fn new(p2m_size: u64, ram_pages: u64) -> Self {
        Self {
            iteration: 0,
            total_written: 0,
            dirty_count: Some(p2m_size),
            phase: Phase::BeforeRound,
            p2m_size,
            ram_pages,
            pages_claimed: 0,
            pages_sent: 0,
            pages_skipped: 0,
            pages_deferred: 0,
            pages_remaining: p2m_size,
            pages_redirtied: None,
            bytes_sent: 0,
            elapsed: Duration::ZERO,
            round_elapsed: Duration::ZERO,
            send_rate: None,
            dirty_rate: None,
        }
    }

    /// Returns how many pages the final pass would have to send if the guest were suspended now: an estimate. What is
    /// dirty again is taken from the last PEEK or from the dirty rate, whichever says more: the first is up to 50 ms
    /// old, the second counts a page that is written often only once for each CLEAN. A page may be both unsent and dirty
    /// again. Where the first round claims holes as well, what it has left is taken from the memory's size.
    #[must_use]
    pub fn pages_owed(&self) -> u64 {
        let estimate = self.dirty_rate.unwrap_or(0.0) * self.round_elapsed.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as saturates")]
        let redirtied = self.pages_redirtied.unwrap_or(0).max(estimate as u64);
        let remaining = match self.iteration {
            0 => self.pages_remaining.min(self.ram_pages.saturating_sub(self.pages_sent)),
            _ => self.pages_remaining,
        };
        remaining.saturating_add(redirtied).saturating_add(self.pages_deferred).min(self.ram_pages)
    }

    /// Returns how long the final pass's pages would take at the present send rate; `None` while there is no rate.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn expected_copy_s(&self) -> Option<f64> {
        let rate = self.send_rate.filter(|rate| *rate > 0.0)?;
        Some((self.pages_owed() * PAGE_SIZE_U64) as f64 / rate)
    }
}

/// What became of one round, or of the final pass.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundStats {
    /// The round's number, from 0.
    pub iteration: u32,
    /// [`Phase::BeforeRound`] for a round of the precopy, else the pass it was.
    pub phase: Phase,
    /// Pages that the dirty bitmap held for it, those of it that were never reached included.
    pub dirty_count: u64,
    /// Pages taken out of the bitmap.
    pub pages_claimed: u64,
    /// Pages whose contents were written.
    pub pages_sent: u64,
    /// Pages left out because they were dirty again.
    pub pages_skipped: u64,
    /// Pages newly owed to the final pass.
    pub pages_deferred: u64,
    /// Bytes written to the stream.
    pub bytes_sent: u64,
    /// How long it took.
    pub elapsed: Duration,
}
