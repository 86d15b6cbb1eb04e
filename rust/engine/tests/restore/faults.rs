// SPDX-License-Identifier: GPL-3.0-or-later
//! A host that fails: each verb gives the right error. Every restore in these tests checks that no mapping is left.

use std::os::fd::AsRawFd;

use xenmig_engine::restore::{RestoreError, RestoreOptions, restore};
use xenmig_hypervisor::{Errno, HypervisorError, Source};
use xenmig_sim::{Counters, Fault, Verb};
use xenmig_types::Pfn;

use super::build::{Quiet, Stream, restore_into, target};

const EIO: i32 = 5;
const EBUSY: i32 = 16;

/// How often a restore of the typical stream calls each verb.
fn calls() -> Counters {
    let (host, domain) = target();
    restore_into(&host, &domain, &Stream::typical()).unwrap();
    domain.counters()
}

fn used_verbs() -> Vec<(Verb, u64)> {
    let calls = calls();
    let used: Vec<_> =
        Verb::ALL.into_iter().map(|verb| (verb, calls.calls(verb))).filter(|(_, calls)| *calls > 0).collect();
    assert_eq!(used.len(), 8, "{used:?}");
    used
}

fn errno_of(error: &RestoreError) -> Option<(&'static str, Errno)> {
    match error {
        RestoreError::Hypervisor(HypervisorError::Call { op, errno, .. })
        | RestoreError::Param { error: HypervisorError::Call { op, errno, .. }, .. } => Some((op, *errno)),
        _ => None,
    }
}

#[test]
fn each_call_of_each_verb_can_fail() {
    let mut tried = 0;
    for (verb, calls) in used_verbs() {
        for nth in 0..calls {
            let (host, domain) = target();
            domain.inject(Fault::Errno { verb, nth, errno: EIO });
            let result = restore_into(&host, &domain, &Stream::typical());
            if (verb, nth) == (Verb::Populate, 0) {
                // The superpage: small pages do.
                assert_eq!(result.unwrap().superpages, 0);
                continue;
            }
            let error = result.unwrap_err().error;
            assert_eq!(errno_of(&error), Some((verb.name(), Errno(EIO))), "{error}");
            tried += 1;
        }
    }
    assert_eq!(tried, 12);
}

#[test]
fn a_busy_host_is_asked_again() {
    for (verb, calls) in used_verbs().into_iter().filter(|(verb, _)| *verb != Verb::DomainInfo) {
        let (host, domain) = target();
        for errno in [EBUSY, 11, 4, EBUSY, EBUSY].into_iter().zip(calls - 1..) {
            domain.inject(Fault::Errno { verb, nth: errno.1, errno: errno.0 });
        }
        let report = restore_into(&host, &domain, &Stream::typical()).unwrap();
        assert_eq!((report.superpages, domain.counters().calls(verb)), (1, calls + 5), "{verb:?}");
    }
}

#[test]
fn a_host_that_stays_busy_is_given_up() {
    let (host, domain) = target();
    for nth in 0..=1000 {
        domain.inject(Fault::Errno { verb: Verb::SetHvmContext, nth, errno: EBUSY });
    }
    let error = restore_into(&host, &domain, &Stream::typical()).unwrap_err().error;
    assert_eq!(errno_of(&error), Some((Verb::SetHvmContext.name(), Errno(EBUSY))), "{error}");
    assert_eq!(domain.counters().calls(Verb::SetHvmContext), 1001);
}

#[test]
fn a_page_that_cannot_be_mapped_is_named() {
    let faults = [
        (Fault::PageMapErrno { pfn: Pfn(700), errno: EIO }, EIO),
        (Fault::VanishBeforeMap { pfn: Pfn(700) }, 22),
    ];
    for (fault, errno) in faults {
        let (host, domain) = target();
        domain.inject(fault);
        let error = restore_into(&host, &domain, &Stream::typical()).unwrap_err().error;
        let RestoreError::Map { domid, pfn: Pfn(700), errno: Errno(found) } = error else {
            panic!("{error}")
        };
        assert_eq!((domid, found), (domain.domid(), errno));
    }
}

#[test]
fn a_source_that_fails_keeps_its_errno() {
    let (host, domain) = target();
    // The first page of a process is never mapped, so reading it fails with EIO.
    #[expect(clippy::disallowed_methods, reason = "a file that cannot be read")]
    let file = std::fs::File::open("/proc/self/mem").unwrap();
    let mut source = Source::new(file.as_raw_fd()).unwrap();
    let failure =
        restore(&host, domain.domid(), &mut source, &RestoreOptions::default(), &mut Quiet).unwrap_err();
    let RestoreError::Transport(error) = failure.error else { panic!("{failure}") };
    assert_eq!((error.raw_os_error(), failure.bytes_read), (Some(EIO), 0));
}

#[test]
fn a_failure_says_what_where_and_how_far() {
    let (host, domain) = target();
    domain.inject(Fault::PageMapErrno { pfn: Pfn(700), errno: EIO });
    let failure = restore_into(&host, &domain, &Stream::typical()).unwrap_err();
    let text = failure.to_string();
    for part in ["pfn 0x2bc", "d1", "os error 5", &failure.bytes_read.to_string()] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}
