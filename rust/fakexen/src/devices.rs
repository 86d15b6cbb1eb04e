// SPDX-License-Identifier: GPL-3.0-or-later
//! The two devices, and which file descriptors stand for them. Such a descriptor is really one of `/dev/null`, moved
//! to the upper end of the numbers, so that one comparison tells most others apart.
//!
//! A copy that `dup` or `fcntl` makes is not known here, nor is a `close` that does not go through the C library's
//! function of this name: the Xen libraries do neither.

use std::{
    ffi::{CStr, c_int},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI32, AtomicU8, Ordering},
    },
};

use crate::{
    c_library,
    kinds::Kind,
    process,
    tally::{self, Scope},
    trace::trace,
};

/// How many descriptors there can be.
const SLOTS: usize = 64;
/// Descriptors are put just below this number, or below the limit of the process, if that is lower: the kernel's
/// table of descriptors grows with the highest one.
const CEILING: u64 = 1024;

/// The lowest descriptor that can be ours.
static FIRST: AtomicI32 = AtomicI32::new(i32::MAX);
/// What each of the numbers from `FIRST` on stands for: 0, or a device's number.
static TABLE: [AtomicU8; SLOTS] = [const { AtomicU8::new(0) }; SLOTS];
/// Held while a descriptor is made.
static OPENING: Mutex<()> = Mutex::new(());

/// A device that is played here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Device {
    /// `/dev/xen/privcmd`.
    Privcmd = 1,
    /// `/dev/xen/hypercall`.
    Hypercall = 2,
}

impl Device {
    /// Returns the device of a path.
    pub(crate) fn of_path(path: &CStr) -> Option<Self> {
        match path.to_bytes() {
            b"/dev/xen/privcmd" => Some(Self::Privcmd),
            b"/dev/xen/hypercall" => Some(Self::Hypercall),
            _ => None,
        }
    }
}

fn slot(fd: c_int) -> Option<&'static AtomicU8> {
    let first = FIRST.load(Ordering::Relaxed);
    if fd < first {
        return None;
    }
    usize::try_from(fd - first).ok().and_then(|at| TABLE.get(at))
}

/// Returns the device that a descriptor stands for, if it is one of these.
pub(crate) fn of(fd: c_int) -> Option<Device> {
    match slot(fd)?.load(Ordering::Acquire) {
        1 => Some(Device::Privcmd),
        2 => Some(Device::Hypercall),
        _ => None,
    }
}

/// Forgets a descriptor that is being closed.
pub(crate) fn forget(fd: c_int) {
    if let Some(slot) = slot(fd) {
        slot.store(0, Ordering::Release);
    }
}

/// Returns how many descriptors stand for devices now.
pub(crate) fn open_now() -> usize {
    TABLE.iter().filter(|slot| slot.load(Ordering::Acquire) != 0).count()
}

/// Opens a device.
pub(crate) fn open(device: Device, flags: c_int) -> Result<c_int, i32> {
    process::check()?;
    process::watch_forks();
    tally::begin(Kind::Open, Scope::Host)?;
    let _opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    if FIRST.load(Ordering::Relaxed) == i32::MAX {
        FIRST.store(first_descriptor(), Ordering::Relaxed);
    }
    let null = c"/dev/null".as_ptr();
    // SAFETY: a C string.
    let null = unsafe { c_library::OPEN64.get()(null, libc::O_RDWR | libc::O_CLOEXEC, 0) };
    if null < 0 {
        return Err(c_library::errno());
    }
    let how = if flags & libc::O_CLOEXEC == 0 { libc::F_DUPFD } else { libc::F_DUPFD_CLOEXEC };
    // SAFETY: one of our own descriptors is copied.
    let fd = unsafe { libc::fcntl(null, how, FIRST.load(Ordering::Relaxed)) };
    let result = if fd < 0 { Err(c_library::errno()) } else { Ok(fd) };
    // SAFETY: the first descriptor is ours and not used any more.
    unsafe { c_library::CLOSE.get()(null) };
    let fd = result?;
    let Some(slot) = slot(fd) else {
        // SAFETY: a descriptor that no other code knows.
        unsafe { c_library::CLOSE.get()(fd) };
        return Err(libc::EMFILE);
    };
    slot.store(device as u8, Ordering::Release);
    trace!("open {device:?} = {fd}");
    Ok(fd)
}

fn first_descriptor() -> c_int {
    let mut limit = libc::rlimit { rlim_cur: CEILING, rlim_max: CEILING };
    // SAFETY: writes the structure, or leaves it as it is.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let slots = SLOTS as u64;
    c_int::try_from(limit.rlim_cur.min(CEILING).saturating_sub(slots)).unwrap_or(0)
}
