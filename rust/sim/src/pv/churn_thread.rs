// SPDX-License-Identifier: GPL-3.0-or-later
//! The thread in which the kernel of a PV guest does what falls due in the background.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use xenmig_hypervisor::{Clock, MachineClock};

use super::{Churn, ChurnPace};
use crate::{guest::Guest, life::Life, vcpu::LAG};

/// The running thread. It is joined by [`ChurnThread::stop`].
#[derive(Debug)]
pub(crate) struct ChurnThread {
    quit: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl ChurnThread {
    /// Starts the thread.
    pub(crate) fn start(guest: &Arc<Guest>, life: &Arc<Mutex<Life>>, churn: Churn) -> io::Result<Self> {
        let quit = Arc::new(AtomicBool::new(false));
        let (guest, life, told) = (Arc::clone(guest), Arc::clone(life), Arc::clone(&quit));
        let body = move || run(&guest, &life, ChurnPace::new(churn), &told);
        let thread = thread::Builder::new().name("sim-pv-kernel".to_owned()).spawn(body)?;
        Ok(Self { quit, thread })
    }

    /// Ends the thread and waits for it. The caller does not hold the control lock.
    pub(crate) fn stop(self, guest: &Guest) {
        guest.gate.tell(&self.quit);
        // A thread that panicked has nothing to clean up: its locks are released.
        let _ = self.thread.join();
    }
}

fn run(guest: &Guest, life: &Mutex<Life>, mut pace: ChurnPace, quit: &AtomicBool) {
    let mut last = MachineClock.now();
    while !quit.load(Ordering::SeqCst) {
        // A guest does not notice the time for which it is stopped.
        last = last + guest.gate.wait_open(quit);
        let now = MachineClock.now();
        pace.run_for(guest, life, now.since(last).min(LAG), || quit.load(Ordering::SeqCst));
        last = now;
        guest.gate.doze(pace.idle_time(), quit);
    }
}
