// SPDX-License-Identifier: GPL-3.0-or-later
//! Where a stream comes from: a file descriptor read into our own memory, or straight into pages of the guest.

use std::{io, ops::Range, os::fd::RawFd};

use xenmig_types::PAGE_SIZE;

use crate::{
    Access, ForeignPages,
    fd::endpoint::{Direction, Endpoint, KeepWaiting, Manner, gathered, moved},
};

/// `IOV_MAX` of Linux: the most pieces that one call takes.
const IOV_MAX: usize = 1024;

/// A file descriptor that brings a stream.
#[derive(Debug)]
pub struct Source {
    endpoint: Endpoint,
    read: u64,
}

impl Source {
    /// Takes a duplicate of `fd`; the caller may close its own.
    ///
    /// # Errors
    ///
    /// `EBADF` if it is closed or not open for reading, `EISDIR`, `EPROTOTYPE` or `EINVAL` if it is of a kind that
    /// cannot bring a stream.
    pub fn new(fd: RawFd) -> io::Result<Self> {
        Ok(Self { endpoint: Endpoint::new(fd, Direction::Read)?, read: 0 })
    }

    /// Returns how many bytes were read so far.
    #[must_use]
    pub const fn read(&self) -> u64 {
        self.read
    }

    /// Fills `buffer`. While nothing comes, `keep_waiting` is asked at least every 100 ms and after every signal.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] if the stream ends before; [`io::ErrorKind::Interrupted`] if `keep_waiting`
    /// said no; else what the kernel says.
    pub fn read_exact(&mut self, buffer: &mut [u8], keep_waiting: &mut KeepWaiting<'_>) -> io::Result<()> {
        let mut pieces = [libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }];
        self.scatter(&mut pieces, keep_waiting)
    }

    /// Fills consecutive pages of a mapping with the next bytes of the stream.
    ///
    /// # Errors
    ///
    /// As for [`Source::read_exact`]; `EFAULT` if a page is not mapped for writing.
    pub fn read_pages(
        &mut self,
        pages: &ForeignPages,
        range: Range<usize>,
        keep_waiting: &mut KeepWaiting<'_>,
    ) -> io::Result<()> {
        let fault = || io::Error::from_raw_os_error(libc::EFAULT);
        if pages.access() != Access::Write {
            return Err(fault());
        }
        let mut pieces: Vec<libc::iovec> = Vec::new();
        for index in range {
            let base = pages.address(index).ok_or_else(fault)?.as_ptr();
            match pieces.last_mut() {
                Some(last) if last.iov_base.cast::<u8>().wrapping_add(last.iov_len) == base => {
                    last.iov_len += PAGE_SIZE;
                }
                _ => pieces.push(libc::iovec { iov_base: base.cast(), iov_len: PAGE_SIZE }),
            }
        }
        self.scatter(&mut pieces, keep_waiting)
    }

    fn scatter(
        &mut self,
        mut pieces: &mut [libc::iovec],
        keep_waiting: &mut KeepWaiting<'_>,
    ) -> io::Result<()> {
        while let Some(first) = pieces.first() {
            if first.iov_len == 0 {
                pieces = pieces.split_at_mut(1).1;
                continue;
            }
            match self.read_once(pieces) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Ok(bytes) => {
                    self.read += bytes as u64;
                    pieces = consume(pieces, bytes);
                }
                Err(error) => self.endpoint.after_error(error, self.read, keep_waiting)?,
            }
        }
        Ok(())
    }

    fn read_once(&self, pieces: &mut [libc::iovec]) -> io::Result<usize> {
        let count = pieces.len().min(IOV_MAX);
        #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "at most IOV_MAX")]
        let short_count = count as libc::c_int;
        moved(match self.endpoint.manner {
            // JUSTIFICATION: the safe way is to read into a buffer with `std::io::Read` and to copy from there. It takes
            // 567 ns of CPU time a page more from a file in tmpfs (1.41 times as much): 1 GiB in batches of 4 MiB,
            // medians of nine alternating pairs, 2 cores of an AMD EPYC, 2026-11-28.
            Manner::Plain => {
                // SAFETY: `count` pieces of a borrowed buffer or of pages that are mapped for writing, to which no
                // reference exists.
                unsafe { libc::readv(self.endpoint.raw(), pieces.as_ptr(), short_count) }
            }
            Manner::NoWait => {
                // SAFETY: as above. Offset -1: at the file's own position.
                unsafe {
                    libc::preadv2(self.endpoint.raw(), pieces.as_ptr(), short_count, -1, libc::RWF_NOWAIT)
                }
            }
            manner @ (Manner::Timed | Manner::DontWait) => {
                let mut message = gathered(pieces.as_ptr(), count);
                // SAFETY: as above; the message has no room for an address or control data.
                unsafe { libc::recvmsg(self.endpoint.raw(), &raw mut message, manner.flags()) }
            }
        })
    }
}

/// Takes `bytes` off the front of the pieces.
fn consume(mut pieces: &mut [libc::iovec], mut bytes: usize) -> &mut [libc::iovec] {
    while let Some(first) = pieces.first_mut() {
        if bytes < first.iov_len {
            first.iov_base = first.iov_base.cast::<u8>().wrapping_add(bytes).cast();
            first.iov_len -= bytes;
            break;
        }
        bytes -= first.iov_len;
        pieces = pieces.split_at_mut(1).1;
    }
    pieces
}
