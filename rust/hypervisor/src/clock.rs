// SPDX-License-Identifier: GPL-3.0-or-later
//! Time, as a host tells it. Rates, intervals and limits are computed from a host's [`Clock`] and from nothing else, so a
//! whole migration can run on a clock that a test moves by hand.

use std::{
    fmt,
    ops::Add,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A point in time: how long after the start of its clock. Moments of different clocks cannot be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// Makes the moment at this time after the start of the clock.
    #[must_use]
    pub const fn at(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// Returns the time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

/// What tells the time, and waits.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the present moment. It never goes back.
    fn now(&self) -> Moment;

    /// Returns at `until`, or at once if that is past.
    fn sleep_until(&self, until: Moment);

    /// Spends the time until `until` as work would: exactly, and without giving the processor away.
    fn spend_until(&self, until: Moment) {
        while self.now() < until {
            std::hint::spin_loop();
        }
    }
}

/// The machine's monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineClock;

#[expect(clippy::disallowed_methods, reason = "the one place where time comes from the machine")]
impl Clock for MachineClock {
    fn now(&self) -> Moment {
        static START: OnceLock<Instant> = OnceLock::new();
        Moment(START.get_or_init(Instant::now).elapsed())
    }

    fn sleep_until(&self, until: Moment) {
        let left = until.since(self.now());
        if !left.is_zero() {
            thread::sleep(left);
        }
    }
}

/// A clock that stands still until it is told to go on. Whoever sleeps on it moves it: a sleep takes no real time.
#[derive(Debug, Default)]
pub struct ManualClock {
    nanoseconds: AtomicU64,
}

impl ManualClock {
    /// Moves the clock on.
    pub fn advance(&self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(time, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment(Duration::from_nanos(self.nanoseconds.load(Ordering::SeqCst)))
    }

    fn sleep_until(&self, until: Moment) {
        let until = u64::try_from(until.0.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_max(until, Ordering::SeqCst);
    }

    fn spend_until(&self, until: Moment) {
        self.sleep_until(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_sleeps_until_the_moment_and_not_for_one_that_is_past() {
        let clock = MachineClock;
        let start = clock.now();
        clock.sleep_until(start + Duration::from_millis(5));
        let woken = clock.now();
        assert!(woken.since(start) >= Duration::from_millis(5));
        clock.sleep_until(start);
        assert_eq!(start.since(woken), Duration::ZERO);
    }

    #[test]
    fn a_manual_clock_is_moved_by_hand_and_by_sleepers_only() {
        let clock = ManualClock::default();
        let start = clock.now();
        assert_eq!(clock.now(), start);
        clock.advance(Duration::from_secs(2));
        clock.sleep_until(start + Duration::from_secs(3600));
        clock.sleep_until(start + Duration::from_secs(1));
        assert_eq!(clock.now(), Moment::at(Duration::from_secs(3600)));
        clock.spend_until(start + Duration::from_secs(3601));
        assert_eq!(clock.now(), Moment::at(Duration::from_secs(3601)));
    }
}
