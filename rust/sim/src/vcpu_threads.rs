// SPDX-License-Identifier: GPL-3.0-or-later
//! The vCPU threads of a domain: each writes its share of the workload, in slices of about a millisecond, and is
//! outside the gate in between.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use fastrand::Rng;

use crate::{guest::Guest, workload::Plan};

/// The shortest sleep between two slices.
const SLICE: Duration = Duration::from_millis(1);
/// The longest sleep between two slices: how late a vCPU may notice that a phase has ended.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);
/// What a vCPU that got no CPU time catches up on. What is older is not written at all.
const LAG: Duration = Duration::from_millis(50);
/// Pages written in one visit inside the gate: the longest that anybody waits for this vCPU.
const VISIT_PAGES: u32 = 32;
/// Streams of writes in a phase: hot and cold.
const STREAMS: usize = 2;

/// The running threads. They are joined by [`Vcpus::stop`].
#[derive(Debug)]
pub(super) struct Vcpus {
    quit: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Vcpus {
    /// Starts `count` threads.
    pub(super) fn start(guest: &Arc<Guest>, plan: Plan, count: u32, seed: u64) -> io::Result<Self> {
        let plan = Arc::new(plan);
        let mut vcpus = Self { quit: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
        for number in 0..count {
            let (guest_of_thread, plan, quit) =
                (Arc::clone(guest), Arc::clone(&plan), Arc::clone(&vcpus.quit));
            let body = move || run(&guest_of_thread, number, count, seed, &plan, &quit);
            match thread::Builder::new().name(format!("sim-vcpu{number}")).spawn(body) {
                Ok(thread) => vcpus.threads.push(thread),
                Err(error) => {
                    vcpus.stop(guest);
                    return Err(error);
                }
            }
        }
        Ok(vcpus)
    }

    /// Ends the threads and waits for them.
    pub(super) fn stop(self, guest: &Guest) {
        guest.gate.tell(&self.quit);
        for thread in self.threads {
            // A vCPU that panicked has nothing to clean up: its locks are released.
            let _ = thread.join();
        }
    }
}

/// One vCPU.
struct Vcpu<'a> {
    guest: &'a Guest,
    plan: &'a Plan,
    number: usize,
    /// The vCPU's part of all rates.
    share: f64,
    rng: Rng,
    /// Pages that are due, of each stream.
    due: [f64; STREAMS],
    /// For how long it ran.
    running: Duration,
}

fn run(guest: &Guest, number: u32, count: u32, seed: u64, plan: &Plan, quit: &AtomicBool) {
    let mut rng = Rng::with_seed(seed ^ (u64::from(number) << 32));
    // A random start keeps the vCPUs from writing all at the same moment.
    let due = std::array::from_fn(|_| rng.f64());
    let share = 1.0 / f64::from(count);
    let number = number as usize;
    let mut vcpu = Vcpu { guest, plan, number, share, rng, due, running: Duration::ZERO };
    let mut last = Instant::now();
    while !quit.load(Ordering::SeqCst) {
        // A guest does not notice the time for which it is stopped.
        last += guest.gate.wait_open(quit);
        let now = Instant::now();
        vcpu.run_for(now.duration_since(last).min(LAG));
        last = now;
        guest.gate.doze(vcpu.idle_time(), quit);
    }
}

impl Vcpu<'_> {
    /// Writes what falls due in so much time.
    fn run_for(&mut self, mut time: Duration) {
        if let Some(_inside) = self.guest.gate.enter(self.number) {
            self.guest.write_unlogged(self.number);
        }
        let plan = self.plan;
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
                    let Some(_inside) = self.guest.gate.enter(self.number) else { break };
                    self.guest.write_some(stream, u64::from(pages), &mut self.rng);
                    *due -= f64::from(pages);
                }
            }
        }
    }

    /// Returns how long it may sleep before a page falls due or the phase ends.
    fn idle_time(&self) -> Duration {
        let (streams, phase_left) = self.plan.at(self.running);
        let mut time = LONGEST_SLEEP.min(phase_left);
        for (stream, due) in streams.iter().zip(self.due).filter(|(stream, _)| stream.pages_per_s > 0.0) {
            let next_s = (1.0 - due) / (stream.pages_per_s * self.share);
            time = time.min(Duration::from_secs_f64(next_s.clamp(0.0, LONGEST_SLEEP.as_secs_f64())));
        }
        time.max(SLICE)
    }
}
