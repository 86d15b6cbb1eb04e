// SPDX-License-Identifier: GPL-3.0-or-later
//! What a PV guest does while it runs, step by step: each leaves it sound, and the log-dirty bitmap has what it wrote.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected panics"
)]

mod support;

use support::{
    bitmap, hole, pages,
    pv::{LIST, all, guest, plain, shared_info_page, types},
    set_bits,
};
use xenmig_hypervisor::{Access, CleanPass, Hypervisor, PvVerbs};
use xenmig_sim::{Action, DomainConfig, P2mForm, PteAt, PteChange, PvConfig};
use xenmig_types::{
    Gfn, PageType, Pfn,
    pv::{GuestWidth, Pte, shared_info},
};

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
        // Nothing says that the page is there but what leads to it.
        assert!([at.table, p2m_page].iter().all(|page| found.contains(&page.0)) && !found.contains(&pfn.0));
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
fn a_short_bitmap_clears_what_it_covers() {
    let (host, domain) = guest(plain(GuestWidth::Bits64, LIST));
    let id = domain.domid();
    let map = domain.pv_map().unwrap();
    let (low, high) = (map.data[0], *map.data.last().unwrap());
    host.enable_logdirty(id).unwrap();
    assert!(domain.perform(Action::Write(low)) && domain.perform(Action::Write(high)));
    let mut short = host.dirty_bitmap(id, 128).unwrap();
    host.clean(id, Some(&mut short), CleanPass::Live).unwrap();
    assert_eq!(set_bits(&short), [low.0]);
    let mut whole = bitmap(&host, &domain);
    host.clean(id, Some(&mut whole), CleanPass::Live).unwrap();
    assert_eq!(set_bits(&whole), [high.0]);
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
        assert!(!domain.perform(Action::WritePte(at, PteChange::Touch)), "it was not used");
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
        assert!(!domain.perform(Action::MakeTable(pfn)), "it is mapped for writing");
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
        let data = domain.pv_map().unwrap().data[0];
        assert!(domain.perform(Action::BalloonOut(data)));
        assert!(
            !domain.perform(Action::BalloonIn(Pfn(before))),
            "the last page of the p2m ends after the p2m"
        );
        assert!(domain.perform(Action::GrowP2m(10_000)));
        assert_eq!(host.nr_gpfns(domain.domid()).unwrap(), before + 10_000);
        domain.check_pv().unwrap();
        assert!(!domain.perform(Action::GrowP2m(512 * width.frames_per_page())));
        assert!(domain.perform(Action::BumpGeneration));
        let contents = shared_info_page(&host, &domain);
        assert_eq!(shared_info::P2M_GENERATION.get(width, &contents), Some(1));
        assert!(domain.perform(Action::BalloonIn(Pfn(before))));
        domain.check_pv().unwrap();
    }
}
