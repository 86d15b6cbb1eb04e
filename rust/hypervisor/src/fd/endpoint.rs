// SPDX-License-Identifier: GPL-3.0-or-later
//! The file descriptor under a [`Sink`](crate::Sink) or a [`Source`](crate::Source): which kinds are taken, and how
//! to wait on one without losing the ability to stop.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use crate::fd::socket::{self, SocketSettings};

/// How long a wait lasts before the caller is asked again whether to go on.
pub(crate) const WAIT_MS: libc::c_int = 100;

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
        let copy = check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) })?;
        // SAFETY: the kernel has just made this descriptor for us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(copy) };
        // SAFETY: F_GETFL only reads.
        let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
        let wrong = match direction {
            Direction::Read => libc::O_WRONLY,
            Direction::Write => libc::O_RDONLY,
        };
        if flags & libc::O_PATH != 0 || flags & libc::O_ACCMODE == wrong {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let kind = file_type(&fd)?;
        let (fd, manner) = match kind {
            libc::S_IFREG | libc::S_IFBLK => (fd, Manner::Plain),
            libc::S_IFCHR => (fd, Manner::NoWait),
            // RWF_NOWAIT on pipes is of Linux 6.5: before that, only our own description helps.
            libc::S_IFIFO => match reopen(&fd, direction) {
                Ok(own) => (own, Manner::Plain),
                Err(_) => (fd, Manner::NoWait),
            },
            libc::S_IFSOCK if socket::kind(&fd)? == libc::SOCK_STREAM => (fd, Manner::DontWait),
            libc::S_IFSOCK => return Err(io::Error::from_raw_os_error(libc::EPROTOTYPE)),
            libc::S_IFDIR => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
            _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        let blocking = flags & libc::O_NONBLOCK == 0;
        let (manner, before) = match manner {
            Manner::DontWait => match SocketSettings::exchange(&fd, direction, blocking) {
                Ok(before) if blocking => (Manner::Timed, Some(before)),
                Ok(before) => (manner, Some(before)),
                Err(_) => (manner, None),
            },
            manner => (manner, None),
        };
        Ok(Self { fd, direction, manner, is_pipe: kind == libc::S_IFIFO, before })
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
            // This kind of file has no way not to block (a terminal, an old kernel): block, then.
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
            Direction::Read => libc::POLLIN,
            Direction::Write => libc::POLLOUT,
        };
        let mut poll = libc::pollfd { fd: self.raw(), events, revents: 0 };
        // SAFETY: one pollfd, as the count says, borrowed for the call.
        match check(unsafe { libc::poll(&raw mut poll, 1, WAIT_MS) }) {
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => Err(error),
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

/// The result of a libc call that says -1 for an error.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
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

/// Opens the pipe behind `fd` once more, as our own description, which does not block.
fn reopen(fd: &OwnedFd, direction: Direction) -> io::Result<OwnedFd> {
    let path = CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    let access = match direction {
        Direction::Read => libc::O_RDONLY,
        Direction::Write => libc::O_WRONLY,
    };
    // SAFETY: a C string and flags; nothing is created.
    let own = check(unsafe { libc::open(path.as_ptr(), access | libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(own) })
}

fn file_type(fd: &OwnedFd) -> io::Result<libc::mode_t> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat fills the structure it is given, or fails.
    check(unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: fstat succeeded, so it is filled.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.st_mode & libc::S_IFMT)
}
