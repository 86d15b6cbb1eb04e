// SPDX-License-Identifier: GPL-3.0-or-later
//! Domctls, memory ops and HVM parameters of one domain.

use super::{create, domctl, hypercall, page_types};
use crate::{
    caller_memory::Memory,
    faults::{self, Fault},
    kinds::Kind,
    layout::{
        self, CpuidLeaf, DomainCpuPolicy, GetDomainInfo, HvmContext, HvmParam, MemoryReservation, MsrEntry,
        RemoteShutdown, ctl, dominf, mem, op,
    },
};

const NOTAB: u64 = 0;
const XTAB: u64 = 0xf;

#[test]
fn types_tell_pages_from_holes() {
    let domain = create(r#"{"memory_pages": 16, "holes": [3, [8, 12]], "types": [[5, 13], [8, 14]]}"#);
    let gfns: Vec<u64> = (0..16).chain([1 << 40, u64::MAX]).collect();
    let types = page_types(domain.domid.get(), &gfns).unwrap();
    for (gfn, kind) in gfns.into_iter().zip(types) {
        let expected = match gfn {
            5 => 13,
            8 => 14,
            3 | 9..12 | 16.. => XTAB,
            _ => NOTAB,
        };
        assert_eq!(kind, expected, "gfn {gfn:#x}");
    }
    assert_eq!(page_types(domain.domid.get(), &[0; 1025]), Err(libc::E2BIG));
}

#[test]
fn a_context_is_read_in_two_steps() {
    let domid = create(r#"{"hvm_context_bytes": 1000}"#).domid.get();
    let asked = domctl(ctl::GETHVMCONTEXT, domid, HvmContext::default()).unwrap();
    assert_eq!(asked.size, 1000);
    let mut context = vec![0; 1000];
    let short = HvmContext { size: 999, buffer: context.as_mut_ptr() as u64, ..HvmContext::default() };
    assert_eq!(domctl(ctl::GETHVMCONTEXT, domid, short).err(), Some(libc::ENOSPC));
    assert!(context.iter().all(|byte| *byte == 0));
    domctl(ctl::GETHVMCONTEXT, domid, HvmContext { size: 1000, ..short }).unwrap();
    assert!(context.iter().any(|byte| *byte != 0));

    let target = create(r#"{"populated": false}"#).domid.get();
    domctl(ctl::SETHVMCONTEXT, target, HvmContext { size: 1000, ..short }).unwrap();
    let mut loaded = vec![0; 1000];
    let read = HvmContext { size: 4096, buffer: loaded.as_mut_ptr() as u64, ..HvmContext::default() };
    assert_eq!(domctl(ctl::GETHVMCONTEXT, target, read).unwrap().size, 1000);
    assert_eq!(loaded, context);
}

#[test]
fn the_tsc_counts_how_often_it_was_set() {
    let domid = create(r#"{"tsc": {"mode": 1, "khz": 5, "elapsed_ns": 7, "incarnation": 3}}"#).domid.get();
    let tsc = domctl(ctl::GETTSCINFO, domid, layout::TscInfo::default()).unwrap();
    assert_eq!((tsc.tsc_mode, tsc.gtsc_khz, tsc.elapsed_nsec, tsc.incarnation), (1, 5, 7, 3));
    domctl(ctl::SETTSCINFO, domid, tsc).unwrap();
    assert_eq!(domctl(ctl::GETTSCINFO, domid, tsc).unwrap().incarnation, 4);
}

#[test]
fn a_policy_is_read_if_there_is_room_and_set_before_the_domain_runs() {
    let source = create("{}").domid.get();
    let mut leaves = vec![CpuidLeaf::default(); 120];
    let mut msrs = vec![MsrEntry::default(); 2];
    let asked = DomainCpuPolicy {
        nr_leaves: 120,
        nr_msrs: 2,
        leaves: leaves.as_mut_ptr() as u64,
        msrs: msrs.as_mut_ptr() as u64,
        ..DomainCpuPolicy::default()
    };
    let read = domctl(ctl::GET_CPU_POLICY, source, asked).unwrap();
    assert_eq!((read.nr_leaves, read.nr_msrs), (32, 2));
    let small = DomainCpuPolicy { nr_leaves: 31, ..asked };
    assert_eq!(domctl(ctl::GET_CPU_POLICY, source, small).err(), Some(libc::ENOBUFS));
    assert_eq!(domctl(ctl::SET_CPU_POLICY, source, read).err(), Some(libc::EEXIST), "it runs");

    let target = create(r#"{"populated": false, "cpu_policy": {}}"#).domid.get();
    domctl(ctl::SET_CPU_POLICY, target, read).unwrap();
    let copy = domctl(ctl::GET_CPU_POLICY, target, asked).unwrap();
    assert_eq!((copy.nr_leaves, copy.nr_msrs), (32, 2));
    leaves[1].leaf = 0x10;
    assert_eq!(domctl(ctl::SET_CPU_POLICY, target, read).err(), Some(libc::ERANGE));
    assert_eq!(
        domctl(ctl::SET_CPU_POLICY, target, DomainCpuPolicy { nr_leaves: 121, ..read }).err(),
        Some(libc::E2BIG)
    );
}

#[test]
fn parameters_are_read_and_set() {
    let domid = create(r#"{"hvm_params": {"17": 99}}"#).domid.get();
    let call = |command, index, value| {
        let param = HvmParam { domid, index, value, ..HvmParam::default() };
        hypercall(op::HVM_OP, command, &raw const param as u64)?;
        Memory::User.read::<HvmParam>(&raw const param as u64).map(|param| param.value)
    };
    assert_eq!((call(1, 17, 0), call(1, 1, 5)), (Ok(99), Ok(0)));
    assert_eq!((call(0, 1, 7), call(1, 1, 0)), (Ok(7), Ok(7)));
    assert_eq!((call(1, 39, 0), call(0, 39, 0)), (Err(libc::EINVAL), Err(libc::EINVAL)));
}

#[test]
fn memory_is_given_and_taken_extent_by_extent() {
    let domid = create(r#"{"memory_pages": 1024, "populated": false}"#).domid.get();
    let call = |command, order, extents: &[u64]| {
        let asked = MemoryReservation {
            extent_start: extents.as_ptr() as u64,
            nr_extents: extents.len() as u64,
            extent_order: order,
            domid,
            ..MemoryReservation::default()
        };
        hypercall(op::MEMORY_OP, command, &raw const asked as u64)
    };
    assert_eq!(call(mem::POPULATE_PHYSMAP, 0, &[0, 5, 4, 0, 6]), Ok(3), "0 is taken");
    assert_eq!(call(mem::POPULATE_PHYSMAP, 9, &[512]), Ok(1));
    assert_eq!(
        page_types(domid, &[0, 1, 4, 5, 6, 511, 512, 1023, 1024]).unwrap(),
        [0, 15, 0, 0, 15, 15, 0, 0, 15]
    );
    assert_eq!(call(mem::DECREASE_RESERVATION, 0, &[4, 7, 5]), Ok(1), "7 is a hole");
    assert_eq!(page_types(domid, &[4, 5]).unwrap(), [15, 0]);
    let many: Vec<u64> = (2048..5000).collect();
    let room = 1024 - 2 - 512;
    assert_eq!(call(mem::POPULATE_PHYSMAP, 0, &many), Ok(room), "the domain may not have more");
}

#[test]
fn more_extents_than_a_chunk_are_populated_in_their_order() {
    let domid = create(r#"{"memory_pages": 2500, "populated": false}"#).domid.get();
    let frames: Vec<u64> = (0..2500).map(|frame| frame * 3).collect();
    let asked = MemoryReservation {
        extent_start: frames.as_ptr() as u64,
        nr_extents: 2500,
        domid,
        ..MemoryReservation::default()
    };
    assert_eq!(hypercall(op::MEMORY_OP, mem::POPULATE_PHYSMAP, &raw const asked as u64), Ok(2500));
    let types = page_types(domid, &[0, 1, 3 * 1023, 3 * 1024, 3 * 1024 + 1, 3 * 2499]).unwrap();
    assert_eq!(types, [NOTAB, XTAB, NOTAB, NOTAB, XTAB, NOTAB]);
}

#[test]
fn a_domain_is_suspended_and_resumed_from_outside() {
    let domid = create("{}").domid.get();
    let shutdown = |reason| {
        let shutdown = RemoteShutdown { domain_id: domid, reason, ..RemoteShutdown::default() };
        hypercall(op::SCHED_OP, 4, &raw const shutdown as u64)
    };
    let flags = || domctl(ctl::GETDOMAININFO, domid, GetDomainInfo::default()).unwrap().flags;
    assert_eq!(shutdown(1), Err(libc::EOPNOTSUPP));
    assert_eq!(shutdown(2), Ok(0));
    assert_eq!(flags() & dominf::SHUTDOWN, dominf::SHUTDOWN);
    assert_eq!(flags() >> dominf::SHUTDOWN_SHIFT, 2);
    domctl(ctl::RESUMEDOMAIN, domid, GetDomainInfo::default()).unwrap();
    assert_eq!(flags() & (dominf::SHUTDOWN | dominf::RUNNING), dominf::RUNNING);
    domctl(ctl::PAUSEDOMAIN, domid, GetDomainInfo::default()).unwrap();
    assert_eq!(flags() & (dominf::PAUSED | dominf::RUNNING), dominf::PAUSED);
    domctl(ctl::UNPAUSEDOMAIN, domid, GetDomainInfo::default()).unwrap();
    assert_eq!(flags() & dominf::RUNNING, dominf::RUNNING);
    domctl(ctl::DESTROYDOMAIN, domid, GetDomainInfo::default()).unwrap();
    assert!(crate::host::domain(domid).is_none());
}

#[test]
fn the_nth_call_of_a_kind_fails_so_many_times_for_one_domain() {
    let (domid, other) = (create("{}").domid.get(), create("{}").domid.get());
    let tsc = |domid| domctl(ctl::GETTSCINFO, domid, layout::TscInfo::default()).err();
    faults::add(&Fault::Errno {
        kind: Kind::GetTscInfo,
        domid: Some(domid),
        nth: 2,
        times: 2,
        errno: libc::EBUSY,
    });
    assert_eq!([tsc(domid), tsc(other), tsc(other), tsc(domid)], [None; 4]);
    assert_eq!([tsc(domid), tsc(domid), tsc(domid)], [Some(libc::EBUSY), Some(libc::EBUSY), None]);
    assert_eq!(crate::host::domain(domid).unwrap().tally.get(Kind::GetTscInfo), 5);
}
