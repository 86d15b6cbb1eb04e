// SPDX-License-Identifier: GPL-3.0-or-later
//! What a stream socket is given for the length of a save or a restore, and then has back as it was: a timeout, so
//! that no call blocks for long, and on a unix socket a larger buffer.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::net::{AddressFamily, sockopt, sockopt::Timeout};

use crate::fd::endpoint::{Direction, WAIT};

/// What a unix socket's buffer is asked to hold, in bytes. Linux grants twice as much, for its own overhead, and by
/// default gives no more than 208 KiB: with that a writer of 4 MiB sleeps and wakes twice as often, where the reader is
/// the slower side. A TCP socket is left alone: Linux adapts its buffer to the path, unless it was set.
const UNIX_BUFFER_BYTES: usize = 400_000;

/// The settings that a socket had.
#[derive(Debug)]
pub(crate) struct SocketSettings {
    /// Its timeout, if that was exchanged. The inner `None` is a socket without one.
    timeout: Option<Option<Duration>>,
    buffer_bytes: Option<usize>,
}

impl SocketSettings {
    /// Sets what we want, and returns what was there. A socket that does not block needs no timeout.
    pub(crate) fn exchange(fd: &OwnedFd, direction: Direction, blocking: bool) -> io::Result<Self> {
        let timeout = if blocking { Some(exchange_timeout(fd, direction)?) } else { None };
        // A buffer that stays small only costs time.
        let buffer_bytes = enlarge_buffer(fd, direction).unwrap_or(None);
        Ok(Self { timeout, buffer_bytes })
    }

    /// Gives back what was there. Fails only if the socket is gone, and then it does not matter.
    pub(crate) fn restore(&self, fd: &OwnedFd, direction: Direction) {
        if let Some(timeout) = self.timeout {
            let _ = sockopt::set_socket_timeout(fd, timeout_of(direction), timeout);
        }
        if let Some(bytes) = self.buffer_bytes {
            // What is read is twice what was set.
            let _ = sockopt::set_socket_send_buffer_size(fd, bytes / 2);
        }
    }
}

const fn timeout_of(direction: Direction) -> Timeout {
    match direction {
        Direction::Read => Timeout::Recv,
        Direction::Write => Timeout::Send,
    }
}

fn exchange_timeout(fd: &OwnedFd, direction: Direction) -> io::Result<Option<Duration>> {
    let before = sockopt::socket_timeout(fd, timeout_of(direction))?;
    sockopt::set_socket_timeout(fd, timeout_of(direction), Some(WAIT))?;
    Ok(before)
}

/// Enlarges a unix socket's buffer, and returns its size before; nothing if it is left alone. The bytes on their way
/// are accounted to the writer.
fn enlarge_buffer(fd: &OwnedFd, direction: Direction) -> io::Result<Option<usize>> {
    if direction == Direction::Read || sockopt::socket_domain(fd)? != AddressFamily::UNIX {
        return Ok(None);
    }
    let before = sockopt::socket_send_buffer_size(fd)?;
    if before >= 2 * UNIX_BUFFER_BYTES {
        return Ok(None);
    }
    sockopt::set_socket_send_buffer_size(fd, UNIX_BUFFER_BYTES)?;
    Ok(Some(before))
}
