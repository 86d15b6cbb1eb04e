// SPDX-License-Identifier: GPL-3.0-or-later
//! A guest that is left alone: the records, what is in them, and that it arrives.

use xenmig_hypervisor::{CleanPass, Hypervisor, PvVerbs};
use xenmig_sim::{DomainConfig, P2mForm, PvConfig, Script, SimHost, Verb};
use xenmig_stream::Record;
use xenmig_types::{
    PageType, Pfn, VcpuPart,
    pv::{GuestWidth, Pte},
};

use crate::{
    guests::{FORMS, WIDTHS, all, assert_same_guest, guest, odd, options, plain, restored, saved},
    support::{account::nothing_left, save_to_file, toolstack::Toolstack},
};

#[test]
fn every_guest_arrives() {
    for config in all() {
        for live in [false, true] {
            let host = SimHost::new();
            let domain = guest(&host, &config, Script::new());
            let mut saved = saved(&host, &domain, live);
            let report = saved.report().clone();
            nothing_left(&domain, false);
            let (_host, copy, received) = restored(&config, &mut saved);
            assert_eq!(received.pages_received, report.pages_sent, "{config:?}");
            assert_eq!(received.pages_populated, domain.populated_pages());
            assert_same_guest(&domain, &copy);
        }
    }
}

#[test]
fn the_records_are_libxcs_in_its_order() {
    for config in all() {
        let host = SimHost::new();
        let domain = guest(&host, &config, Script::new());
        let stream = saved(&host, &domain, true).stream();
        assert!(stream.ended);
        let vcpu = ["X86_PV_VCPU_BASIC", "X86_PV_VCPU_EXTENDED", "X86_PV_VCPU_XSAVE", "X86_PV_VCPU_MSRS"];
        let online = domain.vcpus() as usize - config.pv.as_ref().unwrap().offline_vcpus.len();
        let front = [
            "X86_PV_INFO",
            "X86_CPUID_POLICY",
            "X86_MSR_POLICY",
            "STATIC_DATA_END",
            "X86_PV_P2M_FRAMES",
            "PAGE_DATA",
            "X86_TSC_INFO",
            "SHARED_INFO",
        ];
        let want: Vec<_> = front.into_iter().chain(vcpu.repeat(online)).collect();
        assert_eq!(stream.outline(), want);
    }
}

#[test]
fn parts_of_a_vcpu_that_are_not_there_are_left_out() {
    let config = odd(GuestWidth::Bits64, FORMS[0]);
    let pv = PvConfig { extended: false, xsave_bytes: 0, msrs: 0, ..config.pv.clone().unwrap() };
    let config = DomainConfig { pv: Some(pv), ..config };
    let host = SimHost::new();
    let domain = guest(&host, &config, Script::new());
    let mut saved = saved(&host, &domain, false);
    let parts: Vec<_> = saved
        .stream()
        .items
        .iter()
        .filter_map(|item| match &item.record {
            Record::PvVcpu { part, vcpu, .. } => Some((*part, *vcpu)),
            _ => None,
        })
        .collect();
    assert_eq!(parts, [0, 1, 3, 4].map(|vcpu| (VcpuPart::Basic, vcpu)));
    let (_host, copy, _) = restored(&config, &mut saved);
    assert_same_guest(&domain, &copy);
}

/// Not one frame of the host is in the page tables of the stream, and all else of an entry is as it was.
#[test]
fn page_tables_hold_pfns() {
    for width in WIDTHS {
        let config = odd(width, FORMS[0]);
        let host = SimHost::new();
        let domain = guest(&host, &config, Script::new());
        let saved = saved(&host, &domain, false);
        let xen: fn(u8, usize) -> bool = match width {
            GuestWidth::Bits64 => |level, slot| level == 4 && (256..272).contains(&slot),
            GuestWidth::Bits32 => |level, slot| level == 3 && slot > 3 || level == 2 && slot >= 428,
        };
        let mut entries = 0;
        let stream = saved.stream();
        let words = stream.batches().flat_map(|item| &item.words);
        let mut page = [0; 4096];
        for word in words.filter(|word| word.kind.is_page_table()) {
            domain.read_page(Pfn(word.pfn), &mut page).unwrap();
            let sent = &saved.bytes[word.contents.unwrap()..][..4096];
            let pairs = sent.as_chunks::<8>().0.iter().zip(page.as_chunks::<8>().0);
            for (slot, (sent, here)) in pairs.enumerate() {
                let (sent, here) = (Pte(u64::from_le_bytes(*sent)), Pte(u64::from_le_bytes(*here)));
                if xen(word.kind.number() & 7, slot) && sent == Pte(0) {
                    continue;
                }
                assert_eq!(sent.is_present(), here.is_present());
                if sent.is_present() {
                    entries += 1;
                    assert_eq!(domain.frame_of(Pfn(sent.frame())).unwrap().0, here.frame());
                    assert_eq!(sent.with_frame(0), here.with_frame(0));
                } else {
                    assert_eq!(sent, here);
                }
            }
        }
        assert!(entries > 700, "all memory is mapped somewhere: {entries}");
        let types: Vec<_> = stream.batches().flat_map(|item| &item.words).map(|word| word.kind).collect();
        for kind in [PageType::L1, PageType::L2, PageType::Notab] {
            assert!(types.contains(&kind), "{kind:?}");
        }
        assert!(types.contains(&if width == GuestWidth::Bits64 {
            PageType::L4Pinned
        } else {
            PageType::L3Pinned
        }));
    }
}

/// What a guest announces far behind its memory costs nothing: neither p2m nor bitmap are as long.
#[test]
fn the_empty_end_of_the_p2m_is_left_out() {
    for width in WIDTHS {
        for p2m in FORMS {
            let plain = plain(width, p2m, 300);
            let per_page = width.frames_per_page();
            let spare_pfns = 4 * 512 * per_page;
            let pv = PvConfig { spare_pfns, ..plain.pv.clone().unwrap() };
            let config = DomainConfig { pv: Some(pv), ..plain };
            let host = SimHost::new();
            let domain = guest(&host, &config, Script::new());
            let announced = host.nr_gpfns(domain.domid()).unwrap();
            assert!(announced > spare_pfns);
            let mut saved = saved(&host, &domain, true);
            // A table that maps pages of the list is kept for the memory, and a list of the tree and the first empty one.
            let most = match p2m {
                P2mForm::List { .. } => 512 * per_page,
                P2mForm::Tree => 2 * per_page * per_page,
            };
            let size = saved.report().p2m_size;
            assert!((300..=most).contains(&size) && size < announced, "{width:?} {p2m:?}: {size:#x}");
            let (_host, copy, _) = restored(&config, &mut saved);
            assert_eq!(domain.differing_pages(&copy, 5), []);
            copy.resume().unwrap();
        }
    }
}

#[test]
fn a_pv_guest_has_no_device_model() {
    let config = plain(GuestWidth::Bits64, FORMS[0], 512);
    let host = SimHost::new();
    let domain = guest(&host, &config, Script::new());
    let mut toolstack = Toolstack { device_model_refuses: Some(true), ..Toolstack::new(&domain) };
    save_to_file(&host, &domain, &options(true), None, &mut toolstack).report();
    assert_eq!(toolstack.asked.len(), 1, "{:?}", toolstack.asked);
}

#[test]
fn only_32_bit_guests_are_asked_for_xens_frame() {
    for (width, calls) in [(GuestWidth::Bits32, 1), (GuestWidth::Bits64, 0)] {
        let host = SimHost::new();
        let domain = guest(&host, &plain(width, FORMS[0], 512), Script::new());
        saved(&host, &domain, false).report();
        assert_eq!(domain.counters().calls(Verb::CompatM2pFrame), calls);
        assert_eq!(host.guest_width(domain.domid()).unwrap(), width.bytes());
    }
}

/// A guest that was restored can be saved at once, and what comes of it is the same guest again.
#[test]
fn there_and_back_again() {
    for config in all() {
        let host = SimHost::new();
        let domain = guest(&host, &config, Script::new());
        let mut first = saved(&host, &domain, true);
        let (far, copy, _) = restored(&config, &mut first);
        copy.resume().unwrap();
        far.enable_logdirty(copy.domid()).unwrap();
        let mut bitmap = far.dirty_bitmap(copy.domid(), far.nr_gpfns(copy.domid()).unwrap()).unwrap();
        far.clean(copy.domid(), Some(&mut bitmap), CleanPass::Live).unwrap();
        far.disable_logdirty(copy.domid()).unwrap();
        let mut second = saved(&far, &copy, true);
        let (_host, last, _) = restored(&config, &mut second);
        assert_same_guest(&copy, &last);
    }
}
