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
};

use xenmig_hypervisor::{Clock, MachineClock};

use crate::{
    guest::Guest,
    vcpu::{LAG, Vcpu},
    workload::Plan,
};

/// The running threads. They are joined by [`VcpuThreads::stop`].
#[derive(Debug)]
pub(crate) struct VcpuThreads {
    quit: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl VcpuThreads {
    /// Starts `count` threads.
    pub(crate) fn start(guest: &Arc<Guest>, plan: Plan, count: u32, seed: u64) -> io::Result<Self> {
        let plan = Arc::new(plan);
        let mut vcpus = Self { quit: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
        for number in 0..count {
            let (guest_of_thread, plan, quit) =
                (Arc::clone(guest), Arc::clone(&plan), Arc::clone(&vcpus.quit));
            let vcpu = Vcpu::new(number, count, seed);
            let body = move || run(&guest_of_thread, vcpu, &plan, &quit);
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
    pub(crate) fn stop(self, guest: &Guest) {
        guest.gate.tell(&self.quit);
        for thread in self.threads {
            // A vCPU that panicked has nothing to clean up: its locks are released.
            let _ = thread.join();
        }
    }
}

fn run(guest: &Guest, mut vcpu: Vcpu, plan: &Plan, quit: &AtomicBool) {
    let mut last = MachineClock.now();
    while !quit.load(Ordering::SeqCst) {
        // A guest does not notice the time for which it is stopped.
        last = last + guest.gate.wait_open(quit);
        let now = MachineClock.now();
        vcpu.run_for(guest, plan, now.since(last).min(LAG));
        last = now;
        guest.gate.doze(vcpu.idle_time(plan), quit);
    }
}
