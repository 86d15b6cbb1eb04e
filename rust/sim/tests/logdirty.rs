// SPDX-License-Identifier: GPL-3.0-or-later
//! Log-dirty mode of the simulated host: no write is lost between CLEANs, and each verb means what it means on Xen.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a test that meets the unexpected should panic, and some wait and measure by the machine's clock"
)]

mod support;

use std::time::{Duration, Instant};

use support::{Copy, bitmap, domain, errno, hole, page, pages, set_bits};
use xenmig_hypervisor::{Access, CleanPass, Extent, Hypervisor};
use xenmig_sim::{DomainConfig, Workload};
use xenmig_types::{Gfn, PAGE_SIZE, Pfn};

/// Copies a domain whose vCPUs run flat out, as a migration does, and returns the pages that are stale in the end.
fn migrate(config: DomainConfig, last: CleanPass) -> Vec<u64> {
    let (host, domain) = domain(config);
    let id = domain.domid();
    host.enable_logdirty(id).unwrap();
    let mut dirty = bitmap(&host, &domain);
    let mut copy = Copy::new(dirty.pages());
    copy.update(&host, &domain, &(0..dirty.pages()).collect::<Vec<_>>());
    let (mut cleans, mut dirtied) = (0, 0);
    let start = Instant::now();
    while cleans < 3000 || dirtied < 20_000 {
        assert!(start.elapsed() < Duration::from_secs(30), "the vCPUs wrote next to nothing: {dirtied}");
        cleans += 1;
        host.clean(id, Some(&mut dirty), CleanPass::Live).unwrap();
        let pfns = set_bits(&dirty);
        dirtied += pfns.len();
        copy.update(&host, &domain, &pfns);
    }
    domain.suspend().unwrap();
    host.clean(id, Some(&mut dirty), last).unwrap();
    copy.update(&host, &domain, &set_bits(&dirty));
    assert!(domain.writes() >= dirtied as u64, "more pages are dirty than were written");
    assert!(domain.counters().clean_time_ns > 0);
    copy.stale(&domain)
}

fn busy(xen_mapped_pages: u64) -> DomainConfig {
    let workload = Workload::HotCold { hot_pages: 8, hot_pages_per_s: 4e5, cold_pages_per_s: 4e5 };
    DomainConfig { vcpus: 4, workload, holes: vec![100..110, 200..201], xen_mapped_pages, ..pages(400) }
}

#[test]
fn no_write_is_lost_in_thousands_of_cleans() {
    assert_eq!(migrate(busy(3), CleanPass::Final), [0; 0]);
}

#[test]
fn without_final_the_pages_that_xen_keeps_mapped_are_lost() {
    let stale = migrate(busy(3), CleanPass::Live);
    assert!(!stale.is_empty() && stale.iter().all(|pfn| (397..400).contains(pfn)), "{stale:?}");
    assert_eq!(migrate(busy(0), CleanPass::Live), [0; 0]);
}

#[test]
fn clean_takes_the_bits_and_peek_leaves_them() {
    let (host, domain) = domain(DomainConfig { xen_mapped_pages: 0, ..pages(200) });
    let id = domain.domid();
    domain.write_page(Pfn(1), &[1; PAGE_SIZE]).unwrap();
    host.enable_logdirty(id).unwrap();
    let mut dirty = bitmap(&host, &domain);
    host.peek(id, Some(&mut dirty)).unwrap();
    assert_eq!(set_bits(&dirty), [0; 0], "nothing is dirty when it is turned on");
    for pfn in [3, 199, 3] {
        domain.write_page(Pfn(pfn), &[1; PAGE_SIZE]).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(host.peek(id, None).unwrap().dirty_count, 2);
        assert_eq!(host.peek(id, Some(&mut dirty)).unwrap().dirty_count, 2);
        assert_eq!(set_bits(&dirty), [3, 199]);
    }
    dirty.fill(|words| words.fill(u64::MAX));
    assert_eq!(host.clean(id, Some(&mut dirty), CleanPass::Live).unwrap().dirty_count, 2);
    assert_eq!(set_bits(&dirty), [3, 199]);
    assert_eq!(host.clean(id, Some(&mut dirty), CleanPass::Live).unwrap().dirty_count, 0);
    assert_eq!(set_bits(&dirty), [0; 0]);
    domain.write_page(Pfn(7), &[1; PAGE_SIZE]).unwrap();
    assert_eq!(host.clean(id, None, CleanPass::Live).unwrap().dirty_count, 1);
    assert_eq!(host.peek(id, None).unwrap().dirty_count, 0);
}

#[test]
fn final_reports_what_xen_keeps_mapped_and_live_does_not() {
    let (host, domain) = domain(DomainConfig { xen_mapped_pages: 3, holes: hole(18..19), ..pages(20) });
    let id = domain.domid();
    assert_eq!(domain.xen_mapped(), [Pfn(19), Pfn(17), Pfn(16)]);
    host.enable_logdirty(id).unwrap();
    let before = page(&domain, 19);
    domain.suspend().unwrap();
    assert_ne!(page(&domain, 19), before, "a suspension writes to these pages");
    let mut dirty = bitmap(&host, &domain);
    host.clean(id, Some(&mut dirty), CleanPass::Live).unwrap();
    assert_eq!(set_bits(&dirty), [0; 0]);
    assert_eq!(host.clean(id, Some(&mut dirty), CleanPass::Final).unwrap().dirty_count, 3);
    assert_eq!(set_bits(&dirty), [16, 17, 19]);
}

#[test]
fn enable_fails_while_it_is_on_for_vram_too() {
    for vram_tracking in [false, true] {
        let (host, domain) = domain(DomainConfig { vram_tracking, ..pages(4) });
        let id = domain.domid();
        assert_eq!(domain.counters().logdirty_on, vram_tracking);
        if vram_tracking {
            assert_eq!(errno(host.enable_logdirty(id)), libc::EINVAL);
            host.disable_logdirty(id).unwrap();
        }
        host.enable_logdirty(id).unwrap();
        assert_eq!(errno(host.enable_logdirty(id)), libc::EINVAL);
        assert!(domain.counters().logdirty_on);
        host.disable_logdirty(id).unwrap();
        host.disable_logdirty(id).unwrap();
        assert!(!domain.counters().logdirty_on);
    }
}

#[test]
fn what_was_dirty_before_off_is_forgotten() {
    let (host, domain) = domain(pages(4));
    host.enable_logdirty(domain.domid()).unwrap();
    domain.write_page(Pfn(1), &[1; PAGE_SIZE]).unwrap();
    host.disable_logdirty(domain.domid()).unwrap();
    domain.write_page(Pfn(2), &[1; PAGE_SIZE]).unwrap();
    host.enable_logdirty(domain.domid()).unwrap();
    let mut dirty = bitmap(&host, &domain);
    assert_eq!(host.clean(domain.domid(), Some(&mut dirty), CleanPass::Live).unwrap().dirty_count, 0);
    assert_eq!(set_bits(&dirty), [0; 0]);
}

#[test]
fn clean_and_peek_need_it_on_and_a_bitmap_that_fits() {
    let (host, domain) = domain(pages(100));
    let id = domain.domid();
    for on in [false, true] {
        for size in [99, 100, 101] {
            let mut dirty = host.dirty_bitmap(id, size).unwrap();
            let results = [
                host.clean(id, Some(&mut dirty), CleanPass::Live),
                host.clean(id, Some(&mut dirty), CleanPass::Final),
                host.peek(id, Some(&mut dirty)),
            ];
            for result in results {
                if on && size == 100 {
                    result.unwrap();
                } else {
                    assert_eq!(errno(result), libc::EINVAL, "{on} {size}");
                }
            }
        }
        if on {
            host.clean(id, None, CleanPass::Live).unwrap();
        } else {
            assert_eq!(errno(host.clean(id, None, CleanPass::Live)), libc::EINVAL);
            assert_eq!(errno(host.peek(id, None)), libc::EINVAL);
            host.enable_logdirty(id).unwrap();
        }
    }
}

#[test]
fn a_change_of_the_p2m_is_dirty_and_a_write_through_a_mapping_is_not() {
    let (host, domain) = domain(DomainConfig { holes: hole(5..8), ..pages(20) });
    let id = domain.domid();
    host.enable_logdirty(id).unwrap();
    domain.balloon_out(Pfn(1)).unwrap();
    domain.balloon_in(Pfn(5)).unwrap();
    host.depopulate(id, &[Gfn(2)]).unwrap();
    assert_eq!(host.populate(id, &mut [Gfn(6)], Extent::Page).unwrap(), 1);
    let mapped = host.map(id, &[Gfn(9)], Access::Write).unwrap();
    assert!(mapped.copy_in(0, &[7; PAGE_SIZE]));
    let mut dirty = bitmap(&host, &domain);
    host.clean(id, Some(&mut dirty), CleanPass::Live).unwrap();
    assert_eq!(set_bits(&dirty), [1, 2, 5, 6]);
}

#[test]
fn clean_does_not_wait_long_for_vcpus_that_run_flat_out() {
    let workload = Workload::Uniform { pages_per_s: 1e9 };
    let (host, domain) = domain(DomainConfig { vcpus: 4, workload, ..pages(4096) });
    host.enable_logdirty(domain.domid()).unwrap();
    let start = Instant::now();
    for _ in 0..100 {
        host.clean(domain.domid(), None, CleanPass::Live).unwrap();
    }
    // Far more than it takes, and far less than if the vCPUs kept the gate to themselves.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
