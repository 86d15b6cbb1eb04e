// SPDX-License-Identifier: GPL-3.0-or-later
//! What a stream socket is given for the length of a save or a restore, and then has back as it was: a timeout, so
//! that no call blocks for long, and on a unix socket a larger buffer.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use crate::fd::endpoint::{Direction, WAIT_MS, check};

/// What a unix socket's buffer is asked to hold, in bytes. Linux grants twice as much, for its own overhead, and by
/// default gives no more than 208 KiB: with that a writer of 4 MiB sleeps and wakes twice as often, where the reader is
/// the slower side. A TCP socket is left alone: Linux adapts its buffer to the path, but
/// not once somebody set it.
const UNIX_BUFFER_BYTES: libc::c_int = 400_000;

/// The settings that a socket had.
#[derive(Debug)]
pub(crate) struct SocketSettings {
    timeout: Option<libc::timeval>,
    buffer_bytes: Option<libc::c_int>,
}

impl SocketSettings {
    /// Sets what we want, and returns what was there. A socket that does not block needs no timeout.
    pub(crate) fn exchange(fd: &OwnedFd, direction: Direction, blocking: bool) -> io::Result<Self> {
        let timeout = if blocking { Some(exchange_timeout(fd, direction)?) } else { None };
        // A buffer that stays small only costs time.
        let buffer_bytes = enlarge_buffer(fd, direction).unwrap_or(None);
        Ok(Self { timeout, buffer_bytes })
    }

    /// Gives back what was there. The socket may be gone; then nobody minds.
    pub(crate) fn restore(&self, fd: &OwnedFd, direction: Direction) {
        if let Some(timeout) = self.timeout {
            let _ = set(fd, timeout_option(direction), timeout);
        }
        if let Some(bytes) = self.buffer_bytes {
            // What is read is twice what was set.
            let _ = set(fd, libc::SO_SNDBUF, bytes / 2);
        }
    }
}

/// Returns the socket's type, `SOCK_*`.
pub(crate) fn kind(fd: &OwnedFd) -> io::Result<libc::c_int> {
    get(fd, libc::SO_TYPE, 0)
}

const fn timeout_option(direction: Direction) -> libc::c_int {
    match direction {
        Direction::Read => libc::SO_RCVTIMEO,
        Direction::Write => libc::SO_SNDTIMEO,
    }
}

fn exchange_timeout(fd: &OwnedFd, direction: Direction) -> io::Result<libc::timeval> {
    let option = timeout_option(direction);
    let before = get(fd, option, libc::timeval { tv_sec: 0, tv_usec: 0 })?;
    set(fd, option, libc::timeval { tv_sec: 0, tv_usec: libc::suseconds_t::from(WAIT_MS) * 1000 })?;
    Ok(before)
}

/// Enlarges a unix socket's buffer, and returns its size before; nothing if it is left alone. The bytes on their way
/// are accounted to the writer.
fn enlarge_buffer(fd: &OwnedFd, direction: Direction) -> io::Result<Option<libc::c_int>> {
    if direction == Direction::Read || get(fd, libc::SO_DOMAIN, 0)? != libc::AF_UNIX {
        return Ok(None);
    }
    let before: libc::c_int = get(fd, libc::SO_SNDBUF, 0)?;
    if before >= 2 * UNIX_BUFFER_BYTES {
        return Ok(None);
    }
    set(fd, libc::SO_SNDBUF, UNIX_BUFFER_BYTES)?;
    Ok(Some(before))
}

/// Sets an option, whose type is that of `value`.
fn set<T: Copy>(fd: &OwnedFd, option: libc::c_int, value: T) -> io::Result<()> {
    let (fd, length) = (fd.as_raw_fd(), length_of::<T>());
    // SAFETY: a value of the option's type and its length, borrowed for the call.
    check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const value).cast(), length) })?;
    Ok(())
}

/// Reads an option, whose type is that of `value`.
fn get<T: Copy>(fd: &OwnedFd, option: libc::c_int, mut value: T) -> io::Result<T> {
    let (fd, mut length) = (fd.as_raw_fd(), length_of::<T>());
    let value_at = (&raw mut value).cast();
    // SAFETY: a value of the option's type and its length, both borrowed for the call.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, value_at, &raw mut length) })?;
    Ok(value)
}

#[expect(clippy::cast_possible_truncation, reason = "an int or a timeval: 16 bytes at most")]
const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}
