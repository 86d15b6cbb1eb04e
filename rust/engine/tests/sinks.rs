// SPDX-License-Identifier: GPL-3.0-or-later
//! The other end fails: a full disk, a closed pipe, a reader that goes away, a reader that does not read. The error is
//! the kernel's, the save can be interrupted, and what was written holds no END.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::single_range_in_vec_init,
    clippy::disallowed_methods,
    reason = "a test that meets the unexpected should panic, and some wait and measure by the machine's clock"
)]

mod support;

use std::{
    cell::Cell,
    io::{self, Read},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use support::{
    Mine, Saved,
    account::{nothing_left, nothing_lost},
    cases,
    domains::{Shape, libc_errno::*, writes},
    policies::Recorder,
    save_to_file,
    stream::Stream,
    toolstack::Toolstack,
};
use xenmig_engine::{ConsultMode, Decision, GuestState, SaveError, SaveFailure, SaveOptions, SaveReport};
use xenmig_hypervisor::Sink;
use xenmig_sim::{SimDomain, SimHost, When};
use xenmig_types::DomainState;

fn options() -> SaveOptions {
    SaveOptions { consult: ConsultMode::Batch, min_round: Duration::ZERO, ..SaveOptions::default() }
}

/// A domain whose stream is longer than any buffer of the kernel's.
fn domain(host: &SimHost) -> Arc<SimDomain> {
    let script = writes([(When::BeforeClean(0), (0..900).collect()), (When::AtSuspend, (0..900).collect())]);
    Shape { holes: vec![40..45], ..Shape::plain(1500) }.build(host, script)
}

fn save(
    host: &SimHost,
    to: &impl AsFd,
    toolstack: &mut Toolstack<'_>,
) -> (Result<SaveReport, SaveFailure>, u64) {
    save_as(host, to, toolstack, &options())
}

fn save_as(
    host: &SimHost,
    to: &impl AsFd,
    toolstack: &mut Toolstack<'_>,
    options: &SaveOptions,
) -> (Result<SaveReport, SaveFailure>, u64) {
    let mut sink = Sink::new(to.as_fd().as_raw_fd()).unwrap();
    let mut policy =
        Recorder::new(
            |_, stats| {
                if stats.iteration == 2 { Decision::StopAndCopy } else { Decision::Continue }
            },
        );
    let domid = toolstack.domain.domid();
    let result = xenmig_engine::save(host, domid, &mut sink, options, Some(&mut policy), toolstack);
    (result, sink.written())
}

/// Checks a save that the sink ended, and the bytes that came out at the other end.
fn torn(domain: &SimDomain, failure: &SaveFailure, written: u64, bytes: &[u8], errnos: &[i32]) {
    let SaveError::Transport { source, written: said } = &failure.error else { panic!("{failure}") };
    assert!(source.raw_os_error().is_some_and(|errno| errnos.contains(&errno)), "{failure}");
    assert_eq!(*said, written);
    assert!(bytes.len() as u64 <= written);
    assert!(!Stream::decode(bytes).unwrap().ended, "END behind a failure");
    nothing_left(domain, false);
    assert!(matches!(failure.guest, GuestState::Running | GuestState::Resumed));
    assert_eq!(domain.state(), DomainState::Running);
}

/// The domain can be saved again, to another reader.
fn save_again(host: &SimHost, domain: &SimDomain) {
    let saved = save_to_file(host, domain, &options(), None, &mut Toolstack::new(domain));
    nothing_lost(host, domain, &saved);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the device is the test")]
fn a_full_disk() {
    let host = SimHost::new();
    let domain = domain(&host);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (result, written) = save(&host, &full, &mut Toolstack::new(&domain));
    let failure = result.unwrap_err();
    torn(&domain, &failure, written, &[], &[ENOSPC]);
    assert!(failure.to_string().contains("No space left on device"), "{failure}");
    assert_eq!((written, failure.guest), (0, GuestState::Running));
    save_again(&host, &domain);
}

#[test]
fn nobody_at_the_other_end() {
    let host = SimHost::new();
    let domain = domain(&host);
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let (result, written) = save(&host, &writer, &mut Toolstack::new(&domain));
    torn(&domain, &result.unwrap_err(), written, &[], &[EPIPE]);
    assert_eq!(written, 0);
    save_again(&host, &domain);
}

/// The length of the stream of `domain()`.
fn stream_length() -> u64 {
    let host = SimHost::new();
    let domain = domain(&host);
    let (reader, writer) = UnixStream::pair().unwrap();
    let all = thread::spawn(move || read_and_leave(reader, u64::MAX));
    let (result, written) = save(&host, &writer, &mut Toolstack::new(&domain));
    result.unwrap();
    drop(writer);
    assert_eq!(all.join().unwrap().len() as u64, written);
    written
}

fn read_and_leave(from: impl Read, bytes: u64) -> Vec<u8> {
    let mut read = Vec::new();
    let _ = from.take(bytes).read_to_end(&mut read);
    read
}

/// A stream socket over loopback.
fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, near)
}

/// Saves to a reader that leaves after a number of bytes. Returns what it had read as well.
fn save_until(
    host: &SimHost,
    toolstack: &mut Toolstack<'_>,
    at: u64,
    (reader, writer): (impl Read + Send + 'static, impl AsFd),
) -> (Result<SaveReport, SaveFailure>, u64, Vec<u8>) {
    let other = thread::spawn(move || read_and_leave(reader, at));
    let (result, written) = save(host, &writer, toolstack);
    drop(writer);
    (result, written, other.join().unwrap())
}

#[test]
fn a_reader_that_goes_away_at_any_offset() {
    let length = stream_length();
    let suspended = Cell::new(0);
    // What the kernel has buffered is lost, so the last part of the stream may be written without error.
    let config = cases(60);
    proptest!(config, |(at in 0_u64..length - (1 << 20), kind in 0_u8..3)| {
        let host = SimHost::new();
        let domain = domain(&host);
        let mut toolstack = Toolstack::new(&domain);
        let (result, written, bytes) = match kind {
            0 => save_until(&host, &mut toolstack, at, io::pipe().unwrap()),
            1 => save_until(&host, &mut toolstack, at, UnixStream::pair().unwrap()),
            _ => save_until(&host, &mut toolstack, at, tcp_pair()),
        };
        prop_assert_eq!(bytes.len() as u64, at);
        match result {
            Err(failure) => {
                torn(&domain, &failure, written, &bytes, &[EPIPE, ECONNRESET]);
                suspended.set(suspended.get() + usize::from(failure.guest == GuestState::Resumed));
            }
            // TCP buffers megabytes: a rest that fits into them needs no reader.
            Ok(_) => prop_assert!(kind == 2),
        }
    });
    assert!(suspended.get() > 0, "no case reached the final pass");
}

/// A reader that never reads: the caller's interrupt ends the save, and soon.
#[test]
fn a_full_pipe_that_nobody_reads() {
    let after = Duration::from_millis(250);
    for (socket, live) in [(false, true), (true, true), (true, false)] {
        let options = SaveOptions { live, ..options() };
        let host = SimHost::new();
        let domain = domain(&host);
        let mut toolstack = Toolstack { interrupts_after: Some(after), ..Toolstack::new(&domain) };
        let began = Instant::now();
        let (result, reader): (_, Box<dyn Read>) = if socket {
            let (reader, writer) = UnixStream::pair().unwrap();
            (save_as(&host, &writer, &mut toolstack, &options), Box::new(reader))
        } else {
            let (reader, writer) = io::pipe().unwrap();
            (save_as(&host, &writer, &mut toolstack, &options), Box::new(reader))
        };
        let took = began.elapsed();
        assert!(took >= after && took < after + Duration::from_millis(250), "{took:?}");
        let (Err(failure), written) = result else { panic!("a pipe took the whole stream") };
        let SaveError::Interrupted(error) = &failure.error else { panic!("{failure}") };
        assert_eq!(error.downcast_ref(), Some(&Mine("interrupt")));
        assert_eq!(failure.guest, if live { GuestState::Running } else { GuestState::Resumed });
        let gaps = toolstack.interrupt_checks.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.max() < Some(Duration::from_millis(250)));
        let bytes = read_and_leave(reader, u64::MAX);
        assert_eq!(bytes.len() as u64, written);
        assert!(!Stream::decode(&bytes).unwrap().ended);
        nothing_left(&domain, false);
        save_again(&host, &domain);
    }
}

/// Reads odd amounts, with pauses.
fn read_slowly(mut from: impl Read, bytes: usize, pause_us: u64) -> Vec<u8> {
    let (mut all, mut some) = (Vec::new(), vec![0; bytes]);
    loop {
        match from.read(&mut some).unwrap() {
            0 => return all,
            read => all.extend_from_slice(&some[..read]),
        }
        thread::sleep(Duration::from_micros(pause_us * u64::from(all.len() % 3 == 0)));
    }
}

/// A reader that takes its time and odd amounts: every page comes through, in pieces. It makes no difference
/// whether the descriptor blocks.
#[test]
fn a_slow_reader_gets_everything() {
    for (bytes, pause_us) in [(1, 0), (4095, 200), (100_003, 2000)] {
        for blocks in [true, false] {
            let host = SimHost::new();
            let pages = if bytes == 1 { 20 } else { 1500 };
            let script = writes([(When::BeforeClean(0), (0..900).collect())]);
            let domain = Shape { xen_mapped_pages: 2, ..Shape::plain(pages) }.build(&host, script);
            let mut toolstack = Toolstack::new(&domain);
            let (result, written, bytes) = if blocks {
                let (reader, writer) = io::pipe().unwrap();
                let other = thread::spawn(move || read_slowly(reader, bytes, pause_us));
                let (result, written) = save(&host, &writer, &mut toolstack);
                drop(writer);
                (result, written, other.join().unwrap())
            } else {
                let (reader, writer) = UnixStream::pair().unwrap();
                writer.set_nonblocking(true).unwrap();
                let other = thread::spawn(move || read_slowly(reader, bytes, pause_us));
                let (result, written) = save(&host, &writer, &mut toolstack);
                drop(writer);
                (result, written, other.join().unwrap())
            };
            let saved = Saved { result, bytes, written, file: tempfile::tempfile().unwrap() };
            assert_eq!(saved.report().bytes_sent, saved.bytes.len() as u64);
            nothing_lost(&host, &domain, &saved);
        }
    }
}
