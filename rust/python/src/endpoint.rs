// SPDX-License-Identifier: GPL-3.0-or-later
//! The descriptor of a stream: taken from Python, checked, and if it cannot be used, an exception that says what it
//! is and what is needed.

use std::io::{self, Read};

use pyo3::{intern, prelude::*};
use xenmig_engine::CallerError;
use xenmig_hypervisor::{Sink, Source};

use crate::{
    args::Fd,
    caller::interrupted,
    errors::{self, Aftermath},
};

/// Takes a descriptor that a stream is written to.
pub(crate) fn sink(py: Python<'_>, fd: Fd) -> PyResult<Sink> {
    Sink::new(fd.raw()).map_err(|error| unusable(py, fd, "writing", &error))
}

/// Takes a descriptor that a stream is read from.
pub(crate) fn source(py: Python<'_>, fd: Fd) -> PyResult<Source> {
    Source::new(fd.raw()).map_err(|error| unusable(py, fd, "reading", &error))
}

fn unusable(py: Python<'_>, fd: Fd, purpose: &str, error: &io::Error) -> PyErr {
    const EBADF: i32 = 9;
    const EISDIR: i32 = 21;
    const EINVAL: i32 = 22;
    const EPROTOTYPE: i32 = 91;
    let what = match error.raw_os_error() {
        Some(EBADF) if is_open(py, fd) => format!("is not open for {purpose}"),
        Some(EBADF) => "is not open".to_owned(),
        Some(EISDIR) => "is a directory".to_owned(),
        Some(EPROTOTYPE) => "is a socket that keeps the boundaries of messages".to_owned(),
        Some(EINVAL) => "is of a kind that carries no bytes in order".to_owned(),
        _ => format!("cannot be used: {error}"),
    };
    let message = format!(
        "{fd} {what}: a stream needs a file, a device, a pipe or a stream socket, open for {purpose}"
    );
    errors::transport(py, error, message, Aftermath::default())
}

fn is_open(py: Python<'_>, fd: Fd) -> bool {
    py.import(intern!(py, "os")).and_then(|os| os.call_method1(intern!(py, "fstat"), (fd.raw(),))).is_ok()
}

/// A descriptor that is read to its end, whatever it holds.
#[derive(Debug)]
pub(crate) struct Image {
    source: Source,
    interruption: Option<CallerError>,
}

impl Image {
    pub(crate) fn new(py: Python<'_>, fd: Fd) -> PyResult<Self> {
        Ok(Self { source: source(py, fd)?, interruption: None })
    }

    /// Returns the exception that ended the reading, if one did.
    pub(crate) fn interruption(self, py: Python<'_>) -> Option<PyErr> {
        self.interruption.map(|error| errors::passed_through(py, error, Aftermath::default()))
    }
}

impl Read for Image {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let before = self.source.read();
        let interruption = &mut self.interruption;
        let result = self.source.read_exact(buffer, &mut |_| match interrupted() {
            Ok(()) => true,
            Err(error) => {
                *interruption = Some(error);
                false
            }
        });
        match result {
            Ok(()) => Ok(buffer.len()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                usize::try_from(self.source.read() - before).map_err(io::Error::other)
            }
            // A reader is expected to try again after this one.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(io::Error::other(error)),
            Err(error) => Err(error),
        }
    }
}
