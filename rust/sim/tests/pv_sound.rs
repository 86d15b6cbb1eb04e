// SPDX-License-Identifier: GPL-3.0-or-later
//! A PV guest that does not hang together is found out: each thing that can be wrong, and what is said of it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected panics"
)]

mod support;

use support::{
    page, pages,
    pv::{LIST, guest, plain, poke_shared_info, shared_info_page},
};
use xenmig_hypervisor::{Hypervisor, PinOp, PvVerbs};
use xenmig_sim::{P2mForm, PteAt, PvMap, SimDomain, SimError, SimHost};
use xenmig_types::{
    Gfn, PageType, Pfn,
    pv::{Field, GuestWidth, shared_info},
};

/// Spoils a guest, and asserts what is found to be wrong with it.
fn unsound(width: GuestWidth, p2m: P2mForm, reason: &str, spoil: impl FnOnce(&SimHost, &SimDomain, &PvMap)) {
    let (host, domain) = guest(plain(width, p2m));
    let map = domain.pv_map().unwrap();
    domain.check_pv().unwrap();
    spoil(&host, &domain, &map);
    match domain.check_pv() {
        Err(SimError::Unsound { reason: found, .. }) => assert!(found.contains(reason), "{reason}: {found}"),
        other => panic!("{reason}: {other:?}"),
    }
}

/// Writes a word of a page.
fn write(domain: &SimDomain, pfn: Pfn, word: u16, value: u64) {
    let mut contents = page(domain, pfn.0).unwrap();
    contents[usize::from(word) * 8..][..8].copy_from_slice(&value.to_le_bytes());
    domain.write_page(pfn, &contents).unwrap();
}

/// Returns the first page table of a type.
fn table(map: &PvMap, kind: PageType) -> Pfn {
    map.tables.iter().find(|table| table.1 == kind).unwrap().0
}

/// Returns an entry for a page, with these flags.
fn entry(domain: &SimDomain, pfn: Pfn, flags: u64) -> u64 {
    domain.frame_of(pfn).unwrap().0 << 12 | flags
}

const WIDTHS: [GuestWidth; 2] = [GuestWidth::Bits32, GuestWidth::Bits64];

#[test]
fn where_the_p2m_is_must_be_true() {
    for width in WIDTHS {
        let offset = |field: Field| field.offset(width);
        let poke = |form, reason: &str, at| {
            unsound(width, form, reason, |host, domain, _| poke_shared_info(host, domain, at));
        };
        poke(LIST, "p2m_vaddr is wrong", offset(shared_info::P2M_VADDR) + 1);
        poke(LIST, "p2m_cr3 is wrong", offset(shared_info::P2M_CR3) + 2);
        poke(LIST, "the p2m is not mapped", offset(shared_info::MAX_PFN) + 3);
        poke(P2mForm::Tree, "the root of the p2m's tree", offset(shared_info::FRAME_LIST_LIST) + 3);
        unsound(width, P2mForm::Tree, "another page 0", |host, domain, _| {
            let contents = shared_info_page(host, domain);
            let top = Gfn(shared_info::FRAME_LIST_LIST.get(width, &contents).unwrap());
            let top = host.map_m2p(domain.domid()).unwrap().entry(top).unwrap();
            write(domain, top, 0, 0);
        });
    }
}

#[test]
fn what_the_p2m_says_must_be_true() {
    for width in WIDTHS {
        let cases: [(&str, u64); 2] = [("nothing at pfn", u64::MAX), ("but it is at", 5 << 32 | 5)];
        for (reason, value) in cases {
            unsound(width, LIST, reason, |_, domain, map| write(domain, map.p2m_pages[0], 0, value));
        }
        unsound(width, LIST, "but there is no page", |host, domain, map| {
            host.depopulate(domain.domid(), &[domain.frame_of(map.data[0]).unwrap()]).unwrap();
        });
    }
}

#[test]
fn page_tables_must_lead_to_what_they_may_lead_to() {
    for width in WIDTHS {
        let wrong = |reason: &str, kind, slot, value: &dyn Fn(&SimDomain, &PvMap) -> u64| {
            unsound(width, LIST, reason, |_, domain, map| {
                write(domain, table(map, kind), slot, value(domain, map));
            });
        };
        wrong("leads to no page", PageType::L1, 3, &|_, _| 5 << 12 | 1);
        let writable = "lets a page table or GDT be written";
        wrong(writable, PageType::L1, 3, &|domain, map| entry(domain, table(map, PageType::L1), 3));
        wrong(writable, PageType::L1, 3, &|domain, map| entry(domain, map.gdts[0], 3));
        wrong("is a superpage", PageType::L2, 9, &|domain, map| entry(domain, map.data[0], 0x81));
        wrong("leads to no L1 table", PageType::L2, 9, &|domain, map| entry(domain, map.data[0], 1));
        unsound(width, LIST, "is no page for a GDT", |host, domain, map| {
            let frame = domain.frame_of(map.gdts[0]).unwrap();
            host.pin_tables(domain.domid(), &[PinOp { frame, kind: PageType::L1 }]).unwrap();
        });
        unsound(width, LIST, "is no page for a GDT", |host, domain, map| {
            host.depopulate(domain.domid(), &[domain.frame_of(map.gdts[0]).unwrap()]).unwrap();
        });
        unsound(width, P2mForm::Tree, "the kernel has no page", |host, domain, map| {
            // Known nowhere but in the kernel's notes: the page that leads to nothing.
            let notes = page(domain, map.start_info.0).unwrap();
            let pfn = Pfn(u64::from_le_bytes(notes[261 * 8..][..8].try_into().unwrap()));
            host.depopulate(domain.domid(), &[domain.frame_of(pfn).unwrap()]).unwrap();
            let mut leaf = page(domain, map.p2m_pages[0].0).unwrap();
            let entry = usize::from(width.bytes());
            leaf[pfn.0 as usize * entry..][..entry].fill(0xff);
            domain.write_page(map.p2m_pages[0], &leaf).unwrap();
            let at = domain.pte_of(pfn).unwrap();
            write(domain, at.table, at.slot, 0);
        });
        unsound(width, LIST, "is not Xen's", |_, domain, map| {
            let is_xens = |pfn: &Pfn| domain.pte(PteAt { table: *pfn, slot: 511 }).is_superpage();
            let (pfn, slot) = match width {
                GuestWidth::Bits64 => (table(map, PageType::L4Pinned), 270),
                GuestWidth::Bits32 => (map.tables.iter().map(|table| table.0).find(is_xens).unwrap(), 500),
            };
            write(domain, pfn, slot, 0);
        });
    }
}

#[test]
fn other_guests_have_nothing_to_be_checked() {
    assert!(matches!(guest(pages(16)).1.check_pv(), Err(SimError::InvalidConfig { .. })));
}
