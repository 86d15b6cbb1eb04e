// SPDX-License-Identifier: GPL-3.0-or-later
//! Records that are not memory: what is applied, when, and what must be there.

use xenmig_engine::restore::RestoreError;
use xenmig_hypervisor::Hypervisor;
use xenmig_sim::{Fault, SimHost, Verb};
use xenmig_stream::{RecordKind, StreamError, encode};
use xenmig_types::{CpuPolicy, Domid, GuestKind, PAGE_SIZE, Pfn, TscInfo, VcpuPart};

use super::build::{CONTEXT, Stream, TSC, error_of, policy, restore_into, target};

fn context_of(host: &SimHost, domid: Domid) -> Vec<u8> {
    host.hvm_context(domid).unwrap()
}

#[test]
fn all_of_it_arrives() {
    let (host, domain) = target();
    restore_into(&host, &domain, &Stream::typical()).unwrap();
    let domid = domain.domid();
    assert_eq!(context_of(&host, domid), CONTEXT);
    assert_eq!(host.hvm_param(domid, 1).unwrap(), 0xfeffc);
    assert_eq!(host.hvm_param(domid, 17).unwrap(), 0xfeffb);
    assert_eq!(host.cpu_policy(domid).unwrap(), policy());
    // The host counts an incarnation for each time that the TSC is set: once.
    assert_eq!(host.tsc_info(domid).unwrap(), TscInfo { incarnation: 5, ..TSC });
}

#[test]
fn parameters_are_set_before_the_context_whatever_the_order_of_the_records() {
    let orders: [fn() -> Stream; 2] = [
        || Stream::new().context().params(&[(9, 1), (12, 2)]),
        || Stream::new().params(&[(9, 1), (12, 2)]).context(),
    ];
    for order in orders {
        let (host, domain) = target();
        domain.inject(Fault::Errno { verb: Verb::SetHvmParam, nth: 1, errno: 22 });
        let error = restore_into(&host, &domain, &order().end()).unwrap_err().error;
        assert!(matches!(error, RestoreError::Param { index: 12, value: 2, .. }), "{error}");
        assert_eq!(domain.counters().calls(Verb::SetHvmContext), 0);
    }
}

#[test]
fn a_parameter_without_meaning_is_left_out() {
    let (host, domain) = target();
    restore_into(&host, &domain, &Stream::new().params(&[(4, 1), (9, 1)]).context().end()).unwrap();
    assert_eq!(host.hvm_param(domain.domid(), 4).unwrap(), 0);
    assert_eq!(host.hvm_param(domain.domid(), 9).unwrap(), 1);
}

#[test]
fn the_last_context_wins() {
    let (host, domain) = target();
    let stream = Stream::new().with(|out| encode::hvm_context(out, &[1; 30]).unwrap()).context();
    restore_into(&host, &domain, &stream.end()).unwrap();
    assert_eq!(context_of(&host, domain.domid()), CONTEXT);
    assert_eq!(domain.counters().calls(Verb::SetHvmContext), 1);
}

#[test]
fn policies_that_are_missing_are_reported() {
    for (leaves, entries) in [(0, 0), (24, 0), (0, 16), (24, 16)] {
        let (host, domain) = target();
        let policy = CpuPolicy { cpuid: vec![3; leaves], msrs: vec![4; entries] };
        let stream = Stream::headers(GuestKind::Hvm)
            .with(|out| encode::cpu_policy(out, &policy).unwrap())
            .with(encode::static_data_end);
        let report = restore_into(&host, &domain, &stream.context().end()).unwrap();
        assert_eq!(report.missing_cpuid_policy, leaves == 0);
        assert_eq!(report.missing_msr_policy, entries == 0);
        assert_eq!(host.cpu_policy(domain.domid()).unwrap(), policy);
        assert_eq!(domain.counters().calls(Verb::SetCpuPolicy), u64::from(leaves + entries > 0));
    }
}

#[test]
fn a_policy_that_comes_too_late_is_refused() {
    for policy in [
        CpuPolicy { cpuid: vec![3; 24], msrs: Vec::new() },
        CpuPolicy { cpuid: Vec::new(), msrs: vec![3; 16] },
    ] {
        let late = Stream::new().with(|out| encode::cpu_policy(out, &policy).unwrap()).context();
        let error = error_of(&late.end());
        assert!(matches!(error, RestoreError::Unsupported { offset: 48, .. }), "{error}");
    }
}

#[test]
fn no_guest_without_a_context() {
    let void = |out: &mut Vec<u8>| out.extend([9, 0, 0, 0, 0, 0, 0, 0]);
    for stream in [Stream::new().pages([1]), Stream::new().with(void)] {
        let error = error_of(&stream.end());
        assert!(matches!(error, RestoreError::Missing(RecordKind::HvmContext)), "{error}");
    }
}

#[test]
fn records_to_be_skipped_are_counted() {
    let (host, domain) = target();
    let void_params = |out: &mut Vec<u8>| out.extend([10, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let optional = |out: &mut Vec<u8>| out.extend([7, 0, 0, 0x80, 3, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0, 0]);
    let stream = Stream::new().with(optional).with(void_params).with(optional).context();
    let report = restore_into(&host, &domain, &stream.end()).unwrap();
    assert_eq!((report.optional_records_skipped, report.void_records_skipped, report.records), (2, 1, 6));
}

#[test]
fn version_two_has_no_static_data_end() {
    let (host, domain) = target();
    let bytes = Stream::version_2().pages([1, 2]).context().end();
    let report = restore_into(&host, &domain, &bytes).unwrap();
    assert_eq!((report.stream_version, report.records, report.pages_received), (2, 3, 2));
    assert!(report.missing_cpuid_policy && report.missing_msr_policy);

    let error = error_of(&Stream::headers(GuestKind::Hvm).pages([1]).context().end());
    let open = matches!(
        error,
        RestoreError::Stream(StreamError::StaticDataOpen { offset: 40, kind: RecordKind::PageData })
    );
    assert!(open, "{error}");
}

#[test]
fn records_of_other_guests_and_other_uses_are_refused() {
    type Write = fn(&mut Vec<u8>);
    let cases: [(Write, RecordKind); 7] = [
        (encode::checkpoint, RecordKind::Checkpoint),
        (
            |out| encode::record(out, RecordKind::CheckpointDirtyPfnList, &[&[0; 8]]).unwrap(),
            RecordKind::CheckpointDirtyPfnList,
        ),
        (|out| encode::record(out, RecordKind::Toolstack, &[b"blob"]).unwrap(), RecordKind::Toolstack),
        (|out| encode::pv_info(out, 8, 4), RecordKind::PvInfo),
        (|out| encode::pv_p2m_frames(out, 0, 1, &[Pfn(5)]).unwrap(), RecordKind::PvP2mFrames),
        (|out| encode::pv_vcpu(out, VcpuPart::Xsave, 0, &[1]).unwrap(), RecordKind::PvVcpuXsave),
        (|out| encode::shared_info(out, &[0; PAGE_SIZE]), RecordKind::SharedInfo),
    ];
    for (write, expected) in cases {
        let error = error_of(&Stream::new().with(write).context().end());
        let RestoreError::Unsupported { kind, offset: 48, .. } = error else { panic!("{error}") };
        assert_eq!(kind, expected);
    }
    let error = error_of(&Stream::headers(GuestKind::Pv).end());
    assert!(matches!(error, RestoreError::Refused { .. }) && error.to_string().contains("PV"), "{error}");
}

#[test]
fn records_of_other_uses_are_refused_even_if_they_are_void() {
    for kind in [RecordKind::Toolstack, RecordKind::CheckpointDirtyPfnList, RecordKind::PvVcpuXsave] {
        let void = |out: &mut Vec<u8>| out.extend([kind.number().to_le_bytes(), [0; 4]].concat());
        let error = error_of(&Stream::new().with(void).context().end());
        let RestoreError::Unsupported { kind: found, offset: 48, .. } = error else { panic!("{error}") };
        assert_eq!(found, kind);
    }
}
