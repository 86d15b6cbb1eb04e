// SPDX-License-Identifier: GPL-3.0-or-later
//! The file descriptor under a [`Sink`](crate::Sink) or a [`Source`](crate::Source): which kinds are taken, and how
//! to wait on one without losing the ability to stop.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, Mode, OFlags, fcntl_getfl, fstat, open},
    net::{SocketType, sockopt},
    termios::isatty,
};

use crate::fd::socket::SocketSettings;

/// How long a wait lasts before the caller is asked again whether to go on.
pub(crate) const WAIT: Duration = Duration::from_millis(100);
const WAIT_IN_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Asked at least every 100 ms while a stream's other end is not ready, with the number of bytes that the stream has moved so
/// far; it answers whether to go on.
pub type KeepWaiting<'a> = dyn FnMut(u64) -> bool + 'a;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// How a call on the descriptor is made, so that it blocks for 100 ms at most: it says `EAGAIN` then. The descriptor's
/// own `O_NONBLOCK` is left alone, since others may share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// A file, which never makes a call wait; or our own descriptor, which is `O_NONBLOCK`.
    Plain,
    /// A socket that blocks: `sendmsg` and `recvmsg`, with a timeout in the socket. The kernel waits better than a
    /// poll between two calls: it goes on as soon as there is room for a page.
    Timed,
    /// A socket without such a timeout: `MSG_DONTWAIT`.
    DontWait,
    /// Anything else: `RWF_NOWAIT`, for as long as the kernel takes it.
    NoWait,
}

impl Manner {
    /// Returns the flags of a call on a socket.
    pub(crate) const fn flags(self) -> libc::c_int {
        match self {
            Self::DontWait => libc::MSG_DONTWAIT,
            Self::Plain | Self::Timed | Self::NoWait => 0,
        }
    }
}

/// A duplicate of the caller's descriptor, so that the caller may close its own at any time.
#[derive(Debug)]
pub(crate) struct Endpoint {
    fd: OwnedFd,
    direction: Direction,
    pub(crate) manner: Manner,
    /// It is a pipe: a write may raise SIGPIPE.
    pub(crate) is_pipe: bool,
    /// What the socket had before, if this is one; given back when this is dropped.
    before: Option<SocketSettings>,
}

impl Endpoint {
    /// Duplicates `fd` after checking that a stream can go through it.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is closed or open the other way, `EISDIR` for a directory, `EPROTOTYPE` for a socket that keeps
    /// message boundaries, `EINVAL` for anything else that is no file, device, pipe or stream socket.
    pub(crate) fn new(fd: RawFd, direction: Direction) -> io::Result<Self> {
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        // SAFETY: F_DUPFD_CLOEXEC takes any number; one that is no open descriptor gives EBADF.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        if copy < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(copy) };
        let flags = fcntl_getfl(&fd)?;
        let wrong = match direction {
            Direction::Read => OFlags::WRONLY,
            Direction::Write => OFlags::RDONLY,
        };
        if flags.contains(OFlags::PATH) || flags & OFlags::ACCMODE == wrong {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let kind = FileType::from_raw_mode(fstat(&fd)?.st_mode);
        let (fd, manner) = match kind {
            FileType::RegularFile | FileType::BlockDevice => (fd, Manner::Plain),
            // A terminal changes what it is given, and cannot be written to without blocking.
            FileType::CharacterDevice if isatty(&fd) => {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            FileType::CharacterDevice => (fd, Manner::NoWait),
            // RWF_NOWAIT on pipes is of Linux 6.5: before that, only our own description helps.
            FileType::Fifo => match reopen(&fd, direction) {
                Ok(own) => (own, Manner::Plain),
                Err(_) => (fd, Manner::NoWait),
            },
            FileType::Socket if sockopt::socket_type(&fd)? == SocketType::STREAM => (fd, Manner::DontWait),
            FileType::Socket => return Err(io::Error::from_raw_os_error(libc::EPROTOTYPE)),
            FileType::Directory => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
            _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        let blocking = !flags.contains(OFlags::NONBLOCK);
        let (manner, before) = match manner {
            Manner::DontWait => match SocketSettings::exchange(&fd, direction, blocking) {
                Ok(before) if blocking => (Manner::Timed, Some(before)),
                Ok(before) => (manner, Some(before)),
                Err(_) => (manner, None),
            },
            manner => (manner, None),
        };
        Ok(Self { fd, direction, manner, is_pipe: kind == FileType::Fifo, before })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Deals with a call that moved nothing: waits if the other end is not ready, and asks `keep_waiting`,
    /// which hears that the descriptor has moved `moved` bytes so far.
    /// Returns normally if the call should be made again.
    ///
    /// # Errors
    ///
    /// `error` itself if it is final; [`io::ErrorKind::Interrupted`] if `keep_waiting` said no.
    pub(crate) fn after_error(
        &mut self,
        error: io::Error,
        moved: u64,
        keep_waiting: &mut KeepWaiting<'_>,
    ) -> io::Result<()> {
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN) if self.manner == Manner::Timed => {}
            Some(libc::EAGAIN) => self.poll()?,
            // This kind of file cannot be kept from blocking (an old kernel): let it.
            Some(libc::EOPNOTSUPP | libc::ENOSYS) if self.manner == Manner::NoWait => {
                self.manner = Manner::Plain;
                return Ok(());
            }
            _ => return Err(error),
        }
        if keep_waiting(moved) { Ok(()) } else { Err(io::Error::from(io::ErrorKind::Interrupted)) }
    }

    fn poll(&self) -> io::Result<()> {
        let events = match self.direction {
            Direction::Read => PollFlags::IN,
            Direction::Write => PollFlags::OUT,
        };
        match poll(&mut [PollFd::new(&self.fd, events)], Some(&WAIT_IN_POLL)) {
            Err(error) if error != rustix::io::Errno::INTR => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Makes the message of a `sendmsg` or `recvmsg` that moves `count` pieces and nothing else.
pub(crate) fn gathered(pieces: *const libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: a msghdr of zeros is valid: no address, no pieces, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.cast_mut();
    message.msg_iovlen = count;
    message
}

/// The result of a libc call that says how many bytes it moved.
pub(crate) fn moved(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            before.restore(&self.fd, self.direction);
        }
    }
}

/// Opens the pipe of `fd` once more, as our own description, which does not block.
fn reopen(fd: &OwnedFd, direction: Direction) -> io::Result<OwnedFd> {
    let access = match direction {
        Direction::Read => OFlags::RDONLY,
        Direction::Write => OFlags::WRONLY,
    };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(open(path, access | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}
