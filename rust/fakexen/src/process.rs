// SPDX-License-Identifier: GPL-3.0-or-later
//! Fork is not supported: neither the simulated vCPUs nor the mappings of the kernel's device follow one. In a child
//! process everything that concerns the devices fails with `ENODEV`.

use std::sync::{
    LazyLock, Once,
    atomic::{AtomicBool, Ordering},
};

static FORKED: AtomicBool = AtomicBool::new(false);
static WATCH: Once = Once::new();

unsafe extern "C" fn in_child() {
    FORKED.store(true, Ordering::Relaxed);
}

/// Sees to it that a child process knows that it is one.
pub(crate) fn watch_forks() {
    WATCH.call_once(|| {
        // SAFETY: the function stays loaded and only sets a flag. Should it not be possible, children are not warned.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// Returns this process's number, asked for once: a child makes no calls.
pub(crate) fn pid() -> libc::pid_t {
    static PID: LazyLock<u32> = LazyLock::new(std::process::id);
    PID.cast_signed()
}

/// Says whether this is a child of the process that opened the devices.
pub(crate) fn is_child() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Refuses a call in a child process.
pub(crate) fn check() -> Result<(), i32> {
    if is_child() { Err(libc::ENODEV) } else { Ok(()) }
}
