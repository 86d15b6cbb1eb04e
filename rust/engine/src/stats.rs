// SPDX-License-Identifier: GPL-3.0-or-later
//! What a policy is told, and the ledger that it is read from.

use std::time::{Duration, Instant};

use xenmig_types::PAGE_SIZE_U64;

use crate::Phase;

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
    /// dirty again is taken from the last PEEK or from the dirty rate, whichever says more; the first is up to 50 ms
    /// old, the second counts a page that is written often only once for each CLEAN. A page may be both unsent and dirty
    /// again. The first round claims holes as well, so what it has left is taken from the memory's size.
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

/// A rate over the last second or so: each new sample takes weight from the older ones.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    amount: f64,
    seconds: f64,
}

impl Rate {
    const WINDOW_S: f64 = 1.0;

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn add(&mut self, amount: u64, time: Duration) {
        let seconds = time.as_secs_f64();
        let keep = (-seconds / Self::WINDOW_S).exp();
        self.amount = self.amount.mul_add(keep, amount as f64);
        self.seconds = self.seconds.mul_add(keep, seconds);
    }

    pub(crate) fn per_second(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.amount / self.seconds)
    }
}

/// The running account of a save. Every number of a [`PrecopyStats`], a [`RoundStats`] and of the report is read
/// from here.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) now: PrecopyStats,
    pub(crate) rounds: Vec<RoundStats>,
    pub(crate) consults: u64,
    began: Instant,
    round_began: Option<Instant>,
    bytes_before_round: u64,
    /// Since when the hypervisor's dirty bitmap has been collecting.
    cleaned: Instant,
    sending: Rate,
}

impl Ledger {
    pub(crate) fn new(p2m_size: u64, ram_pages: u64) -> Self {
        let now = Instant::now();
        Self {
            now: PrecopyStats::new(p2m_size, ram_pages),
            rounds: Vec::new(),
            consults: 0,
            began: now,
            round_began: None,
            bytes_before_round: 0,
            cleaned: now,
            sending: Rate::default(),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Opens the account of a round, or of the final pass, that claims `dirty_count` pages.
    pub(crate) fn begin_round(&mut self, phase: Phase, dirty_count: u64) {
        self.now.pages_remaining = dirty_count;
        self.now.dirty_count = None;
        self.bytes_before_round = self.now.bytes_sent;
        self.round_began = Some(Instant::now());
        self.rounds.push(RoundStats {
            iteration: self.now.iteration,
            phase,
            dirty_count,
            pages_claimed: 0,
            pages_sent: 0,
            pages_skipped: 0,
            pages_deferred: 0,
            bytes_sent: 0,
            elapsed: Duration::ZERO,
        });
    }

    /// Notes that there is nothing to send in this round; it has no account.
    pub(crate) fn skip_round(&mut self) {
        self.bytes_before_round = self.now.bytes_sent;
    }

    /// Says whether the last round sent nothing at all.
    pub(crate) const fn sent_nothing(&self) -> bool {
        self.now.bytes_sent == self.bytes_before_round
    }

    /// Enters one batch. `claimed` pages left the bitmap, `deferred` of them are newly owed.
    pub(crate) fn enter(&mut self, batch: &Sent, time: Duration) {
        let now = &mut self.now;
        now.pages_claimed += batch.claimed;
        now.pages_sent += batch.sent;
        now.pages_skipped += batch.skipped;
        now.pages_deferred += batch.deferred;
        now.bytes_sent += batch.bytes;
        now.pages_remaining = now.pages_remaining.saturating_sub(batch.claimed);
        if batch.bytes > 0 {
            self.sending.add(batch.bytes, time);
        }
        if let Some(round) = self.rounds.last_mut() {
            round.pages_claimed += batch.claimed;
            round.pages_sent += batch.sent;
            round.pages_skipped += batch.skipped;
            round.pages_deferred += batch.deferred;
            round.bytes_sent += batch.bytes;
        }
    }

    /// Enters pages that the policy's STOP left to the final pass.
    pub(crate) fn defer(&mut self, pages: u64) {
        self.now.pages_deferred += pages;
        if let Some(round) = self.rounds.last_mut().filter(|_| self.round_began.is_some()) {
            round.pages_deferred += pages;
        }
    }

    /// Closes the account of a round.
    pub(crate) fn end_round(&mut self) {
        if let (Some(round), Some(began)) = (self.rounds.last_mut(), self.round_began.take()) {
            round.elapsed = began.elapsed();
            self.now.round_elapsed = round.elapsed;
        }
    }

    /// Enters what a CLEAN brought.
    pub(crate) fn cleaned(&mut self, dirty_count: u64, at: Instant) {
        self.now.dirty_rate = rate(dirty_count, at.duration_since(self.cleaned));
        self.now.dirty_count = Some(dirty_count);
        self.now.pages_remaining = dirty_count;
        self.now.pages_redirtied = None;
        self.now.round_elapsed = Duration::ZERO;
        self.cleaned = at;
    }

    /// Returns how many rounds were sent, in whole or in part, while the guest ran.
    pub(crate) fn live_rounds(&self) -> u32 {
        let live = self.rounds.iter().filter(|round| round.phase == Phase::BeforeRound).count();
        u32::try_from(live).unwrap_or(u32::MAX)
    }

    /// Returns how long ago the last CLEAN was.
    pub(crate) fn cleaned_ago(&self) -> Duration {
        self.cleaned.elapsed()
    }

    /// Enters what a PEEK counted.
    pub(crate) fn peeked(&mut self, dirty_count: u64) {
        self.now.pages_redirtied = Some(dirty_count);
        self.now.dirty_rate = rate(dirty_count, self.cleaned.elapsed());
    }

    /// Brings the clocks and rates up to `time` and returns the statistics for `phase`.
    pub(crate) fn at(&mut self, phase: Phase, time: Instant) -> &PrecopyStats {
        self.now.phase = phase;
        self.now.elapsed = time.duration_since(self.began);
        if let Some(began) = self.round_began {
            self.now.round_elapsed = time.duration_since(began);
        }
        self.now.send_rate = self.sending.per_second();
        &self.now
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn rate(pages: u64, time: Duration) -> Option<f64> {
    (!time.is_zero()).then(|| pages as f64 / time.as_secs_f64())
}

/// What became of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) claimed: u64,
    pub(crate) sent: u64,
    pub(crate) skipped: u64,
    pub(crate) deferred: u64,
    pub(crate) bytes: u64,
}
