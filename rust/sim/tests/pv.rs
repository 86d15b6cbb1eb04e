// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests on the simulated host: they boot into a state that hangs together, and Xen's verbs see them as Xen's do.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected panics"
)]

mod support;

use support::{
    bitmap, errno, page, pages,
    pv::{LIST, all, context, guest, odd, plain, shared_info_page, types},
    set_bits,
};
use xenmig_hypervisor::{Access, CleanPass, Hypervisor, PvVerbs};
use xenmig_sim::{Action, DomainConfig, P2mForm, PteAt, PvConfig, SimError, SimHost, Workload};
use xenmig_types::{
    Gfn, GuestKind, PAGE_SIZE, PageType, Pfn, VcpuPart,
    pv::{GuestWidth, shared_info, start_info, vcpu_context},
};

#[test]
fn a_booted_guest_is_sound_and_stays_so_over_a_suspension() {
    for config in all() {
        let (_host, domain) = guest(config.clone());
        domain.check_pv().unwrap();
        domain.fill(3);
        domain.suspend().unwrap();
        domain.check_pv().unwrap();
        let before = domain.fingerprint();
        domain.resume().unwrap();
        domain.check_pv().unwrap();
        domain.suspend().unwrap();
        assert_eq!(domain.fingerprint(), before, "{config:?}");
    }
}

#[test]
fn equal_guests_differ_in_their_frames_and_in_nothing_else() {
    for config in all() {
        let (host, one) = guest(config.clone());
        let two = host.create(config.clone()).unwrap();
        let (other_host, three) = guest(config.clone());
        for domain in [&one, &two, &three] {
            domain.suspend().unwrap();
        }
        assert_eq!(one.fingerprint(), two.fingerprint(), "{config:?}");
        assert_eq!(one.fingerprint(), three.fingerprint());
        assert_eq!(one.differing_pages(&two, 10), []);
        let same = |pfn: &Pfn| {
            one.frame_of(*pfn) == two.frame_of(*pfn) || one.frame_of(*pfn).is_some_and(|f| f.0 == pfn.0)
        };
        let populated: Vec<Pfn> = (0..6000).map(Pfn).filter(|pfn| one.is_populated(*pfn)).collect();
        assert!(populated.iter().filter(|pfn| same(pfn)).count() < 3);
        drop(other_host);
    }
}

#[test]
fn xen_sees_types_frames_and_the_table_of_frames() {
    for config in all() {
        let width = config.pv.as_ref().unwrap().width;
        let (host, domain) = guest(config.clone());
        let id = domain.domid();
        let info = host.domain_info(id).unwrap();
        assert_eq!(info.kind, GuestKind::Pv);
        assert_eq!(host.guest_width(id).unwrap(), width.bytes());
        let shared = shared_info_page(&host, &domain);
        let max_pfn = shared_info::MAX_PFN.get(width, &shared).unwrap();
        assert_eq!(host.nr_gpfns(id).unwrap(), max_pfn);
        let expected = if config.vcpus == 5 { 5001 + 3000 } else { 512 };
        assert_eq!(max_pfn, expected);

        let m2p = host.map_m2p(id).unwrap();
        let map = domain.pv_map().unwrap();
        for pfn in (0..max_pfn).map(Pfn).filter(|pfn| domain.is_populated(*pfn)) {
            let frame = domain.frame_of(pfn).unwrap();
            assert_eq!(m2p.entry(frame), Some(pfn));
            let expected =
                map.tables.iter().find(|(table, _)| *table == pfn).map_or(PageType::Notab, |table| table.1);
            assert_eq!(types(&host, &domain, &[frame]), [expected]);
        }
        // What is not the guest's has no type and cannot be mapped.
        let compat = host.compat_m2p_frame(id).unwrap();
        let other = host.create(plain(GuestWidth::Bits64, LIST)).unwrap();
        let others = other.frame_of(Pfn(1)).unwrap();
        let strange = [Gfn(0), compat, others, Gfn(u64::MAX), Gfn(m2p.frames())];
        assert_eq!(types(&host, &domain, &strange), [PageType::Xtab; 5]);
        assert_eq!(types(&host, &domain, &[Gfn(info.shared_info_frame)]), [PageType::Xtab]);
        let mapped = host.map(id, &strange, Access::Read).unwrap();
        assert!((0..5).all(|at| mapped.error(at).unwrap().0 == libc::EINVAL));
        drop(mapped);
        assert_eq!(m2p.entry(compat), Some(Pfn(u64::MAX)));
        assert_eq!(m2p.entry(Gfn(info.shared_info_frame)), Some(Pfn(u64::MAX)));

        // A page table cannot be written by others; a page of data can, and is the page at that pfn.
        let table = domain.frame_of(map.tables[0].0).unwrap();
        let data = domain.frame_of(map.data[3]).unwrap();
        let mapped = host.map(id, &[table, data], Access::Write).unwrap();
        assert_eq!(mapped.error(0).unwrap().0, libc::EINVAL);
        assert!(mapped.copy_in(1, &[9; PAGE_SIZE]));
        assert_eq!(page(&domain, map.data[3].0), Some([9; PAGE_SIZE]));
        let counters = domain.counters();
        assert_eq!(counters.mappings_now, 2);
        drop((m2p, mapped));
        assert_eq!(domain.counters().mappings_now, 0);
    }
}

#[test]
fn the_tables_of_each_level_are_there_with_xens_mappings_in_them() {
    let count = |map: &xenmig_sim::PvMap, kind| map.tables.iter().filter(|table| table.1 == kind).count();
    let (host, narrow) = guest(plain(GuestWidth::Bits32, LIST));
    let map = narrow.pv_map().unwrap();
    assert_eq!((count(&map, PageType::L3Pinned), count(&map, PageType::L2)), (1, 4));
    assert!(count(&map, PageType::L1) >= 3 && count(&map, PageType::L1Pinned) == 1);
    let compat = host.compat_m2p_frame(narrow.domid()).unwrap();
    let l2s = map.tables.iter().filter(|(_, kind)| *kind == PageType::L2);
    let first = |table: Pfn, slot| narrow.pte(PteAt { table, slot });
    let xens: Vec<Pfn> =
        l2s.map(|table| table.0).filter(|table| first(*table, 428).frame() == compat.0).collect();
    assert_eq!(xens.len(), 1);
    assert!(first(xens[0], 511).is_present() && first(xens[0], 428).is_superpage());
    let l3 = map.tables.iter().find(|(_, kind)| *kind == PageType::L3Pinned).unwrap().0;
    assert!((0..512).all(|slot| first(l3, slot).is_present()));

    let (_host, wide) = guest(plain(GuestWidth::Bits64, P2mForm::Tree));
    let map = wide.pv_map().unwrap();
    assert_eq!(count(&map, PageType::L4Pinned), 2);
    for (table, _) in map.tables.iter().filter(|(_, kind)| *kind == PageType::L4Pinned) {
        for slot in 256..272 {
            assert!(wide.pte(PteAt { table: *table, slot }).is_present());
        }
    }
}

#[test]
fn the_vcpus_have_the_parts_that_they_shall_have() {
    for width in [GuestWidth::Bits32, GuestWidth::Bits64] {
        let mut config = odd(width, LIST);
        let (host, domain) = guest(config.clone());
        let id = domain.domid();
        for vcpu in [0, 1, 3, 4] {
            assert!(host.vcpu_online(id, vcpu).unwrap());
            let context = context(&host, &domain, vcpu);
            assert_eq!(context.len(), GuestWidth::Bits64.context_bytes());
            let entries = vcpu_context::GDT_ENTRIES.get(width, &context).unwrap();
            assert_eq!(entries.div_ceil(512), u64::from(vcpu) % 3 + 1);
            let root = width.frame_of_cr3(vcpu_context::CR3.get(width, &context).unwrap()).unwrap();
            let top = if width == GuestWidth::Bits64 { PageType::L4Pinned } else { PageType::L3Pinned };
            assert_eq!(types(&host, &domain, &[root]), [top]);
            let user = vcpu_context::CR1.get(width, &context).unwrap();
            assert_eq!(user != 0, width == GuestWidth::Bits64 && vcpu != 3);
            for (part, bytes) in [(VcpuPart::Extended, 64), (VcpuPart::Xsave, 832), (VcpuPart::Msrs, 32)] {
                assert_eq!(host.vcpu_state(id, vcpu, part).unwrap().len(), bytes);
            }
        }
        assert!(!host.vcpu_online(id, 2).unwrap());
        assert_eq!(errno(host.vcpu_state(id, 2, VcpuPart::Basic)), libc::ENODATA);
        assert_eq!(errno(host.vcpu_state(id, 5, VcpuPart::Msrs)), libc::ESRCH);
        assert_eq!(errno(host.vcpu_online(id, 5)), libc::EINVAL);
        let before = context(&host, &domain, 1);
        let data = domain.pv_map().unwrap().data[0];
        assert!(domain.perform(Action::Write(data)));
        let now = context(&host, &domain, 1);
        assert_ne!(now, before);
        // What is set is what is there: time goes on from it.
        domain.pause().unwrap();
        host.set_vcpu_state(id, 1, VcpuPart::Basic, &before[..width.context_bytes()]).unwrap();
        assert_eq!(context(&host, &domain, 1), before);

        let pv = config.pv.as_mut().unwrap();
        (pv.extended, pv.xsave_bytes, pv.msrs) = (false, 0, 0);
        let (host, domain) = guest(config);
        for part in [VcpuPart::Extended, VcpuPart::Xsave, VcpuPart::Msrs] {
            assert_eq!(host.vcpu_state(domain.domid(), 0, part).unwrap(), [0_u8; 0]);
        }
    }
}

#[test]
fn a_suspension_names_store_and_console_by_pfn_and_unmaps_the_shared_info() {
    for width in [GuestWidth::Bits32, GuestWidth::Bits64] {
        let (host, domain) = guest(plain(width, LIST));
        let map = domain.pv_map().unwrap();
        let shared_info = host.domain_info(domain.domid()).unwrap().shared_info_frame;
        let mapped_at = || {
            let l1s = map.tables.iter().filter(|(_, kind)| kind.number() & 7 == 1).map(|table| table.0);
            l1s.flat_map(|table| (0..512).map(move |slot| PteAt { table, slot }))
                .filter(|at| domain.pte(*at).is_present() && domain.pte(*at).frame() == shared_info)
                .count()
        };
        let named = || {
            let contents = page(&domain, map.start_info.0).unwrap();
            [start_info::STORE_MFN, start_info::CONSOLE_MFN].map(|field| field.get(width, &contents).unwrap())
        };
        let frames = [map.store, map.console].map(|pfn| domain.frame_of(pfn).unwrap().0);
        assert_eq!((mapped_at(), named()), (1, frames));
        host.enable_logdirty(domain.domid()).unwrap();
        domain.suspend().unwrap();
        assert_eq!((mapped_at(), named()), (0, [map.store.0, map.console.0]));
        let start_info = vcpu_context::RDX.get(width, &context(&host, &domain, 0)).unwrap();
        assert_eq!(start_info, domain.frame_of(map.start_info).unwrap().0);
        let mut dirty = bitmap(&host, &domain);
        host.clean(domain.domid(), Some(&mut dirty), CleanPass::Final).unwrap();
        let dirty = set_bits(&dirty);
        assert!(dirty.len() == 2 && dirty.contains(&map.start_info.0), "{dirty:?}");
        domain.resume().unwrap();
        assert_eq!((mapped_at(), named()), (1, frames));
    }
}

#[test]
fn the_workload_leaves_alone_what_the_kernel_needs() {
    let workload = Workload::Uniform { pages_per_s: 1e6 };
    let (_host, domain) = guest(DomainConfig { workload, ..odd(GuestWidth::Bits64, P2mForm::Tree) });
    let map = domain.pv_map().unwrap();
    assert!(domain.xen_mapped().is_empty());
    while domain.writes() < 20_000 {
        std::thread::yield_now();
    }
    domain.check_pv().unwrap();
    domain.fill(9);
    domain.load_image(&*vec![7; 4096 * 4096]).unwrap_err();
    domain.check_pv().unwrap();
    assert_eq!(domain.pv_map().unwrap(), map);
}

#[test]
fn the_last_entries_of_a_long_p2m_are_one_page() {
    let long = |width, p2m| {
        let pv = PvConfig { width, p2m, spare_pfns: 5 << 18, ..PvConfig::default() };
        guest(DomainConfig { pv: Some(pv), ..pages(600) }).1
    };
    for form in [LIST, P2mForm::List { first_slot: 16 }, P2mForm::Tree] {
        for width in [GuestWidth::Bits32, GuestWidth::Bits64] {
            let domain = long(width, form);
            domain.check_pv().unwrap();
            let map = domain.pv_map().unwrap();
            let last = map.p2m_pages.last().unwrap();
            assert!(map.p2m_pages.iter().filter(|page| *page == last).count() > 1000);
            assert_eq!(
                map.p2m_pages.iter().filter(|page| *page != last).count() as u64,
                600_u64.div_ceil(width.frames_per_page())
            );
        }
    }
}

#[test]
fn senseless_guests_are_refused() {
    let refused = |config| match SimHost::new().create(config) {
        Err(SimError::InvalidConfig { reason }) => reason,
        other => panic!("{other:?}"),
    };
    let with = |change: &dyn Fn(&mut PvConfig)| {
        let mut pv = PvConfig::default();
        change(&mut pv);
        DomainConfig { vcpus: 2, pv: Some(pv), ..pages(512) }
    };
    assert!(refused(with(&|pv| pv.spare_pfns = 1 << 25)).contains("below 0x2000000"));
    assert!(refused(with(&|pv| pv.p2m = P2mForm::List { first_slot: 17 })).contains("0 to 16"));
    assert!(refused(with(&|pv| pv.offline_vcpus = vec![0])).contains("from 1 on"));
    assert!(refused(with(&|pv| pv.offline_vcpus = vec![2])).contains("from 1 on"));
    assert!(refused(with(&|pv| pv.xsave_bytes = 15)).contains("16 to"));
    assert!(refused(with(&|pv| pv.msrs = 8)).contains("at most 7"));
    assert!(refused(with(&|pv| pv.churn.ptes_per_s = f64::NAN)).contains("ptes_per_s"));
    assert!(refused(DomainConfig { special_pages: true, ..with(&|_| {}) }).contains("special pages"));
    assert!(refused(DomainConfig { pv: Some(PvConfig::default()), ..pages(12) }).contains("too few"));
}
