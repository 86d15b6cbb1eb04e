// SPDX-License-Identifier: GPL-3.0-or-later
//! Writing to a pipe without SIGPIPE, whatever the process does with that signal: by default it would be killed.
//!
//! A write to a pipe without readers raises the signal in the writing thread. So the thread blocks it meanwhile, and
//! takes the one that it caused. A signal that was pending before stays pending.

use std::{io, mem::MaybeUninit, ptr};

/// Makes a call that writes to a pipe.
pub(super) fn without_sigpipe<T>(write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let sigpipe = only_sigpipe();
    let Some(before) = block(&sigpipe) else { return Err(io::Error::last_os_error()) };
    // What is not blocked cannot be pending.
    let was_pending = contains_sigpipe(&before) && is_pending();
    let result = write();
    // A write that was cut short causes it, too.
    if !was_pending {
        take(&sigpipe);
    }
    // SAFETY: a mask that the kernel gave, borrowed for the call.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    result
}

fn only_sigpipe() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset fills the set that it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: just filled.
    let mut set = unsafe { set.assume_init() };
    // SAFETY: a set, and the number of a signal.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGPIPE) };
    set
}

/// Blocks the signals in this thread, and returns what was blocked before.
fn block(set: &libc::sigset_t) -> Option<libc::sigset_t> {
    let mut before = MaybeUninit::uninit();
    // SAFETY: two sets, borrowed for the call.
    let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set, before.as_mut_ptr()) };
    // SAFETY: pthread_sigmask succeeded, so it is filled.
    (failed == 0).then(|| unsafe { before.assume_init() })
}

fn is_pending() -> bool {
    let mut pending = MaybeUninit::uninit();
    // SAFETY: sigpending fills the set that it is given, or fails.
    if unsafe { libc::sigpending(pending.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: sigpending succeeded, so it is filled.
    contains_sigpipe(&unsafe { pending.assume_init() })
}

fn contains_sigpipe(set: &libc::sigset_t) -> bool {
    // SAFETY: a set, borrowed for the call, and the number of a signal.
    unsafe { libc::sigismember(set, libc::SIGPIPE) == 1 }
}

/// Takes one of the signals if it is pending.
fn take(set: &libc::sigset_t) {
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a set and a time, borrowed for the call; nothing is to be told about the signal. It says EAGAIN if none is
    // pending, and cannot be interrupted, since it does not wait.
    unsafe { libc::sigtimedwait(set, ptr::null_mut(), &raw const at_once) };
}
