// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests on the simulated host: they boot into a state that hangs together, Xen's verbs see them as Xen's do, and what
//! they do while they run keeps them sound.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected shall panic"
)]

mod support;

use std::sync::Arc;

use support::{bitmap, errno, hole, page, pages, set_bits};
use xenmig_hypervisor::{
    Access, CleanPass, Extent, Hypervisor, PinOp, PvVerbs,
    sim::{
        Action, DomainConfig, P2mForm, PteAt, PteChange, PvConfig, SimDomain, SimError, SimHost, Workload,
    },
};
use xenmig_types::{
    Gfn, GuestKind, PAGE_SIZE, PageType, Pfn, VcpuPart,
    pv::{GuestWidth, Pte, shared_info, start_info, vcpu_context},
};

const LIST: P2mForm = P2mForm::List { first_slot: 0 };

/// A PV guest with all that is odd: vCPUs that are off, holes, a p2m that goes on behind the last page.
fn odd(width: GuestWidth, p2m: P2mForm) -> DomainConfig {
    let pv = PvConfig { width, p2m, spare_pfns: 3000, offline_vcpus: vec![2], ..PvConfig::default() };
    DomainConfig {
        vcpus: 5,
        holes: vec![5..9, 300..301],
        highest_pfn: Some(5000),
        seed: 7,
        pv: Some(pv),
        ..pages(700)
    }
}

fn plain(width: GuestWidth, p2m: P2mForm) -> DomainConfig {
    DomainConfig { pv: Some(PvConfig { width, p2m, ..PvConfig::default() }), ..pages(512) }
}

fn all() -> impl Iterator<Item = DomainConfig> {
    [GuestWidth::Bits32, GuestWidth::Bits64].into_iter().flat_map(|width| {
        let forms = [LIST, P2mForm::List { first_slot: 9 }, P2mForm::Tree];
        forms.into_iter().flat_map(move |form| [odd(width, form), plain(width, form)])
    })
}

fn guest(config: DomainConfig) -> (SimHost, Arc<SimDomain>) {
    let host = SimHost::new();
    let domain = host.create(config).unwrap();
    (host, domain)
}

fn types(host: &SimHost, domain: &SimDomain, frames: &[Gfn]) -> Vec<PageType> {
    let mut types = vec![PageType::Broken; frames.len()];
    host.page_types(domain.domid(), frames, &mut types).unwrap();
    types
}

/// Reads the shared info page through a foreign mapping.
fn shared_info_page(host: &SimHost, domain: &SimDomain) -> [u8; PAGE_SIZE] {
    let frame = Gfn(host.domain_info(domain.domid()).unwrap().shared_info_frame);
    let mut contents = [0; PAGE_SIZE];
    assert!(host.map(domain.domid(), &[frame], Access::Read).unwrap().copy_out(0, &mut contents));
    contents
}

fn context(host: &SimHost, domain: &SimDomain, vcpu: u32) -> Vec<u8> {
    host.vcpu_state(domain.domid(), vcpu, VcpuPart::Basic).unwrap()
}

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
    let count =
        |map: &xenmig_hypervisor::sim::PvMap, kind| map.tables.iter().filter(|table| table.1 == kind).count();
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
        assert_ne!(context(&host, &domain, 1), before);

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
fn a_page_goes_and_comes_back_in_another_frame() {
    for (config, scrubs) in all().flat_map(|config| [(config.clone(), true), (config, false)]) {
        let mut config = config;
        config.pv.as_mut().unwrap().scrubs = scrubs;
        let (host, domain) = guest(config);
        let id = domain.domid();
        domain.fill(1);
        let map = domain.pv_map().unwrap();
        let pfn = map.data[map.data.len() / 2];
        let frame = domain.frame_of(pfn).unwrap();
        let total = domain.populated_pages();
        let m2p = host.map_m2p(id).unwrap();
        let p2m_page = map.p2m_pages[(pfn.0 / (4096 / u64::from(host.guest_width(id).unwrap()))) as usize];
        host.enable_logdirty(id).unwrap();
        let mut dirty = bitmap(&host, &domain);
        let mut clean = || {
            host.clean(id, Some(&mut dirty), CleanPass::Live).unwrap();
            set_bits(&dirty)
        };
        assert!(domain.perform(Action::BalloonOut(pfn)));
        assert!(!domain.perform(Action::BalloonOut(pfn)) && !domain.is_populated(pfn));
        assert_eq!((domain.populated_pages(), m2p.entry(frame)), (total - 1, Some(Pfn(u64::MAX))));
        assert_eq!(types(&host, &domain, &[frame]), [PageType::Xtab]);
        domain.check_pv().unwrap();
        let at = domain.pte_of(pfn).unwrap();
        let found = clean();
        assert!(found.contains(&at.table.0) && found.contains(&p2m_page.0), "{found:?}");
        assert_eq!(found.contains(&pfn.0), scrubs);

        assert!(domain.perform(Action::BalloonIn(pfn)) && !domain.perform(Action::BalloonIn(pfn)));
        let now = domain.frame_of(pfn).unwrap();
        assert_eq!((domain.populated_pages(), m2p.entry(now)), (total, Some(pfn)));
        assert_eq!(domain.pte(at).frame(), now.0);
        domain.check_pv().unwrap();
        let found = clean();
        assert!([at.table, p2m_page, pfn].iter().all(|page| found.contains(&page.0)));
        // What the kernel needs is not given back.
        for page in [map.start_info, map.tables[0].0, map.p2m_pages[0], map.gdts[0]] {
            assert!(!domain.perform(Action::BalloonOut(page)));
        }
    }
}

#[test]
fn a_page_where_the_p2m_had_none_gets_a_new_page_of_the_p2m() {
    for form in [LIST, P2mForm::Tree] {
        for width in [GuestWidth::Bits32, GuestWidth::Bits64] {
            let (host, domain) = guest(DomainConfig { holes: hole(2048..4096), ..odd_large(width, form) });
            let map = domain.pv_map().unwrap();
            let generation =
                || shared_info::P2M_GENERATION.get(width, &shared_info_page(&host, &domain)).unwrap();
            assert_eq!(generation(), 0);
            assert!(domain.perform(Action::BalloonIn(Pfn(2500))));
            assert_eq!(generation(), 1);
            assert_ne!(domain.pv_map().unwrap().p2m_pages, map.p2m_pages);
            domain.check_pv().unwrap();
            assert!(domain.perform(Action::BalloonIn(Pfn(2501))));
            assert_eq!(generation(), 1);
            domain.check_pv().unwrap();
            domain.suspend().unwrap();
            domain.check_pv().unwrap();
        }
    }
}

fn odd_large(width: GuestWidth, p2m: P2mForm) -> DomainConfig {
    DomainConfig { pv: Some(PvConfig { width, p2m, ..PvConfig::default() }), ..pages(6000) }
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
fn entries_are_written_torn_and_mended() {
    for config in all() {
        let (host, domain) = guest(config);
        let other = host.create(plain(GuestWidth::Bits64, LIST)).unwrap();
        let id = domain.domid();
        let map = domain.pv_map().unwrap();
        let (one, two) = (map.data[10], map.data[20]);
        let at = domain.pte_of(one).unwrap();
        host.enable_logdirty(id).unwrap();
        let mut dirty = bitmap(&host, &domain);
        let mut step = |action| {
            assert!(domain.perform(action), "{action:?}");
            host.clean(id, Some(&mut dirty), CleanPass::Live).unwrap();
            assert_eq!(set_bits(&dirty), [at.table.0], "{action:?}");
            domain.pte(at)
        };
        let before = domain.pte(at);
        assert_eq!(step(Action::WritePte(at, PteChange::Touch)), Pte(before.0 ^ 0x60));
        assert_eq!(step(Action::WritePte(at, PteChange::Map(two))).frame(), domain.frame_of(two).unwrap().0);
        assert_eq!(step(Action::WritePte(at, PteChange::Clear)), Pte(0));
        assert!(step(Action::WritePte(at, PteChange::Map(map.tables[0].0))).0 & 2 == 0);
        step(Action::WritePte(at, PteChange::Map(one)));
        domain.check_pv().unwrap();
        let torn = step(Action::TearPte(at));
        assert_eq!(types(&host, &domain, &[Gfn(torn.frame())]), [PageType::Xtab]);
        assert!(torn.is_present() && domain.check_pv().is_err());
        assert!(!domain.perform(Action::TearPte(at)));
        step(Action::MendPtes);
        assert!(!domain.perform(Action::MendPtes));
        domain.check_pv().unwrap();
        // In odd slots the strange frame is another domain's.
        let odd = map.data.iter().find_map(|pfn| domain.pte_of(*pfn).filter(|at| at.slot % 2 == 1)).unwrap();
        assert!(domain.perform(Action::TearPte(odd)));
        let frame = Gfn(domain.pte(odd).frame());
        assert!((0..512).any(|pfn| other.frame_of(Pfn(pfn)) == Some(frame)));
        // Only page tables have entries.
        let strange = PteAt { table: one, slot: 0 };
        for action in [Action::TearPte(strange), Action::WritePte(strange, PteChange::Clear)] {
            assert!(!domain.perform(action));
        }
    }
}

#[test]
fn a_page_becomes_a_page_table_and_a_page_again() {
    for config in all() {
        let (host, domain) = guest(config);
        let id = domain.domid();
        let map = domain.pv_map().unwrap();
        let pfn = map.data[17];
        let frame = domain.frame_of(pfn).unwrap();
        let mapping = host.map(id, &[frame], Access::Write).unwrap();
        assert!(!domain.perform(Action::MakeTable(pfn)), "somebody writes there");
        drop(mapping);
        host.enable_logdirty(id).unwrap();
        let mut dirty = bitmap(&host, &domain);
        assert!(domain.perform(Action::MakeTable(pfn)) && !domain.perform(Action::MakeTable(pfn)));
        assert_eq!(types(&host, &domain, &[frame]), [PageType::L1Pinned]);
        domain.check_pv().unwrap();
        host.clean(id, Some(&mut dirty), CleanPass::Live).unwrap();
        assert!(set_bits(&dirty).contains(&pfn.0) && set_bits(&dirty).len() >= 3);
        assert!(!domain.perform(Action::Write(pfn)) && !domain.perform(Action::BalloonOut(pfn)));
        assert!(domain.perform(Action::UnmakeTable(pfn)) && !domain.perform(Action::UnmakeTable(pfn)));
        assert_eq!(types(&host, &domain, &[frame]), [PageType::Notab]);
        domain.check_pv().unwrap();
        host.clean(id, Some(&mut dirty), CleanPass::Live).unwrap();
        assert!(set_bits(&dirty).contains(&pfn.0));
        assert!(domain.perform(Action::Write(pfn)));
    }
}

#[test]
fn the_p2m_grows_as_far_as_it_has_room() {
    for config in all() {
        let width = config.pv.as_ref().unwrap().width;
        let (host, domain) = guest(config);
        let before = host.nr_gpfns(domain.domid()).unwrap();
        assert!(domain.perform(Action::GrowP2m(10_000)));
        assert_eq!(host.nr_gpfns(domain.domid()).unwrap(), before + 10_000);
        domain.check_pv().unwrap();
        assert!(!domain.perform(Action::GrowP2m(512 * width.frames_per_page())));
        assert!(domain.perform(Action::BumpGeneration));
        let contents = shared_info_page(&host, &domain);
        assert_eq!(shared_info::P2M_GENERATION.get(width, &contents), Some(1));
        domain.check_pv().unwrap();
    }
}

/// Copies a suspended guest into an empty domain by hand, as a restore does it.
fn copy_by_hand(host: &SimHost, from: &SimDomain, to: &SimDomain) {
    let width = GuestWidth::from_bytes(host.guest_width(from.domid()).unwrap()).unwrap();
    let id = to.domid();
    host.set_guest_width(id, width.bytes()).unwrap();
    let pfns: Vec<Pfn> = (0..6000).map(Pfn).filter(|pfn| from.is_populated(*pfn)).collect();
    let mut frames: Vec<Gfn> = pfns.iter().map(|pfn| Gfn(pfn.0)).collect();
    assert_eq!(host.populate(id, &mut frames, Extent::Page).unwrap(), frames.len());
    let m2p = host.map_m2p(from.domid()).unwrap();
    let moved = |frame: u64| m2p.entry(Gfn(frame)).and_then(|pfn| to.frame_of(pfn));
    let map = from.pv_map().unwrap();
    let mut pins = Vec::new();
    for (pfn, frame) in pfns.iter().zip(&frames) {
        let mut contents = page(from, pfn.0).unwrap();
        let source = types(host, from, &[from.frame_of(*pfn).unwrap()])[0];
        if source.is_page_table() {
            for entry in contents.chunks_exact_mut(8) {
                let pte = Pte(u64::from_le_bytes(entry.try_into().unwrap()));
                let new = if pte.is_present() {
                    moved(pte.frame()).and_then(|frame| pte.with_frame(frame.0))
                } else {
                    Some(pte)
                };
                entry.copy_from_slice(&new.unwrap_or(Pte(0)).0.to_le_bytes());
            }
            if source.number() & 8 != 0 {
                pins.push(PinOp { frame: *frame, kind: source });
            }
        }
        if *pfn == map.start_info {
            for (field, pfn) in [(start_info::STORE_MFN, map.store), (start_info::CONSOLE_MFN, map.console)] {
                field.set(width, &mut contents, to.frame_of(pfn).unwrap().0).unwrap();
            }
        }
        if map.p2m_pages.contains(pfn) {
            for entry in contents.chunks_exact_mut(width.bytes().into()) {
                let mut word = [0; 8];
                word[..entry.len()].copy_from_slice(entry);
                if let Some(frame) = moved(u64::from_le_bytes(word)) {
                    entry.copy_from_slice(&frame.0.to_le_bytes()[..entry.len()]);
                }
            }
        }
        assert!(host.map(id, &[*frame], Access::Write).unwrap().copy_in(0, &contents));
    }
    let mut shared = shared_info_page(host, from);
    shared_info::FRAME_LIST_LIST.set(width, &mut shared, 0).unwrap();
    let frame = Gfn(host.domain_info(id).unwrap().shared_info_frame);
    assert!(host.map(id, &[frame], Access::Write).unwrap().copy_in(0, &shared));
    for vcpu in 0..from.vcpus() {
        let Ok(mut context) = host.vcpu_state(from.domid(), vcpu, VcpuPart::Basic) else { continue };
        context.truncate(width.context_bytes());
        let root = width.frame_of_cr3(vcpu_context::CR3.get(width, &context).unwrap()).unwrap();
        let root = width.cr3_of_frame(moved(root.0).unwrap().0).unwrap();
        vcpu_context::CR3.set(width, &mut context, root).unwrap();
        let user = vcpu_context::CR1.get(width, &context).unwrap();
        if user != 0 {
            vcpu_context::CR1.set(width, &mut context, moved(user >> 12).unwrap().0 << 12).unwrap();
        }
        let entries = vcpu_context::GDT_ENTRIES.get(width, &context).unwrap();
        let mut fields: Vec<_> =
            (0..entries.div_ceil(512)).map(|at| vcpu_context::GDT_FRAMES.at(at as usize)).collect();
        if vcpu == 0 {
            fields.push(vcpu_context::RDX);
        }
        for field in fields {
            let frame = field.get(width, &context).unwrap();
            field.set(width, &mut context, moved(frame).unwrap().0).unwrap();
        }
        host.set_vcpu_state(id, vcpu, VcpuPart::Basic, &context).unwrap();
        for part in [VcpuPart::Extended, VcpuPart::Xsave, VcpuPart::Msrs] {
            let state = host.vcpu_state(from.domid(), vcpu, part).unwrap();
            host.set_vcpu_state(id, vcpu, part, &state).unwrap();
        }
    }
    host.pin_tables(id, &pins).unwrap();
    host.set_cpu_policy(id, &host.cpu_policy(from.domid()).unwrap()).unwrap();
    host.set_tsc_info(id, &host.tsc_info(from.domid()).unwrap()).unwrap();
}

#[test]
fn a_copy_that_was_made_right_is_the_same_and_wakes() {
    for config in all() {
        let (host, from) = guest(config.clone());
        from.fill(5);
        assert!(from.perform(Action::MakeTable(from.pv_map().unwrap().data[4])));
        assert!(from.perform(Action::BalloonOut(from.pv_map().unwrap().data[5])));
        from.suspend().unwrap();
        let to = host.create(DomainConfig { populated: false, domid: None, ..config.clone() }).unwrap();
        assert_ne!(from.fingerprint(), to.fingerprint());
        copy_by_hand(&host, &from, &to);
        to.check_pv().unwrap();
        assert_eq!(from.differing_pages(&to, 5), []);
        assert_eq!(from.fingerprint(), to.fingerprint(), "{config:?}");
        assert!(to.pv_map().is_none());
        to.unpause().unwrap();
        to.check_pv().unwrap();
        from.resume().unwrap();
        from.check_pv().unwrap();
        assert_eq!(from.pv_map().unwrap(), to.pv_map().unwrap());
        let data = to.pv_map().unwrap().data[7];
        assert!(to.perform(Action::BalloonOut(data)) && to.perform(Action::BalloonIn(data)));
        to.check_pv().unwrap();
        to.suspend().unwrap();
        to.check_pv().unwrap();
    }
}

#[test]
fn a_copy_that_is_wrong_somewhere_is_noticed() {
    let config = || odd(GuestWidth::Bits64, P2mForm::Tree);
    let wrong = |what: &str, spoil: &dyn Fn(&SimHost, &SimDomain)| {
        let (host, from) = guest(config());
        from.suspend().unwrap();
        let to = host.create(DomainConfig { populated: false, ..config() }).unwrap();
        copy_by_hand(&host, &from, &to);
        spoil(&host, &to);
        assert_ne!(from.fingerprint(), to.fingerprint(), "{what}");
        to
    };
    let (_, from) = guest(config());
    let map = from.pv_map().unwrap();
    let poke = |to: &SimDomain, pfn: Pfn, at: usize, byte: u8| {
        let mut contents = page(to, pfn.0).unwrap();
        contents[at] ^= byte;
        to.write_page(pfn, &contents).unwrap();
    };
    wrong("a byte of data", &|_, to| poke(to, map.data[1], 100, 1));
    wrong("a page less", &|host, to| {
        host.depopulate(to.domid(), &[to.frame_of(map.data[1]).unwrap()]).unwrap()
    });
    wrong("a page more", &|host, to| {
        host.populate(to.domid(), &mut [Gfn(5)], Extent::Page).unwrap();
    });
    wrong("a flag of an entry", &|_, to| poke(to, map.tables[2].0, 0, 0x40));
    wrong("a vCPU's MSRs", &|host, to| host.set_vcpu_state(to.domid(), 1, VcpuPart::Msrs, &[0; 16]).unwrap());
    let p2m = wrong("an entry of the p2m", &|_, to| poke(to, map.p2m_pages[0], 8, 1));
    assert!(matches!(p2m.check_pv(), Err(SimError::Unsound { .. })));
    let lost = wrong("the start info page", &|_, to| poke(to, map.start_info, 2048, 1));
    assert!(matches!(lost.resume(), Err(SimError::Unsound { .. })));
    assert!(!lost.state().is_suspended());
}

#[test]
fn what_xen_refuses_is_refused() {
    for width in [GuestWidth::Bits32, GuestWidth::Bits64] {
        let config = || plain(width, LIST);
        let (host, from) = guest(config());
        from.fill(1);
        from.suspend().unwrap();
        let to = host.create(DomainConfig { populated: false, ..config() }).unwrap();
        let id = to.domid();
        assert_eq!(host.guest_width(id).unwrap(), 8);
        assert_eq!(errno(host.set_guest_width(id, 5)), libc::EINVAL);
        assert_eq!(errno(host.vcpu_state(id, 0, VcpuPart::Basic)), libc::ENODATA);
        let frame_of = |pfn: Pfn| to.frame_of(pfn).unwrap();
        copy_by_hand(&host, &from, &to);
        if width == GuestWidth::Bits32 {
            assert_eq!(errno(host.set_guest_width(id, 8)), libc::EINVAL);
        } else {
            assert_eq!(errno(host.set_guest_width(id, 4)), libc::EACCES);
        }
        let map = from.pv_map().unwrap();
        let (data, spare) = (frame_of(map.data[0]), frame_of(map.data[1]));
        let foreign = from.frame_of(map.data[0]).unwrap();
        let pin = |frame, kind| host.pin_tables(id, &[PinOp { frame, kind }]);
        let contents = |entry: u64, slot: usize| {
            let mut contents = [0; PAGE_SIZE];
            contents[slot * 8..slot * 8 + 8].copy_from_slice(&entry.to_le_bytes());
            assert!(host.map(id, &[data], Access::Write).unwrap().copy_in(0, &contents));
        };
        let table = frame_of(map.tables.iter().find(|table| table.1 == PageType::L1).unwrap().0);
        // A page is no table of another level, a pinned one is not pinned again, others' frames not at all.
        assert_eq!(errno(pin(table, PageType::L2)), libc::EINVAL);
        assert_eq!(errno(pin(foreign, PageType::L1)), libc::EINVAL);
        assert_eq!(errno(pin(data, PageType::Notab)), libc::EINVAL);
        for entry in [foreign.0 << 12 | 1, table.0 << 12 | 3, 1 << 40 | 1] {
            contents(entry, 3);
            assert_eq!(errno(pin(data, PageType::L1)), libc::EINVAL, "{entry:#x}");
        }
        contents(spare.0 << 12 | 1, 3);
        assert_eq!(errno(pin(data, PageType::L2)), libc::EINVAL, "data are no L1 table");
        contents(table.0 << 12 | 0x81, 3);
        assert_eq!(errno(pin(data, PageType::L2)), libc::EINVAL, "a superpage");
        contents(table.0 << 12 | 1, 3);
        let written = host.map(id, &[data], Access::Write).unwrap();
        assert_eq!(errno(pin(data, PageType::L2)), libc::EINVAL, "somebody writes there");
        drop(written);
        pin(data, PageType::L2).unwrap();
        assert_eq!(errno(pin(data, PageType::L2)), libc::EINVAL);
        assert_eq!(types(&host, &to, &[data]), [PageType::L2Pinned]);

        // A vCPU's frames are the guest's, and stay what they are.
        let good = context(&host, &to, 0)[..width.context_bytes()].to_vec();
        let set = |state: &[u8]| host.set_vcpu_state(id, 0, VcpuPart::Basic, state);
        set(&good).unwrap();
        let mut other = good.clone();
        vcpu_context::CR3.set(width, &mut other, width.cr3_of_frame(data.0).unwrap()).unwrap();
        assert_eq!(errno(set(&other)), libc::EOPNOTSUPP);
        assert_eq!(errno(set(&good[1..])), libc::EINVAL);
        for (part, state) in [
            (VcpuPart::Extended, vec![0; 64]),
            (VcpuPart::Extended, vec![0; 8]),
            (VcpuPart::Xsave, vec![0; 15]),
            (VcpuPart::Msrs, vec![0; 17]),
            (VcpuPart::Msrs, vec![1; 16]),
            (VcpuPart::Msrs, vec![0; 16 * 8]),
        ] {
            assert_eq!(
                errno(host.set_vcpu_state(id, 0, part, &state)),
                libc::EINVAL,
                "{part:?} {}",
                state.len()
            );
        }
        assert_eq!(errno(host.set_vcpu_state(id, 9, VcpuPart::Msrs, &[])), libc::ESRCH);
        let fresh = host.create(DomainConfig { populated: false, ..config() }).unwrap();
        host.set_guest_width(fresh.domid(), width.bytes()).unwrap();
        assert_eq!(errno(host.set_vcpu_state(fresh.domid(), 0, VcpuPart::Basic, &good)), libc::EINVAL);

        // HVM's verbs are not for PV guests, and theirs not for HVM guests.
        assert_eq!(errno(host.hvm_context(id)), libc::EINVAL);
        assert_eq!(errno(host.set_hvm_context(id, &[1; 8])), libc::EINVAL);
        assert_eq!(errno(host.hvm_param(id, 1)), libc::EINVAL);
        assert_eq!(errno(host.set_hvm_param(id, 1, 1)), libc::EINVAL);
        let hvm = host.create(pages(16)).unwrap().domid();
        assert_eq!(errno(host.guest_width(hvm)), libc::EOPNOTSUPP);
        assert_eq!(errno(host.map_m2p(hvm)), libc::EOPNOTSUPP);
        assert_eq!(errno(host.pin_tables(hvm, &[])), libc::EOPNOTSUPP);
    }
}

#[test]
fn memory_is_given_up_to_the_limit_and_taken_back() {
    let (host, domain) = guest(DomainConfig { populated: false, ..plain(GuestWidth::Bits64, LIST) });
    let id = domain.domid();
    assert_eq!(host.nr_gpfns(id).unwrap(), 1);
    let mut frames: Vec<Gfn> = (0..513).map(Gfn).collect();
    assert_eq!(host.populate(id, &mut frames, Extent::Page).unwrap(), 512);
    assert_eq!(frames[512], Gfn(512));
    assert_eq!(host.domain_info(id).unwrap().total_pages, 512);
    assert_eq!(host.populate(id, &mut [Gfn(1024)], Extent::Superpage).unwrap(), 0);
    host.depopulate(id, &frames[..2]).unwrap();
    assert_eq!(errno(host.depopulate(id, &frames[..1])), libc::EINVAL);
    assert_eq!((domain.frame_of(Pfn(0)), domain.populated_pages()), (None, 510));
    let mut again = [Gfn(0), Gfn(2)];
    assert_eq!(host.populate(id, &mut again, Extent::Page).unwrap(), 1, "pfn 2 has a page");

    let small = SimHost::with_machine(4096);
    let one = small.create(DomainConfig { populated: false, ..plain(GuestWidth::Bits64, LIST) }).unwrap();
    let config = DomainConfig { pv: Some(PvConfig::default()), ..pages(4000) };
    assert!(matches!(small.create(config.clone()), Err(SimError::NoFrames { .. })));
    let two = small.create(DomainConfig { populated: false, ..config }).unwrap();
    let mut frames: Vec<Gfn> = (0..4000).map(Gfn).collect();
    let given = small.populate(two.domid(), &mut frames, Extent::Page).unwrap();
    assert!((2000..3000).contains(&given), "{given}");
    assert_eq!(small.populate(one.domid(), &mut [Gfn(0)], Extent::Page).unwrap(), 0);
    small.destroy(two.domid()).unwrap();
    drop(two);
    assert_eq!(small.populate(one.domid(), &mut [Gfn(0)], Extent::Page).unwrap(), 1);
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
