// SPDX-License-Identifier: GPL-3.0-or-later
//! The gate between the vCPU threads and those who must see a domain at a write boundary: CLEAN, PEEK, ballooning,
//! pause, suspend.
//!
//! A vCPU is *inside* while it writes a few pages and marks them. Who wants the vCPUs out first raises `stoppers`,
//! so that no vCPU goes in again, and then passes through each vCPU's lock once, which waits for those inside. So
//! a vCPU that runs flat out cannot keep anybody waiting for longer than one visit.

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use xenmig_hypervisor::{Clock, MachineClock};

/// Locks a mutex. What it guards here stays whole when a thread panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The gate of one domain.
#[derive(Debug)]
pub(super) struct Gate {
    stoppers: AtomicUsize,
    /// One for each vCPU, held while it is inside.
    inside: Box<[Mutex<()>]>,
    sleep: Mutex<()>,
    wake: Condvar,
}

/// The vCPUs are outside until this is dropped.
#[derive(Debug)]
pub(super) struct Stopped<'a>(&'a Gate);

impl Gate {
    /// Makes an open gate for `vcpus` threads.
    pub(super) fn new(vcpus: usize) -> Self {
        Self {
            stoppers: AtomicUsize::new(0),
            inside: (0..vcpus).map(|_| Mutex::new(())).collect(),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    /// Stops the vCPUs for as long as the result lives.
    pub(super) fn stop(&self) -> Stopped<'_> {
        self.close();
        Stopped(self)
    }

    /// Stops the vCPUs until [`Gate::open`] is called.
    pub(super) fn close(&self) {
        self.stoppers.fetch_add(1, Ordering::SeqCst);
        for vcpu in &self.inside {
            // Once this lock was ours, the vCPU's next visit sees `stoppers` raised.
            drop(lock(vcpu));
        }
    }

    /// Undoes one [`Gate::close`].
    pub(super) fn open(&self) {
        let sleep = lock(&self.sleep);
        if self.stoppers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.wake.notify_all();
        }
        drop(sleep);
    }

    /// Lets a vCPU in; `None` if it must stay out.
    pub(super) fn enter(&self, vcpu: usize) -> Option<MutexGuard<'_, ()>> {
        let inside = lock(self.inside.get(vcpu)?);
        (self.stoppers.load(Ordering::SeqCst) == 0).then_some(inside)
    }

    /// Waits until the gate is open or `quit` is set, and returns how long that took.
    pub(super) fn wait_open(&self, quit: &AtomicBool) -> Duration {
        if self.stoppers.load(Ordering::SeqCst) == 0 {
            return Duration::ZERO;
        }
        let start = MachineClock.now();
        let shut = |_: &mut ()| self.stoppers.load(Ordering::SeqCst) != 0 && !quit.load(Ordering::SeqCst);
        drop(self.wake.wait_while(lock(&self.sleep), shut));
        MachineClock.now().since(start)
    }

    /// Sleeps, unless `quit` is set.
    pub(super) fn doze(&self, time: Duration, quit: &AtomicBool) {
        let sleep = lock(&self.sleep);
        if !quit.load(Ordering::SeqCst) {
            drop(self.wake.wait_timeout(sleep, time));
        }
    }

    /// Sets `quit` and wakes every vCPU to see it.
    pub(super) fn tell(&self, quit: &AtomicBool) {
        let sleep = lock(&self.sleep);
        quit.store(true, Ordering::SeqCst);
        self.wake.notify_all();
        drop(sleep);
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "threads are tested by the machine's clock")]
mod tests {
    use std::{thread, time::Instant};

    use super::*;

    const VISIT: Duration = Duration::from_millis(20);

    #[test]
    fn whoever_stops_the_vcpus_waits_for_those_inside() {
        let gate = Gate::new(2);
        let left = AtomicBool::new(false);
        thread::scope(|scope| {
            let (entered, inside) = std::sync::mpsc::channel();
            let (gate, left) = (&gate, &left);
            scope.spawn(move || {
                let visit = gate.enter(1).unwrap();
                entered.send(()).unwrap();
                thread::sleep(VISIT);
                left.store(true, Ordering::SeqCst);
                drop(visit);
            });
            inside.recv().unwrap();
            let stopped = gate.stop();
            assert!(left.load(Ordering::SeqCst));
            assert!(gate.enter(0).is_none() && gate.enter(1).is_none());
            drop(stopped);
            assert!(gate.enter(1).is_some());
        });
    }

    #[test]
    fn a_vcpu_waits_for_the_last_who_stopped_it() {
        let gate = Gate::new(1);
        gate.close();
        let stopped = gate.stop();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| gate.wait_open(&AtomicBool::new(false)));
            drop(stopped);
            thread::sleep(VISIT);
            assert!(gate.enter(0).is_none());
            gate.open();
            assert!(waiting.join().unwrap() >= VISIT / 2);
        });
        assert_eq!(gate.wait_open(&AtomicBool::new(false)), Duration::ZERO);
    }

    #[test]
    fn a_vcpu_that_shall_quit_neither_waits_nor_sleeps() {
        let gate = Gate::new(1);
        let quit = AtomicBool::new(false);
        gate.close();
        let start = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| gate.wait_open(&quit));
            scope.spawn(|| gate.doze(Duration::from_secs(60), &quit));
            thread::sleep(VISIT);
            gate.tell(&quit);
        });
        gate.doze(Duration::from_secs(60), &quit);
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
