// SPDX-License-Identifier: GPL-3.0-or-later
//! Records that are not memory: their order and contents, and what they name.

use xenmig_engine::restore::{NamedPage, RestoreError, RestoreOptions};
use xenmig_sim::{DomainConfig, SimHost};
use xenmig_stream::{RecordKind, encode};
use xenmig_types::{
    GuestKind, PAGE_SIZE, PageType, Pfn, VcpuPart,
    pv::{GuestWidth, start_info, vcpu_context},
};

use super::{
    super::build::{Quiet, Stream, TSC, restore_into, restore_on},
    guest::{
        DATA, GDT, HIGHEST, L1, L3, P2M, P2M_LAST, PvGuest, START_INFO, STORE, USER_L4, WIDTHS, get,
        restore_pv, set,
    },
    host::{MAX_VCPU_ID, PvHost},
};

fn wide() -> PvGuest {
    PvGuest::new(GuestWidth::Bits64)
}

fn headers() -> Stream {
    Stream::headers(GuestKind::Pv)
}

fn error_of(bytes: &[u8]) -> RestoreError {
    restore_pv(&PvHost::new(100), bytes).unwrap_err().error
}

/// Restores a guest, which must fail for a page that it names.
fn named(guest: &PvGuest) -> (NamedPage, u64, &'static str) {
    let error = error_of(&guest.stream());
    let RestoreError::Named { what, pfn: Pfn(pfn), why } = error else { panic!("{error}") };
    (what, pfn, why)
}

const ABSENT: &str = "which the guest does not have";
const NOT_PLAIN: &str = "which is no ordinary page";
const NOT_TOP: &str = "which is no page table of the top level";

#[test]
fn kinds_of_stream_and_domain_must_agree() {
    let error = error_of(&Stream::typical());
    assert!(matches!(error, RestoreError::Refused { .. }), "{error}");
    assert!(error.to_string().ends_with("the stream is of an HVM or PVH guest, and the domain is a PV one"));

    let host = SimHost::new();
    let domain = host.create(DomainConfig { populated: false, ..DomainConfig::default() }).unwrap();
    let failure = restore_into(&host, &domain, &wide().stream()).unwrap_err();
    assert!(matches!(failure.error, RestoreError::Refused { .. }), "{failure}");
    assert_eq!(failure.bytes_read, 40, "the headers alone");
}

#[test]
fn records_out_of_place_are_refused() {
    type Write = fn(&mut Vec<u8>);
    let info: Write = |out| encode::pv_info(out, 8, 4);
    let frames: Write = |out| encode::pv_p2m_frames(out, 0, 511, &[Pfn(0)]).unwrap();
    let shared: Write = |out| encode::shared_info(out, &[0; PAGE_SIZE]);
    let vcpu: Write = |out| encode::pv_vcpu(out, VcpuPart::Xsave, 0, &[0; 16]).unwrap();
    let sde: Write = encode::static_data_end;
    let context: Write = |out| encode::hvm_context(out, &[1]).unwrap();
    let params: Write = |out| out.extend([10, 0, 0, 0, 24, 0, 0, 0, 1].into_iter().chain([0; 23]));
    let page: Write =
        |out| encode::page_data(out, &[xenmig_stream::PageWord::new(Pfn(1), PageType::Xtab)]).unwrap();
    let cases: [(&[Write], RecordKind, &str); 9] = [
        (&[info, info], RecordKind::PvInfo, "second"),
        (&[sde, info], RecordKind::PvInfo, "STATIC_DATA_END"),
        (&[sde, frames], RecordKind::PvP2mFrames, "X86_PV_INFO"),
        (&[sde, shared], RecordKind::SharedInfo, "X86_PV_INFO"),
        (&[sde, vcpu], RecordKind::PvVcpuXsave, "X86_PV_INFO"),
        (&[sde, page], RecordKind::PageData, "X86_PV_P2M_FRAMES"),
        (&[info, sde, page], RecordKind::PageData, "X86_PV_P2M_FRAMES"),
        (&[info, sde, context], RecordKind::HvmContext, "HVM"),
        (&[info, sde, params], RecordKind::HvmParams, "HVM"),
    ];
    for (writes, expected, part) in cases {
        let stream = writes.iter().fold(headers(), |stream, write| stream.with(write));
        let mut last = Vec::new();
        writes[writes.len() - 1](&mut last);
        let at = (stream.0.len() - last.len()) as u64;
        let error = error_of(&stream.end());
        let RestoreError::Unsupported { kind, offset, why } = error else { panic!("{error}") };
        assert_eq!((kind, offset), (expected, at));
        assert!(why.contains(part), "{why}");
    }
}

#[test]
fn memory_comes_before_the_vcpus() {
    let guest = wide();
    let vcpu = |out: &mut Vec<u8>| encode::pv_vcpu(out, VcpuPart::Xsave, 0, &[0; 16]).unwrap();
    let frames =
        |out: &mut Vec<u8>| encode::pv_p2m_frames(out, 0, HIGHEST as u32, &guest.p2m_pages()).unwrap();
    let started = guest.start().pages([DATA.start]).with(vcpu);
    for (stream, expected) in [
        (guest.start().with(vcpu), RecordKind::PvVcpuXsave),
        (Stream(started.0.clone()).pages([DATA.start + 1]), RecordKind::PageData),
        (Stream(started.0).with(frames), RecordKind::PvP2mFrames),
    ] {
        let error = error_of(&stream.end());
        let RestoreError::Unsupported { kind, why, .. } = error else { panic!("{error}") };
        assert_eq!(kind, expected);
        assert!(why.contains("before"), "{why}");
    }
}

#[test]
fn widths_and_levels_that_do_not_go_together() {
    for (width, levels) in [(8, 3), (4, 4)] {
        let error = error_of(&headers().with(|out| encode::pv_info(out, width, levels)).end());
        assert!(
            matches!(error, RestoreError::Unsupported { kind: RecordKind::PvInfo, offset: 40, .. }),
            "{error}"
        );
    }
}

#[test]
fn parts_of_the_p2m_that_make_no_sense() {
    let frames = |first, last, count: u64| {
        let frames: Vec<_> = (0..count).map(Pfn).collect();
        move |out: &mut Vec<u8>| encode::pv_p2m_frames(out, first, last, &frames).unwrap()
    };
    let with = |width: GuestWidth| {
        headers()
            .with(|out| encode::pv_info(out, width.bytes(), width.levels()))
            .with(encode::static_data_end)
    };
    for (width, first, last, count) in [
        (GuestWidth::Bits64, 0, 511, 2),
        (GuestWidth::Bits64, 0, 512, 1),
        (GuestWidth::Bits64, 511, 512, 1),
        (GuestWidth::Bits32, 0, 1024, 1),
        (GuestWidth::Bits32, 0, 1023, 2),
        // A gap, which would be as large as the stream says.
        (GuestWidth::Bits64, 512, 512, 1),
        (GuestWidth::Bits64, u32::MAX, u32::MAX, 1),
        (GuestWidth::Bits32, u32::MAX - 1, u32::MAX - 1, 1),
        (GuestWidth::Bits32, u32::MAX, u32::MAX, 1),
    ] {
        let error = error_of(&with(width).with(frames(first, last, count)).end());
        let RestoreError::Unsupported { kind, offset, why } = error else { panic!("{error}") };
        let at = with(width).0.len() as u64;
        assert_eq!((kind, offset), (RecordKind::PvP2mFrames, at), "{width:?} {first:#x} {last:#x} {count}");
        assert_eq!(why.contains("32-bit"), (width, last) == (GuestWidth::Bits32, u32::MAX), "{why}");
    }
}

#[test]
fn vcpus_that_make_no_sense() {
    let with = |width, part, vcpu, state: &[u8]| {
        let guest = PvGuest::new(width);
        guest.start().with(|out| encode::pv_vcpu(out, part, vcpu, state).unwrap()).end()
    };
    for width in WIDTHS {
        let length = width.context_bytes();
        let cases = [
            (VcpuPart::Basic, 0, length - 1),
            (VcpuPart::Basic, 0, length + 1),
            (VcpuPart::Extended, 0, 129),
            (VcpuPart::Xsave, 0, 15),
            (VcpuPart::Xsave, 0, (1 << 16) + 1),
            (VcpuPart::Msrs, 0, 17),
            (VcpuPart::Msrs, 0, 4096 + 16),
            (VcpuPart::Msrs, MAX_VCPU_ID + 1, 16),
            (VcpuPart::Basic, u32::MAX, length),
        ];
        for (part, vcpu, length) in cases {
            let error = error_of(&with(width, part, vcpu, &vec![0; length]));
            let RestoreError::Unsupported { kind, .. } = error else { panic!("{part:?} {length}: {error}") };
            assert_eq!(kind, RecordKind::of_vcpu(part));
        }
        let mut context = vec![0; length];
        set(&mut context, width, vcpu_context::GDT_ENTRIES, vcpu_context::MAX_GDT_ENTRIES + 1);
        let error = error_of(&with(width, VcpuPart::Basic, 1, &context));
        assert!(error.to_string().contains("GDT"), "{error}");
    }
}

#[test]
fn lengths_at_the_limits_are_taken_and_the_last_of_a_kind_holds() {
    let mut guest = wide();
    for (part, length) in [(VcpuPart::Extended, 1), (VcpuPart::Xsave, 1 << 16), (VcpuPart::Msrs, 4096)] {
        guest.vcpus.push((MAX_VCPU_ID, part, vec![1; length]));
        guest.vcpus.push((MAX_VCPU_ID, part, vec![2; length]));
    }
    let host = PvHost::new(100);
    restore_pv(&host, &guest.stream()).unwrap();
    assert_eq!(host.vcpu(MAX_VCPU_ID, VcpuPart::Xsave), Some(vec![2; 1 << 16]));
    assert_eq!(host.vcpu(MAX_VCPU_ID, VcpuPart::Extended), Some(vec![2]));
}

#[test]
fn a_gdt_may_be_as_long_as_xen_has_room() {
    for (entries, frames) in [(0, 0), (1, 1), (512, 1), (7168, 14)] {
        let mut guest = wide();
        guest.set_register(2, vcpu_context::GDT_ENTRIES, entries);
        for index in 0..16 {
            let pfn = if index < frames { DATA.start + index as u64 % 10 } else { 0x9999 };
            guest.set_register(2, vcpu_context::GDT_FRAMES.at(index), pfn);
        }
        let host = PvHost::new(100);
        restore_pv(&host, &guest.stream()).unwrap();
        let context = host.vcpu(2, VcpuPart::Basic).unwrap();
        for index in 0..16 {
            let pfn = host.pfn(get(&context, guest.width, vcpu_context::GDT_FRAMES.at(index)));
            assert_eq!(pfn, (index < frames).then_some(DATA.start + index as u64 % 10));
        }
    }
}

#[test]
fn without_user_page_tables_there_are_none() {
    let mut guest = wide();
    // Without bit 0 it has no meaning, and must not reach Xen as a frame.
    guest.set_register(0, vcpu_context::CR1, USER_L4 << 12);
    let host = PvHost::new(100);
    restore_pv(&host, &guest.stream()).unwrap();
    assert_eq!(get(&host.vcpu(0, VcpuPart::Basic).unwrap(), guest.width, vcpu_context::CR1), 0);
}

#[test]
fn what_a_guest_cannot_do_without() {
    for width in WIDTHS {
        let guest = PvGuest::new(width);
        let without = |kind: RecordKind| {
            let mut guest = guest.clone();
            guest.vcpus.retain(|(vcpu, part, _)| *vcpu != 0 || RecordKind::of_vcpu(*part) != kind);
            let stream = guest.all(guest.start(), false);
            let (shared, stream) = (guest.shared_info(), stream.with(|out| encode::tsc_info(out, &TSC)));
            let stream = match kind {
                RecordKind::SharedInfo => stream,
                _ => stream.with(|out| encode::shared_info(out, &shared)),
            };
            let vcpus = guest.vcpus.iter();
            vcpus
                .fold(stream, |stream, (vcpu, part, state)| {
                    stream.with(|out| encode::pv_vcpu(out, *part, *vcpu, state).unwrap())
                })
                .end()
        };
        for expected in [RecordKind::SharedInfo, RecordKind::PvVcpuBasic] {
            let error = error_of(&without(expected));
            let RestoreError::Missing(found) = error else { panic!("{error}") };
            assert_eq!(found, expected);
        }
        restore_pv(&PvHost::new(100), &without(RecordKind::PvVcpuMsrs)).unwrap();
    }
    let error = error_of(&headers().with(encode::static_data_end).end());
    assert!(matches!(error, RestoreError::Missing(RecordKind::PvInfo)), "{error}");
}

#[test]
fn version_two_has_no_static_data_end() {
    for width in WIDTHS {
        let guest = PvGuest::new(width);
        let mut start = headers()
            .with(|out| encode::pv_info(out, width.bytes(), width.levels()))
            .with(|out| encode::pv_p2m_frames(out, 0, HIGHEST as u32, &guest.p2m_pages()).unwrap());
        start.0[15] = 2;
        let host = PvHost::new(100);
        let report = restore_pv(&host, &guest.state(guest.all(start, false)).end()).unwrap();
        assert_eq!((report.stream_version, report.missing_cpuid_policy), (2, true));
        guest.check(&host);
    }
}

#[test]
fn without_channels_the_guest_is_told_none() {
    for width in WIDTHS {
        let (guest, host) = (PvGuest::new(width), PvHost::new(100));
        let report =
            restore_on(&host, &host.machine, &guest.stream(), &RestoreOptions::default(), &mut Quiet)
                .unwrap();
        assert_eq!(report.store_gfn.map(|gfn| gfn.0), host.frame(STORE));
        let page = host.page(host.frame(START_INFO).unwrap());
        for field in [start_info::STORE_EVTCHN, start_info::CONSOLE_EVTCHN] {
            assert_eq!(get(&page, width, field), 0x1111_1111);
        }
        assert!(host.machine.grants().is_empty());
    }
}

#[test]
fn the_start_info_page() {
    for width in WIDTHS {
        for (pfn, why) in
            [(HIGHEST + 1, ABSENT), (HIGHEST - 1, ABSENT), (u32::MAX.into(), ABSENT), (L1, NOT_PLAIN)]
        {
            let mut guest = PvGuest::new(width);
            guest.set_register(0, vcpu_context::RDX, pfn);
            assert_eq!(named(&guest), (NamedPage::StartInfo, pfn, why));
        }
        for (field, what) in
            [(start_info::STORE_MFN, NamedPage::Store), (start_info::CONSOLE_MFN, NamedPage::Console)]
        {
            for pfn in [HIGHEST + 1, HIGHEST - 1, u32::MAX.into()] {
                let mut guest = PvGuest::new(width);
                set(&mut guest.pages.get_mut(&START_INFO).unwrap().1, width, field, pfn);
                assert_eq!(named(&guest), (what, pfn, ABSENT));
            }
        }
    }
}

#[test]
fn the_pages_of_a_gdt() {
    for width in WIDTHS {
        for (pfn, why) in [(HIGHEST + 1, ABSENT), (HIGHEST - 1, ABSENT), (L1, NOT_PLAIN)] {
            let mut guest = PvGuest::new(width);
            guest.set_register(2, vcpu_context::GDT_FRAMES.at(1), pfn);
            assert_eq!(named(&guest), (NamedPage::Gdt { vcpu: 2, index: 1 }, pfn, why));
        }
    }
}

#[test]
fn page_tables_of_vcpus() {
    for width in WIDTHS {
        let below_top = if width == GuestWidth::Bits64 { L3 } else { L1 };
        for (pfn, why) in [(HIGHEST + 1, ABSENT), (HIGHEST - 1, ABSENT), (GDT, NOT_TOP), (below_top, NOT_TOP)]
        {
            let mut guest = PvGuest::new(width);
            guest.set_register(2, vcpu_context::CR3, width.cr3_of_frame(pfn).unwrap());
            assert_eq!(named(&guest), (NamedPage::Cr3 { vcpu: 2 }, pfn, why));
            if width == GuestWidth::Bits64 {
                let mut guest = PvGuest::new(width);
                guest.set_register(2, vcpu_context::CR1, pfn << 12 | 1);
                assert_eq!(named(&guest), (NamedPage::Cr1 { vcpu: 2 }, pfn, why));
            }
        }
    }
}

#[test]
fn the_pages_of_the_p2m() {
    for (pfn, why) in [(HIGHEST + 1, ABSENT), (HIGHEST - 1, ABSENT), (L1, NOT_PLAIN), (u64::MAX, ABSENT)] {
        let guest = wide();
        let frames = [P2M, pfn, P2M_LAST].map(Pfn);
        let start = guest.start().with(|out| encode::pv_p2m_frames(out, 0, HIGHEST as u32, &frames).unwrap());
        let error = error_of(&guest.state(guest.all(start, false)).end());
        let RestoreError::Named { what, pfn: Pfn(found), why: said } = error else { panic!("{error}") };
        assert_eq!((what, found, said), (NamedPage::P2m { index: 1 }, pfn, why));
    }
    // A page that has become a hole is not one of the guest's pages.
    let guest = wide();
    let stream = guest.all(guest.start(), false).batch(&[(P2M, PageType::Xtab, 0)]);
    let error = error_of(&guest.state(stream).end());
    assert!(
        matches!(error, RestoreError::Named { what: NamedPage::P2m { index: 0 }, why: ABSENT, .. }),
        "{error}"
    );
}
