// SPDX-License-Identifier: GPL-3.0-or-later
//! A host that fails: each verb gives the right error. Every restore checks that no mapping is left.

use std::collections::BTreeMap;

use xenmig_engine::restore::RestoreError;
use xenmig_hypervisor::{Errno, HypervisorError};
use xenmig_sim::{Fault, Verb};
use xenmig_types::{Gfn, Pfn, pv::GuestWidth};

use super::{
    guest::{DATA, PvGuest, WIDTHS, restore_pv},
    host::{EBUSY, EPERM, PvHost, Refusal, SHARED_INFO_FRAME},
};

fn counts(guest: &PvGuest) -> BTreeMap<&'static str, u32> {
    let host = PvHost::new(100);
    restore_pv(&host, &guest.stream()).unwrap();
    host.counts()
}

#[test]
fn each_call_of_each_verb_can_fail() {
    for width in WIDTHS {
        let guest = PvGuest::new(width);
        let counts = counts(&guest);
        assert_eq!(counts.len(), if width == GuestWidth::Bits32 { 7 } else { 6 }, "{counts:?}");
        for (verb, count) in counts {
            for after in 0..count {
                let host = PvHost::new(100);
                host.refuse(Refusal { verb, after, times: 1, errno: EPERM });
                let error = restore_pv(&host, &guest.stream()).unwrap_err().error;
                let RestoreError::Hypervisor(HypervisorError::Call { op, errno, .. }) = error else {
                    panic!("{verb} {after}: {error}")
                };
                assert_eq!((op, errno), (verb, Errno(EPERM)));
            }
        }
    }
}

#[test]
fn a_busy_host_is_asked_again() {
    let guest = PvGuest::new(GuestWidth::Bits32);
    for (verb, count) in counts(&guest) {
        let host = PvHost::new(100);
        host.refuse(Refusal { verb, after: count - 1, times: 3, errno: EBUSY });
        restore_pv(&host, &guest.stream()).unwrap();
        guest.check(&host);
        assert_eq!(host.counts()[verb], count + 3);
    }
}

#[test]
fn tables_that_were_pinned_before_the_host_was_busy_are_not_pinned_twice() {
    let guest = PvGuest::new(GuestWidth::Bits64);
    for after in 0..2 {
        let host = PvHost::new(100);
        host.pin_at_most(1);
        host.refuse(Refusal { verb: "pin_tables", after, times: 3, errno: EBUSY });
        restore_pv(&host, &guest.stream()).unwrap();
        guest.check(&host);
        assert_eq!((host.pinned().len(), host.counts()["pin_tables"]), (2, 5));
    }
}

#[test]
fn a_host_that_pins_nothing_and_does_not_say_why_is_not_asked_for_ever() {
    let host = PvHost::new(100);
    host.pin_at_most(0);
    let error = restore_pv(&host, &PvGuest::new(GuestWidth::Bits64).stream()).unwrap_err().error;
    assert!(
        matches!(error, RestoreError::Hypervisor(HypervisorError::Call { errno: Errno(5), .. })),
        "{error}"
    );
}

#[test]
fn a_page_that_cannot_be_mapped_is_named() {
    let guest = PvGuest::new(GuestWidth::Bits64);
    // The frames are always the same ones.
    let known = PvHost::new(100);
    restore_pv(&known, &guest.stream()).unwrap();
    let host = PvHost::new(100);
    let frame = known.frame(DATA.start).unwrap();
    host.machine.inject(Fault::PageMapErrno { pfn: Pfn(frame), errno: EPERM });
    let error = restore_pv(&host, &guest.stream()).unwrap_err().error;
    let RestoreError::Map { pfn, errno, .. } = error else { panic!("{error}") };
    assert_eq!((pfn, errno), (Pfn(DATA.start), Errno(EPERM)));

    let host = PvHost::new(100);
    host.machine.inject(Fault::PageMapErrno { pfn: Pfn(SHARED_INFO_FRAME), errno: EPERM });
    let error = restore_pv(&host, &guest.stream()).unwrap_err().error;
    assert!(error.to_string().starts_with("mapping the shared info page of domain d1 failed"), "{error}");
}

#[test]
fn a_domain_that_gets_too_little() {
    for (limit, backwards) in [(3, false), (3, true), (12, true)] {
        let guest = PvGuest::new(GuestWidth::Bits64);
        let host = PvHost::new(limit);
        let stream = guest.state(guest.all(guest.start(), backwards)).end();
        let error = restore_pv(&host, &stream).unwrap_err().error;
        let RestoreError::Populate { given, asked, .. } = error else { panic!("{error}") };
        assert!(given < asked && given <= limit);
        assert_eq!(host.pfns().len() as u64, limit);
    }
}

#[test]
fn frames_that_no_guest_can_have() {
    let cases = [
        (GuestWidth::Bits64, u64::MAX),
        (GuestWidth::Bits64, 1 << 40),
        (GuestWidth::Bits64, (1 << 52) - 1),
        (GuestWidth::Bits32, u64::MAX),
        (GuestWidth::Bits32, 0xffff_ffff),
        (GuestWidth::Bits32, 1 << 32),
    ];
    for (width, frame) in cases {
        for backwards in [false, true] {
            let (guest, host) = (PvGuest::new(width), PvHost::new(100));
            host.give_odd_frame(frame);
            let stream = guest.state(guest.all(guest.start(), backwards)).end();
            let error = restore_pv(&host, &stream).unwrap_err().error;
            assert!(
                matches!(error, RestoreError::FrameTooHigh { frame: found } if found == Gfn(frame)),
                "{error}"
            );
        }
    }
    // The highest that fit are accepted; mapping them shows that they do not exist.
    for (width, frame) in [(GuestWidth::Bits64, (1 << 40) - 1), (GuestWidth::Bits32, 0xffff_fffe)] {
        let (guest, host) = (PvGuest::new(width), PvHost::new(100));
        host.give_odd_frame(frame);
        let error = restore_pv(&host, &guest.stream()).unwrap_err().error;
        assert!(matches!(error, RestoreError::Map { .. }), "{error}");
    }
}

#[test]
fn the_policy_is_set_once_and_the_tsc() {
    let host = PvHost::new(100);
    restore_pv(&host, &PvGuest::new(GuestWidth::Bits64).stream()).unwrap();
    let counters = host.machine.counters();
    assert_eq!((counters.calls(Verb::SetCpuPolicy), counters.calls(Verb::SetTscInfo)), (1, 1));
}
