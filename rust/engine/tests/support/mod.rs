// SPDX-License-Identifier: GPL-3.0-or-later
//! What the tests of the save engine share: a toolstack and policies that write down what they were asked, a host
//! between engine and simulation that does the same, the stream taken apart, and the check that nothing is lost.

#![allow(dead_code, reason = "each test binary uses its part of this")]

pub(crate) mod account;
pub(crate) mod domains;
pub(crate) mod libxc;
pub(crate) mod policies;
pub(crate) mod stream;
pub(crate) mod tap;
pub(crate) mod toolstack;

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    os::fd::AsRawFd,
};

use proptest::test_runner::{Config as ProptestConfig, FileFailurePersistence};
use xenmig_engine::{Policy, SaveFailure, SaveOptions, SaveReport};
use xenmig_hypervisor::{Hypervisor, Sink};
use xenmig_sim::SimDomain;

use self::toolstack::Toolstack;

/// Runs this many cases. Inputs that fail are kept beside the test, in `NAME.regressions`: commit that file.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    let kept = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(kept)), ..ProptestConfig::default() }
}

/// An error of a test's own, to be recognised when it comes out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the test's own error: {0}")]
pub(crate) struct Mine(pub(crate) &'static str);

/// A save that has ended, and what it left in its file.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) result: Result<SaveReport, SaveFailure>,
    pub(crate) bytes: Vec<u8>,
    /// What the sink says it wrote.
    pub(crate) written: u64,
    /// The file, to be restored from.
    pub(crate) file: File,
}

impl Saved {
    /// Returns the report of a save that succeeded.
    pub(crate) fn report(&self) -> &SaveReport {
        match &self.result {
            Ok(report) => report,
            Err(failure) => panic!("the save failed: {failure}"),
        }
    }

    /// Returns why a save failed.
    pub(crate) fn failure(&self) -> &SaveFailure {
        match &self.result {
            Ok(report) => panic!("the save succeeded: {report:?}"),
            Err(failure) => failure,
        }
    }

    /// Takes the stream apart. It must keep to the format, up to where it ends.
    pub(crate) fn stream(&self) -> stream::Stream {
        stream::Stream::decode(&self.bytes).unwrap()
    }
}

/// Saves a domain into a file of its own.
pub(crate) fn save_to_file(
    host: &dyn Hypervisor,
    domain: &SimDomain,
    options: &SaveOptions,
    policy: Option<&mut dyn Policy>,
    toolstack: &mut Toolstack<'_>,
) -> Saved {
    let mut file = tempfile::tempfile().unwrap();
    let mut sink = Sink::new(file.as_raw_fd()).unwrap();
    let result = xenmig_engine::save(host, domain.domid(), &mut sink, options, policy, toolstack);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    Saved { result, bytes, written: sink.written(), file }
}
