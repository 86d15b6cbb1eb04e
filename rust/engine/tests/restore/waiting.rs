// SPDX-License-Identifier: GPL-3.0-or-later
//! What ends a restore while it waits for its stream: a sender that stalls, and a domain that is no longer as it was.

use std::{
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::Arc,
    thread,
    time::Duration,
};

use xenmig_engine::restore::{DomainChange, RestoreError, RestoreFailure, RestoreOptions, restore};
use xenmig_hypervisor::{Hypervisor, HypervisorError, Source};
use xenmig_sim::{Fault, SimDomain, SimHost, Verb};

use super::build::{Quiet, Stream, restore_into, target};

/// Restores from a sender that sends `sent` and then nothing, while `meanwhile` happens to the domain.
fn from_a_silent_sender(
    sent: &[u8],
    options: &RestoreOptions,
    meanwhile: impl FnOnce(&SimHost, &SimDomain) + Send + 'static,
) -> RestoreFailure {
    let (host, domain) = target();
    let (here, mut there) = UnixStream::pair().unwrap();
    there.write_all(sent).unwrap();
    let mut source = Source::new(here.as_raw_fd()).unwrap();
    drop(here);
    let failure = thread::scope(|scope| {
        let (host, other) = (&host, Arc::clone(&domain));
        scope.spawn(move || {
            meanwhile(host, &other);
            // Until the other end is closed.
            let _ = there.read(&mut [0]);
        });
        let failure = restore(host, domain.domid(), &mut source, options, &mut Quiet).unwrap_err();
        drop(source);
        failure
    });
    assert_eq!(domain.counters().mappings_now, 0);
    failure
}

#[test]
fn a_sender_that_stalls_is_given_up() {
    let options =
        RestoreOptions { stall_timeout: Some(Duration::from_millis(150)), ..RestoreOptions::default() };
    let bytes = Stream::new().pages([1, 2]).0;
    for sent in [0, 20, 43, 60, 5000] {
        let failure = from_a_silent_sender(&bytes[..sent], &options, |_, _| {});
        let RestoreError::Stalled(time) = failure.error else { panic!("{sent}: {failure}") };
        assert!(time >= Duration::from_millis(150), "{time:?}");
        assert_eq!(failure.bytes_read, sent as u64);
    }
}

#[test]
fn a_sender_that_is_slow_does_not_stall() {
    let (host, domain) = target();
    let (here, mut there) = UnixStream::pair().unwrap();
    let mut source = Source::new(here.as_raw_fd()).unwrap();
    let sender = thread::spawn(move || {
        // Each wait is shorter than the limit, all of them together are longer.
        for part in Stream::new().pages([1, 2, 3]).context().end().chunks(4096) {
            thread::sleep(Duration::from_millis(250));
            there.write_all(part).unwrap();
        }
    });
    let options = RestoreOptions { stall_timeout: Some(Duration::from_secs(5)), ..RestoreOptions::default() };
    restore(&host, domain.domid(), &mut source, &options, &mut Quiet).unwrap();
    sender.join().unwrap();
}

#[test]
fn a_domain_that_is_destroyed_or_started_ends_the_wait_for_the_sender() {
    type Meanwhile = fn(&SimHost, &SimDomain);
    let cases: [(Meanwhile, DomainChange, &str); 3] = [
        (
            |host, domain| host.destroy(domain.domid()).unwrap(),
            DomainChange::Destroyed,
            "domain d1 was destroyed during the restore",
        ),
        (
            |_, domain| domain.unpause().unwrap(),
            DomainChange::Started,
            "domain d1 was started by another program during the restore",
        ),
        (
            |_, domain| {
                domain.unpause().unwrap();
                domain.suspend().unwrap();
            },
            DomainChange::ShutDown,
            "domain d1 was started by another program and shut down during the restore",
        ),
    ];
    for (meanwhile, expected, text) in cases {
        let sent = Stream::new().pages([1, 2]).0;
        let failure = from_a_silent_sender(&sent, &RestoreOptions::default(), move |host, domain| {
            // Once the restore has begun.
            while domain.populated_pages() == 0 {
                thread::yield_now();
            }
            meanwhile(host, domain);
        });
        let RestoreError::Changed { change, .. } = failure.error else { panic!("{failure}") };
        assert_eq!((change, failure.error.to_string().as_str()), (expected, text));
    }
}

#[test]
fn a_call_that_fails_because_the_domain_is_gone_says_so() {
    for (verb, nth) in [(Verb::Map, 1), (Verb::Populate, 1), (Verb::SetHvmContext, 0)] {
        let (host, domain) = target();
        domain.inject(Fault::Errno { verb, nth, errno: 3 });
        // As it is when the domain goes between two calls.
        domain.inject(Fault::Errno { verb: Verb::DomainInfo, nth: 1, errno: 3 });
        let error = restore_into(&host, &domain, &Stream::typical()).unwrap_err().error;
        let destroyed = matches!(error, RestoreError::Changed { change: DomainChange::Destroyed, .. });
        assert!(destroyed, "{verb:?}: {error}");
    }
}

#[test]
fn a_call_that_fails_for_another_reason_says_which() {
    let (host, domain) = target();
    domain.inject(Fault::Errno { verb: Verb::SetHvmContext, nth: 0, errno: 22 });
    domain.inject(Fault::Errno { verb: Verb::DomainInfo, nth: 1, errno: 22 });
    let error = restore_into(&host, &domain, &Stream::typical()).unwrap_err().error;
    assert!(
        matches!(error, RestoreError::Hypervisor(HypervisorError::Call { op, .. }) if op == Verb::SetHvmContext.name())
    );
    assert!(host.domain_info(domain.domid()).is_ok());
}
