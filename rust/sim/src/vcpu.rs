// SPDX-License-Identifier: GPL-3.0-or-later
//! What one vCPU writes: its share of the workload, as it falls due.

use std::time::Duration;

use fastrand::Rng;

use crate::{guest::Guest, workload::Plan};

/// What a vCPU catches up on that got no CPU time. What is older is not written at all.
pub(crate) const LAG: Duration = Duration::from_millis(50);
/// The shortest sleep between two slices.
const SLICE: Duration = Duration::from_millis(1);
/// The longest sleep between two slices: how late a vCPU may notice that a phase has ended.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);
/// Pages written in one visit inside the gate: the longest that anybody waits for this vCPU.
const VISIT_PAGES: u32 = 32;
/// Streams of writes in a phase: hot and cold.
const STREAMS: usize = 2;

/// One vCPU.
#[derive(Debug)]
pub(crate) struct Vcpu {
    number: usize,
    /// The vCPU's part of all rates.
    share: f64,
    rng: Rng,
    /// Pages that are due, of each stream.
    due: [f64; STREAMS],
    /// For how long it ran.
    running: Duration,
}

impl Vcpu {
    /// Makes vCPU `number` of `count`.
    pub(crate) fn new(number: u32, count: u32, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ (u64::from(number) << 32));
        // A random start keeps the vCPUs from writing all at the same moment.
        let due = std::array::from_fn(|_| rng.f64());
        Self { number: number as usize, share: 1.0 / f64::from(count), rng, due, running: Duration::ZERO }
    }

    /// Writes what falls due in this time, at most [`LAG`].
    pub(crate) fn run_for(&mut self, guest: &Guest, plan: &Plan, mut time: Duration) {
        if let Some(_inside) = guest.gate.enter(self.number) {
            guest.write_unlogged(self.number);
        }
        while !time.is_zero() {
            let (streams, phase_left) = plan.at(self.running);
            let step = time.min(phase_left);
            time -= step;
            self.running += step;
            for (stream, due) in streams.iter().zip(&mut self.due) {
                let pages_per_s = stream.pages_per_s * self.share;
                let most = (pages_per_s * LAG.as_secs_f64()).max(1.0);
                *due = (*due + pages_per_s * step.as_secs_f64()).min(most);
                while *due >= 1.0 {
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 5e7")]
                    let pages = (*due as u32).min(VISIT_PAGES);
                    let Some(_inside) = guest.gate.enter(self.number) else { break };
                    guest.write_some(stream, u64::from(pages), &mut self.rng);
                    *due -= f64::from(pages);
                }
            }
        }
    }

    /// Returns how long it may sleep before a page falls due or the phase ends.
    pub(crate) fn idle_time(&self, plan: &Plan) -> Duration {
        let (streams, phase_left) = plan.at(self.running);
        let mut time = LONGEST_SLEEP.min(phase_left);
        for (stream, due) in streams.iter().zip(self.due).filter(|(stream, _)| stream.pages_per_s > 0.0) {
            let next_s = (1.0 - due) / (stream.pages_per_s * self.share);
            time = time.min(Duration::from_secs_f64(next_s.clamp(0.0, LONGEST_SLEEP.as_secs_f64())));
        }
        time.max(SLICE)
    }
}
