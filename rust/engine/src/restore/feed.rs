// SPDX-License-Identifier: GPL-3.0-or-later
//! Where the stream comes from, and whom to ask while it does not come: a [`Source`] and the caller, as the one
//! thing that the stream's reader reads from.

use std::{
    fmt,
    io::{self, Read},
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use xenmig_hypervisor::{ForeignPages, HypervisorError, Source};
use xenmig_stream::StreamError;

use super::{MissingPolicies, RestoreCaller, RestoreError, RestoreProgress};
use crate::CallerError;

/// The caller is asked at least so often whether to go on.
const LISTEN_INTERVAL: Duration = Duration::from_millis(100);
/// A call that says EBUSY, EAGAIN or EINTR is made again so often, at this distance.
const BUSY_RETRIES: u32 = 1000;
const BUSY_WAIT: Duration = Duration::from_millis(1);

pub(super) struct Feed<'a> {
    source: &'a mut Source,
    /// What the source had read before.
    start: u64,
    caller: &'a mut dyn RestoreCaller,
    listened: Instant,
    /// What the caller said when it ended a wait.
    interrupt: Option<CallerError>,
}

impl fmt::Debug for Feed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("source", &self.source).finish_non_exhaustive()
    }
}

impl<'a> Feed<'a> {
    pub(super) fn new(source: &'a mut Source, caller: &'a mut dyn RestoreCaller) -> Self {
        Self { start: source.read(), source, caller, listened: Instant::now(), interrupt: None }
    }

    /// Returns how many bytes were read.
    pub(super) const fn bytes(&self) -> u64 {
        self.source.read() - self.start
    }

    /// Fills consecutive pages of a mapping. If that fails, it says how many bytes it took.
    pub(super) fn read_pages(
        &mut self,
        pages: &ForeignPages,
        range: Range<usize>,
    ) -> Result<(), (u64, io::Error)> {
        let before = self.source.read();
        let Self { source, caller, interrupt, .. } = self;
        source
            .read_pages(pages, range, &mut |_| keep_waiting(*caller, interrupt))
            .map_err(|error| (source.read() - before, lasting(error)))
    }

    /// Asks the caller whether to go on, if it is time.
    pub(super) fn listen(&mut self) -> Result<(), RestoreError> {
        if self.listened.elapsed() < LISTEN_INTERVAL {
            return Ok(());
        }
        self.listened = Instant::now();
        self.caller.interrupted().map_err(RestoreError::Interrupted)
    }

    /// Tells the caller that the static data is complete.
    pub(super) fn static_data_done(&mut self, missing: MissingPolicies) -> Result<(), RestoreError> {
        self.caller.static_data_done(missing).map_err(RestoreError::StaticData)
    }

    /// Tells the caller how far the restore is.
    pub(super) fn tell(&mut self, progress: &RestoreProgress) -> Result<(), RestoreError> {
        self.caller.progress(progress).map_err(RestoreError::Progress)
    }

    /// Makes a call of the hypervisor, and makes it again while it says that it may succeed later.
    pub(super) fn retry<T>(
        &mut self,
        mut call: impl FnMut() -> Result<T, HypervisorError>,
    ) -> Result<T, RestoreError> {
        let mut tries = 0;
        loop {
            match call() {
                Err(error) if error.is_transient() && tries < BUSY_RETRIES => tries += 1,
                result => return Ok(result?),
            }
            thread::sleep(BUSY_WAIT);
            self.listen()?;
        }
    }

    /// Tells a read that failed from one that the caller ended.
    pub(super) fn explain(&mut self, error: RestoreError) -> RestoreError {
        match error {
            RestoreError::Stream(StreamError::Io { source, .. }) => match self.interrupt.take() {
                Some(interrupt) => RestoreError::Interrupted(interrupt),
                None => RestoreError::Transport(source),
            },
            error => error,
        }
    }
}

impl Read for Feed<'_> {
    /// Waits until the buffer is full: the reader asks for nothing that it does not need. At the end of the stream
    /// it hands out what came, and then nothing.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let before = self.source.read();
        let Self { source, caller, interrupt, .. } = self;
        match source.read_exact(buffer, &mut |_| keep_waiting(*caller, interrupt)) {
            Ok(()) => Ok(buffer.len()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                usize::try_from(source.read() - before).map_err(io::Error::other)
            }
            Err(error) => Err(lasting(error)),
        }
    }
}

/// Asks the caller whether a wait shall go on, and keeps its reason if not.
fn keep_waiting(caller: &mut dyn RestoreCaller, interrupt: &mut Option<CallerError>) -> bool {
    match caller.interrupted() {
        Ok(()) => true,
        Err(error) => {
            *interrupt = Some(error);
            false
        }
    }
}

/// An interruption by the caller is meant to last, but readers try again when they see the kind of it.
fn lasting(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::Interrupted { io::Error::other(error) } else { error }
}
