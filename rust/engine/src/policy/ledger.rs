// SPDX-License-Identifier: GPL-3.0-or-later
//! The account of a save: every number of a [`PrecopyStats`] and of a [`RoundStats`] is read from here. It changes only
//! by what happened: a round began, a batch left, a CLEAN or a PEEK came back, a round was finished.

use std::time::Duration;

use xenmig_hypervisor::Moment;

use super::{
    decision::Phase,
    statistics::{PrecopyStats, RoundStats},
};

/// What became of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchCounts {
    /// Pages taken out of the bitmap.
    pub(crate) claimed: u64,
    /// Pages whose contents were written.
    pub(crate) sent: u64,
    /// Pages left out because they are dirty again.
    pub(crate) skipped: u64,
    /// Pages newly owed to the final pass.
    pub(crate) deferred: u64,
    /// Bytes written.
    pub(crate) bytes: u64,
}

/// The running account of a save.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The totals. The clocks and rates in it are filled in by [`Ledger::stats`].
    totals: PrecopyStats,
    /// The round or pass under way, and when it began.
    round: Option<(RoundStats, Moment)>,
    began: Moment,
    bytes_before_round: u64,
    /// Since when the hypervisor's dirty bitmap has been collecting.
    cleaned: Moment,
    sending: Rate,
}

impl Ledger {
    /// Opens the account of a save that begins `now`.
    pub(crate) const fn new(p2m_size: u64, ram_pages: u64, now: Moment) -> Self {
        Self {
            totals: PrecopyStats::new(p2m_size, ram_pages),
            round: None,
            began: now,
            bytes_before_round: 0,
            cleaned: now,
            sending: Rate::NONE,
        }
    }

    /// Returns the statistics for `phase`.
    pub(crate) fn stats(&self, phase: Phase, now: Moment) -> PrecopyStats {
        let round_elapsed =
            self.round.as_ref().map_or(self.totals.round_elapsed, |(_, began)| now.since(*began));
        PrecopyStats {
            phase,
            elapsed: now.since(self.began),
            round_elapsed,
            send_rate: self.sending.per_second(),
            ..self.totals.clone()
        }
    }

    /// Returns the size of the p2m in pages.
    pub(crate) const fn p2m_size(&self) -> u64 {
        self.totals.p2m_size
    }

    /// Returns how many rounds were finished.
    pub(crate) const fn iteration(&self) -> u32 {
        self.totals.iteration
    }

    /// Returns the time since the save began.
    pub(crate) const fn elapsed(&self, now: Moment) -> Duration {
        now.since(self.began)
    }

    /// Returns the time since the last CLEAN.
    pub(crate) const fn since_clean(&self, now: Moment) -> Duration {
        now.since(self.cleaned)
    }

    /// Says whether nothing at all was sent since the round began.
    pub(crate) const fn sent_nothing(&self) -> bool {
        self.totals.bytes_sent == self.bytes_before_round
    }

    /// Notes what the next round will claim.
    pub(crate) const fn claim(&mut self, dirty_count: u64) {
        self.totals.dirty_count = Some(dirty_count);
        self.totals.pages_remaining = dirty_count;
    }

    /// Opens the account of a round, or of a pass over the suspended guest, that claims `dirty_count` pages.
    pub(crate) const fn begin_round(&mut self, phase: Phase, dirty_count: u64, now: Moment) {
        self.totals.pages_remaining = dirty_count;
        self.totals.dirty_count = None;
        self.bytes_before_round = self.totals.bytes_sent;
        let round = RoundStats {
            iteration: self.totals.iteration,
            phase,
            dirty_count,
            pages_claimed: 0,
            pages_sent: 0,
            pages_skipped: 0,
            pages_deferred: 0,
            bytes_sent: 0,
            elapsed: Duration::ZERO,
        };
        self.round = Some((round, now));
    }

    /// Notes that there is nothing to send in this round; it has no account.
    pub(crate) const fn skip_round(&mut self) {
        self.bytes_before_round = self.totals.bytes_sent;
    }

    /// Enters one batch, which took `time`.
    pub(crate) fn enter(&mut self, batch: &BatchCounts, time: Duration) {
        let totals = &mut self.totals;
        totals.pages_claimed += batch.claimed;
        totals.pages_sent += batch.sent;
        totals.pages_skipped += batch.skipped;
        totals.pages_deferred += batch.deferred;
        totals.bytes_sent += batch.bytes;
        totals.pages_remaining = totals.pages_remaining.saturating_sub(batch.claimed);
        if batch.bytes > 0 {
            self.sending.add(batch.bytes, time);
        }
        if let Some((round, _)) = &mut self.round {
            round.pages_claimed += batch.claimed;
            round.pages_sent += batch.sent;
            round.pages_skipped += batch.skipped;
            round.pages_deferred += batch.deferred;
            round.bytes_sent += batch.bytes;
        }
    }

    /// Enters bytes of the stream that are not part of a batch.
    pub(crate) const fn enter_bytes(&mut self, bytes: u64) {
        self.totals.bytes_sent += bytes;
    }

    /// Enters pages that a STOP left to the final pass.
    pub(crate) const fn defer(&mut self, pages: u64) {
        self.totals.pages_deferred += pages;
        if let Some((round, _)) = &mut self.round {
            round.pages_deferred += pages;
        }
    }

    /// Closes the account of the round or pass under way and returns it.
    pub(crate) fn end_round(&mut self, now: Moment) -> Option<RoundStats> {
        let (mut round, began) = self.round.take()?;
        round.elapsed = now.since(began);
        self.totals.round_elapsed = round.elapsed;
        Some(round)
    }

    /// Counts a whole round of `dirty_count` pages as sent; what the next one claims is not known until the next CLEAN.
    pub(crate) const fn finish_round(&mut self, dirty_count: u64) {
        self.totals.iteration += 1;
        self.totals.total_written += dirty_count;
        self.totals.dirty_count = None;
    }

    /// Enters what a CLEAN brought.
    pub(crate) fn cleaned(&mut self, dirty_count: u64, at: Moment) {
        self.totals.dirty_rate = rate(dirty_count, at.since(self.cleaned));
        self.totals.pages_redirtied = None;
        self.totals.round_elapsed = Duration::ZERO;
        self.cleaned = at;
        self.claim(dirty_count);
    }

    /// Enters what a PEEK counted.
    pub(crate) fn peeked(&mut self, dirty_count: u64, at: Moment) {
        self.totals.pages_redirtied = Some(dirty_count);
        self.totals.dirty_rate = rate(dirty_count, at.since(self.cleaned));
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn rate(pages: u64, time: Duration) -> Option<f64> {
    (!time.is_zero()).then(|| pages as f64 / time.as_secs_f64())
}

/// A rate over the last second or so: each new sample takes weight from the older ones.
#[derive(Clone, Copy, Debug)]
struct Rate {
    amount: f64,
    seconds: f64,
}

impl Rate {
    const NONE: Self = Self { amount: 0.0, seconds: 0.0 };
    const WINDOW_S: f64 = 1.0;

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn add(&mut self, amount: u64, time: Duration) {
        let seconds = time.as_secs_f64();
        let keep = (-seconds / Self::WINDOW_S).exp();
        self.amount = self.amount.mul_add(keep, amount as f64);
        self.seconds = self.seconds.mul_add(keep, seconds);
    }

    fn per_second(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.amount / self.seconds)
    }
}
