// SPDX-License-Identifier: GPL-3.0-or-later
//! The caller: it is told of progress, may interrupt while nothing comes, and gets its own errors back unchanged.

use std::{
    fmt,
    io::Write,
    os::{fd::AsRawFd, unix::net::UnixStream},
    thread,
    time::{Duration, Instant},
};

use xenmig_engine::{
    CallerError, Interrupt,
    restore::{
        RestoreCaller, RestoreError, RestoreEvent, RestoreFailure, RestoreOptions, RestoreProgress,
        RestoreReport, restore,
    },
};
use xenmig_hypervisor::Source;
use xenmig_sim::{Fault, Verb};
use xenmig_stream::encode;

use super::build::{Stream, restore_with, target};

#[derive(Debug, PartialEq)]
struct Enough;

impl fmt::Display for Enough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("enough")
    }
}

impl std::error::Error for Enough {}

/// Counts its calls and fails at a given one.
#[derive(Default)]
struct Counting {
    progress: Vec<RestoreProgress>,
    interrupted: usize,
    fail_progress: Option<usize>,
    fail_interrupted: Option<usize>,
}

impl RestoreCaller for Counting {
    fn observe(&mut self, event: &RestoreEvent) -> Result<(), CallerError> {
        let RestoreEvent::Progress(progress) = event else { return Ok(()) };
        self.progress.push(progress.clone());
        if self.fail_progress == Some(self.progress.len()) { Err(Enough.into()) } else { Ok(()) }
    }
}

impl Interrupt for Counting {
    fn interrupted(&mut self) -> Result<(), CallerError> {
        self.interrupted += 1;
        if self.fail_interrupted == Some(self.interrupted) { Err(Enough.into()) } else { Ok(()) }
    }
}

fn every_time() -> RestoreOptions {
    RestoreOptions { progress_interval: Duration::ZERO, ..RestoreOptions::default() }
}

/// Restores what `send` writes into a socket, into a new domain.
fn through_a_socket(
    caller: &mut Counting,
    send: impl FnOnce(UnixStream) + Send + 'static,
) -> Result<RestoreReport, RestoreFailure> {
    let (host, domain) = target();
    let (here, there) = UnixStream::pair().unwrap();
    let mut source = Source::new(here.as_raw_fd()).unwrap();
    drop(here);
    let sender = thread::spawn(move || send(there));
    let result = restore(&host, domain.domid(), &mut source, &RestoreOptions::default(), caller);
    drop(source);
    sender.join().unwrap();
    assert_eq!(domain.counters().mappings_now, 0);
    result
}

#[test]
fn progress_grows_to_the_whole() {
    let (host, domain) = target();
    let mut caller = Counting::default();
    let bytes = Stream::new().pages(0..2048).with(encode::verify).pages([1]).context().end();
    let report = restore_with(&host, &domain, &bytes, &every_time(), &mut caller).unwrap();
    let progress = &caller.progress;
    assert!(progress.len() >= 6, "{}", progress.len());
    assert!(progress.is_sorted_by_key(|p| (p.bytes_received, p.pages_received, p.records, p.elapsed)));
    assert!(
        progress.iter().any(|p| (p.pages_received, p.pages_populated) == (1024, 1024)),
        "within a record"
    );
    assert_eq!((progress[0].verifying, progress[progress.len() - 1].verifying), (false, true));
    let last = &progress[progress.len() - 1];
    assert_eq!((last.pages_received, last.bytes_received), (2049, report.bytes_received - 8));
}

#[test]
fn progress_keeps_its_interval() {
    let (host, domain) = target();
    let mut caller = Counting::default();
    let options = RestoreOptions { progress_interval: Duration::from_secs(100), ..RestoreOptions::default() };
    restore_with(&host, &domain, &Stream::typical(), &options, &mut caller).unwrap();
    assert_eq!(caller.progress.len(), 1);
}

#[test]
fn an_error_of_progress_comes_out_as_it_is() {
    let (host, domain) = target();
    let mut caller = Counting { fail_progress: Some(3), ..Counting::default() };
    let failure = restore_with(&host, &domain, &Stream::typical(), &every_time(), &mut caller).unwrap_err();
    let RestoreError::Observer(error) = failure.error else { panic!("{failure}") };
    assert_eq!(error.downcast_ref(), Some(&Enough));
    assert_eq!(caller.progress.len(), 3);
}

#[test]
fn a_sender_that_says_nothing_can_be_left() {
    for sent in [0, 20, 43, 60, 5000] {
        let mut caller = Counting { fail_interrupted: Some(2), ..Counting::default() };
        let began = Instant::now();
        let failure = through_a_socket(&mut caller, move |mut socket| {
            socket.write_all(&Stream::new().pages([1, 2]).0[..sent]).unwrap();
            // Until the other end is closed.
            std::io::Read::read(&mut socket, &mut [0]).ok();
        })
        .unwrap_err();
        let RestoreError::Interrupted(error) = failure.error else { panic!("{sent}: {failure}") };
        assert_eq!(error.downcast_ref(), Some(&Enough));
        assert_eq!(failure.bytes_read, sent as u64);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[test]
fn a_slow_sender_is_waited_for() {
    let mut caller = Counting::default();
    let report = through_a_socket(&mut caller, |mut socket| {
        let bytes = Stream::new().pages([1, 2, 3]).context().end();
        for (number, piece) in bytes.chunks(1201).enumerate() {
            socket.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(if number == 0 { 350 } else { 1 }));
        }
    })
    .unwrap();
    assert_eq!(report.pages_received, 3);
    assert!(caller.interrupted >= 3, "asked {} times in 350 ms", caller.interrupted);
}

#[test]
fn a_host_that_is_busy_for_long_can_be_left() {
    let (host, domain) = target();
    for nth in 0..300 {
        domain.inject(Fault::Errno { verb: Verb::SetTscInfo, nth, errno: 16 });
    }
    let mut caller = Counting { fail_interrupted: Some(1), ..Counting::default() };
    let failure = restore_with(&host, &domain, &Stream::typical(), &every_time(), &mut caller).unwrap_err();
    assert!(matches!(failure.error, RestoreError::Interrupted(_)), "{failure}");
    assert!(domain.counters().calls(Verb::SetTscInfo) < 200);
}
