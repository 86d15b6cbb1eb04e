// SPDX-License-Identifier: GPL-3.0-or-later
//! Memory and state of the simulated host: what is given, taken, filled, compared.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected panics"
)]

mod support;

use proptest::prelude::*;
use support::{cases, domain, errno, hole, page, pages};
use xenmig_hypervisor::{Access, Extent, Hypervisor};
use xenmig_sim::{DomainConfig, SimDomain, SimError, SimHost};
use xenmig_types::{CpuPolicy, Gfn, PAGE_SIZE, PageType, Pfn, TscInfo};

fn empty(config: DomainConfig) -> DomainConfig {
    DomainConfig { populated: false, ..config }
}

fn populate(host: &SimHost, domain: &SimDomain, frames: &[u64], extent: Extent) -> usize {
    let mut frames: Vec<Gfn> = frames.iter().copied().map(Gfn).collect();
    host.populate(domain.domid(), &mut frames, extent).unwrap()
}

/// Copies the whole of a domain into an empty one, by the verbs that a save and a restore use.
fn copy_domain(host: &SimHost, from: &SimDomain, to: &SimDomain) {
    let (a, b) = (from.domid(), to.domid());
    let end = host.nr_gpfns(a).unwrap();
    let gfns: Vec<Gfn> = (0..end).map(Gfn).filter(|gfn| from.is_populated(Pfn(gfn.0))).collect();
    for batch in gfns.chunks(1024) {
        assert_eq!(host.populate(b, &mut batch.to_vec(), Extent::Page).unwrap(), batch.len());
        let source = host.map(a, batch, Access::Read).unwrap();
        let target = host.map(b, batch, Access::Write).unwrap();
        for at in 0..batch.len() {
            let mut page = [0; PAGE_SIZE];
            assert!(source.copy_out(at, &mut page) && target.copy_in(at, &page));
        }
    }
    host.set_cpu_policy(b, &host.cpu_policy(a).unwrap()).unwrap();
    host.set_tsc_info(b, &host.tsc_info(a).unwrap()).unwrap();
    host.set_hvm_context(b, &host.hvm_context(a).unwrap()).unwrap();
    for index in 0..39 {
        host.set_hvm_param(b, index, host.hvm_param(a, index).unwrap()).unwrap();
    }
}

proptest! {
    #![proptest_config(cases(48))]

    /// A copy has the same fingerprint; one byte, one hole, one parameter, and it has not.
    #[test]
    fn fingerprints_are_equal_for_copies_and_for_nothing_else(
        ram_pages in 2_u64..200,
        (start, length) in (0_u64..200, 1_u64..20),
        special_pages in any::<bool>(),
        highest in prop::option::of(200_u64..2000),
        seed in any::<u64>(),
        victim in any::<prop::sample::Index>(),
        byte in 0..PAGE_SIZE,
    ) {
        let config = DomainConfig {
            holes: hole(start..start + length), special_pages, highest_pfn: highest, seed, ..pages(ram_pages)
        };
        let host = SimHost::new();
        let source = host.create(config.clone()).unwrap();
        source.fill(seed);
        source.suspend().unwrap();
        let target = host.create(empty(config)).unwrap();
        copy_domain(&host, &source, &target);
        let fingerprint = source.fingerprint();
        prop_assert_eq!(fingerprint, target.fingerprint());
        prop_assert!(source.differing_pages(&target, 9).is_empty());
        let existing: Vec<u64> =
            (0..host.nr_gpfns(source.domid()).unwrap()).filter(|pfn| source.is_populated(Pfn(*pfn))).collect();
        prop_assume!(!existing.is_empty());
        let pfn = Pfn(existing[victim.index(existing.len())]);
        let good = page(&target, pfn.0).unwrap();
        let mut bad = good;
        bad[byte] ^= 1;
        target.write_page(pfn, &bad).unwrap();
        prop_assert_ne!(fingerprint, target.fingerprint());
        prop_assert_eq!(source.differing_pages(&target, 9), [pfn]);
        target.write_page(pfn, &good).unwrap();
        prop_assert_eq!(fingerprint, target.fingerprint());
        target.balloon_out(pfn).unwrap();
        prop_assert_ne!(fingerprint, target.fingerprint());
        prop_assert_eq!(source.differing_pages(&target, 9), [pfn]);
        target.balloon_in(pfn).unwrap();
        target.write_page(pfn, &good).unwrap();
        prop_assert_eq!(fingerprint, target.fingerprint());
        host.set_hvm_param(target.domid(), 7, 1).unwrap();
        prop_assert_ne!(fingerprint, target.fingerprint());
    }
}

#[test]
fn a_hole_elsewhere_is_another_fingerprint() {
    let of = |holes| {
        let (_host, domain) = domain(DomainConfig { holes, ..pages(8) });
        (domain.fingerprint(), domain)
    };
    // All pages are zero, so only the pfns differ.
    let (one, other) = (of(hole(1..2)), of(hole(2..3)));
    assert_ne!(one.0, other.0);
    assert_eq!(one.1.differing_pages(&other.1, 9), [Pfn(1), Pfn(2)]);
    assert_eq!(one.1.differing_pages(&other.1, 1), [Pfn(1)]);
    assert_eq!(one.0, of(hole(1..2)).0);
}

#[test]
fn every_piece_of_state_is_in_the_fingerprint_but_the_incarnation() {
    let (host, domain) = domain(empty(pages(1)));
    let id = domain.domid();
    let mut last = domain.fingerprint();
    let mut changed = |step: &str| {
        let now = domain.fingerprint();
        assert_ne!(now, std::mem::replace(&mut last, now), "{step}");
    };
    host.set_hvm_context(id, &[1; 8192]).unwrap();
    changed("context");
    host.set_cpu_policy(id, &CpuPolicy { cpuid: vec![1; 24], msrs: Vec::new() }).unwrap();
    changed("cpuid");
    host.set_cpu_policy(id, &CpuPolicy { cpuid: vec![1; 24], msrs: vec![1; 16] }).unwrap();
    changed("msrs");
    let tsc = TscInfo { mode: 1, khz: 2, elapsed_ns: 3, incarnation: 4 };
    host.set_tsc_info(id, &tsc).unwrap();
    changed("tsc");
    host.set_hvm_param(id, 3, 5).unwrap();
    changed("parameter");
    host.set_tsc_info(id, &TscInfo { incarnation: 9, ..tsc }).unwrap();
    assert_eq!(domain.fingerprint(), last);
    assert_eq!(host.tsc_info(id).unwrap().incarnation, 10);
    assert_eq!(errno(host.set_hvm_param(id, 39, 0)), libc::EINVAL);
    assert_eq!(errno(host.hvm_param(id, u32::MAX)), libc::EINVAL);
    assert_eq!(
        errno(host.set_cpu_policy(id, &CpuPolicy { cpuid: vec![1; 23], msrs: Vec::new() })),
        libc::EINVAL
    );
    assert_eq!(errno(host.set_hvm_context(id, &[])), libc::EINVAL);
}

#[test]
fn populate_gives_what_there_is_and_says_how_much() {
    let (host, domain) = domain(empty(pages(10)));
    assert_eq!(populate(&host, &domain, &[3, 4, 5], Extent::Page), 3);
    assert_eq!(populate(&host, &domain, &[6, 4, 7], Extent::Page), 1, "pfn 4 has a page");
    assert!(domain.is_populated(Pfn(6)) && !domain.is_populated(Pfn(7)));
    assert_eq!(host.nr_gpfns(domain.domid()).unwrap(), 7);
    // 4 of 10 pages are taken.
    let frames: Vec<u64> = (100..120).collect();
    assert_eq!(populate(&host, &domain, &frames, Extent::Page), 6);
    assert_eq!(populate(&host, &domain, &[0], Extent::Page), 0);
    assert!(matches!(domain.balloon_in(Pfn(0)), Err(SimError::NoRoom { .. })));
    assert_eq!(domain.populated_pages(), 10);
    assert_eq!(domain.counters().pages_populated, 10);
    host.depopulate(domain.domid(), &[Gfn(3), Gfn(105)]).unwrap();
    assert_eq!(errno(host.depopulate(domain.domid(), &[Gfn(4), Gfn(3), Gfn(5)])), libc::EINVAL);
    assert!(!domain.is_populated(Pfn(4)) && domain.is_populated(Pfn(5)));
    assert_eq!(domain.populated_pages(), 7);
    assert_eq!(host.nr_gpfns(domain.domid()).unwrap(), 106, "a p2m does not shrink");
    let end = 1 << 20 | 10;
    assert_eq!(populate(&host, &domain, &[end], Extent::Page), 0, "beyond what the domain can have");
    assert_eq!(populate(&host, &domain, &[end - 1, u64::MAX], Extent::Page), 1);
}

#[test]
fn superpages_are_aligned_and_whole() {
    let (host, domain) = domain(empty(pages(1200)));
    assert_eq!(
        errno(host.populate(domain.domid(), &mut [Gfn(512), Gfn(256)], Extent::Superpage)),
        libc::EINVAL
    );
    assert_eq!(populate(&host, &domain, &[700], Extent::Page), 1);
    assert_eq!(populate(&host, &domain, &[0, 512], Extent::Superpage), 1, "pfn 700 is in the way");
    assert_eq!(
        populate(&host, &domain, &[1024, 2048], Extent::Superpage),
        1,
        "1025 and 512 are more than 1200"
    );
    let counters = domain.counters();
    assert_eq!((counters.superpages_populated, counters.pages_populated), (2, 1025));
    assert!(domain.is_populated(Pfn(511)) && !domain.is_populated(Pfn(512)));
}

#[test]
fn a_new_page_is_not_zero_and_not_what_it_was() {
    let (host, domain) = domain(pages(4));
    domain.fill(3);
    let before = page(&domain, 2).unwrap();
    let mapped = host.map(domain.domid(), &[Gfn(2)], Access::Read).unwrap();
    domain.balloon_out(Pfn(2)).unwrap();
    assert!(page(&domain, 2).is_none());
    let mut seen = [1; PAGE_SIZE];
    assert!(mapped.copy_out(0, &mut seen));
    assert_eq!(seen, [0; PAGE_SIZE], "a mapping that outlives its page reads zeros");
    domain.balloon_in(Pfn(2)).unwrap();
    let after = page(&domain, 2).unwrap();
    assert_ne!(after, [0; PAGE_SIZE]);
    assert_ne!(after, before);
}

#[test]
fn fill_depends_on_seed_and_pfn_alone() {
    let fill = |config, seed| {
        let (_host, domain) = domain(config);
        domain.fill(seed);
        domain
    };
    let holes = DomainConfig { holes: hole(3..5), special_pages: true, ..pages(600) };
    let (one, other) = (fill(pages(600), 1), fill(holes, 1));
    let differing: Vec<u64> = (0..600).filter(|pfn| page(&one, *pfn) != page(&other, *pfn)).collect();
    assert_eq!(differing, [3, 4]);
    assert_eq!(page(&other, 0xfeff8), Some([0; PAGE_SIZE]), "special pages are left alone");
    assert_eq!(one.differing_pages(&fill(pages(600), 2), 1000).len(), 600);
    assert_ne!(page(&one, 0), page(&one, 1));
}

#[test]
fn an_image_fills_ram_around_the_holes() {
    let image: Vec<u8> = (0..3 * PAGE_SIZE + 10).map(|i| (i / 7) as u8 | 1).collect();
    let (host, domain) = domain(DomainConfig { holes: hole(1..3), ..pages(7) });
    domain.write_page(Pfn(5), &[0xee; PAGE_SIZE]).unwrap();
    domain.write_page(Pfn(6), &[0xee; PAGE_SIZE]).unwrap();
    host.enable_logdirty(domain.domid()).unwrap();
    // A reader that gives few bytes at a time, as a pipe does.
    let slow =
        image.chunks(1000).fold(Box::new(std::io::empty()) as Box<dyn std::io::Read>, |reader, chunk| {
            Box::new(std::io::Read::chain(reader, chunk))
        });
    assert_eq!(domain.load_image(slow), Ok(image.len() as u64));
    let mut loaded: Vec<u8> = [0, 3, 4, 5].iter().flat_map(|pfn| page(&domain, *pfn).unwrap()).collect();
    assert!(loaded.split_off(image.len()).iter().all(|byte| *byte == 0), "the rest of the page is zeroed");
    assert_eq!(loaded, image);
    assert_eq!(page(&domain, 6), Some([0xee; PAGE_SIZE]));
    assert_eq!(host.peek(domain.domid(), None).unwrap().dirty_count, 4);
}

#[test]
fn an_image_that_does_not_fit_says_what_is_needed() {
    let (_host, domain) = domain(DomainConfig { holes: hole(1..3), ..pages(600) });
    let bytes = 598 * PAGE_SIZE;
    assert_eq!(domain.load_image(vec![1; bytes].as_slice()), Ok(bytes as u64));
    let error = domain.load_image(vec![1; bytes + 1].as_slice()).unwrap_err();
    let expected = SimError::ImageTooLarge { image_bytes: bytes as u64 + 1, ram_bytes: bytes as u64 };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("at least 3 MiB"), "{error}");
}

#[test]
fn pages_that_do_not_exist_are_refused() {
    let (host, domain) = domain(DomainConfig { holes: hole(1..2), ..pages(4) });
    for pfn in [1, 4, 1 << 33, u64::MAX].map(Pfn) {
        let no_page = |error: SimError| assert!(matches!(error, SimError::NoPage { .. }), "{error}");
        no_page(domain.read_page(pfn, &mut [0; PAGE_SIZE]).unwrap_err());
        no_page(domain.write_page(pfn, &[0; PAGE_SIZE]).unwrap_err());
        no_page(domain.balloon_out(pfn).unwrap_err());
        assert!(!domain.is_populated(pfn));
    }
    let mut types = [PageType::Broken; 2];
    assert_eq!(errno(host.page_types(domain.domid(), &[Gfn(0)], &mut types)), libc::EINVAL);
    let many = [Gfn(0); 1025];
    assert_eq!(errno(host.page_types(domain.domid(), &many, &mut [PageType::Broken; 1025])), libc::E2BIG);
}

#[test]
fn the_p2m_is_as_long_as_a_test_wants_it() {
    for highest in [4, 63, 64, 1023, 1 << 20, (1 << 32) - 1] {
        let (host, domain) = domain(DomainConfig { highest_pfn: Some(highest), ..pages(4) });
        assert_eq!(host.nr_gpfns(domain.domid()).unwrap(), highest + 1);
        assert_eq!(domain.populated_pages(), 5);
        domain.write_page(Pfn(highest), &[9; PAGE_SIZE]).unwrap();
        assert_eq!(page(&domain, highest), Some([9; PAGE_SIZE]));
    }
}

#[test]
fn a_machine_without_the_memory_says_so() {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let available: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .map(|rest| rest.trim().trim_end_matches(" kB").parse().unwrap())
        .unwrap();
    let config = DomainConfig { memory_bytes: 64 << 30, ..DomainConfig::default() };
    match SimHost::new().create(config) {
        Ok(_) => assert!(available > 60 << 20, "64 GiB were given on a machine with {available} KiB"),
        Err(error) => {
            assert!(matches!(error, SimError::MemoryTooLarge { .. }), "{error}");
            assert_eq!(error.errno().unwrap().0, libc::ENOMEM);
            assert!(error.to_string().contains("65536 MiB"), "{error}");
        }
    }
}
