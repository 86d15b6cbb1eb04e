// SPDX-License-Identifier: GPL-3.0-or-later
//! Pages that come late, come again, change their type, or go.

use xenmig_hypervisor::PageBuffer;
use xenmig_stream::encode;
use xenmig_types::{PAGE_SIZE, PageType, Pfn};

use super::{
    super::build::Stream,
    guest::{DATA, HIGHEST, L1, L2, L4, PvGuest, WIDTHS, restore_pv, table},
    host::{Call, EINVAL, EPERM, PvHost, Refusal},
};

/// A page of the guest's that no page table refers to.
const SPARE: u64 = 30;

fn host() -> PvHost {
    PvHost::new(100)
}

/// Finishes a stream that begins with all the guest's pages.
fn stream(guest: &PvGuest, then: impl FnOnce(Stream) -> Stream) -> Vec<u8> {
    guest.state(then(guest.all(guest.start(), false))).end()
}

fn hole(pfn: u64) -> (u64, PageType, PageBuffer) {
    (pfn, PageType::Xtab, [0; PAGE_SIZE])
}

#[test]
fn a_page_is_given_once_and_no_more_than_is_needed() {
    for width in WIDTHS {
        // Backwards the page tables come first, and refer to everything. A domain may have just its pages.
        let mut guest = PvGuest::new(width);
        guest.plain(SPARE, [9; PAGE_SIZE]);
        let host = PvHost::new(guest.pages.len() as u64);
        let stream = guest.state(guest.all(guest.all(guest.start(), true), false)).end();
        let report = restore_pv(&host, &stream).unwrap();
        guest.check(&host);
        assert_eq!(
            (report.pages_populated, host.pfns().len()),
            (guest.pages.len() as u64, guest.pages.len())
        );
        assert_eq!(report.pages_received, 2 * guest.pages.len() as u64);
    }
}

#[test]
fn what_never_comes_is_zeroes() {
    for width in WIDTHS {
        let mut guest = PvGuest::new(width);
        let absent = DATA.start + 3;
        guest.pages.remove(&absent);
        let host = host();
        restore_pv(&host, &guest.stream()).unwrap();
        let frame = host.frame(absent).unwrap();
        assert_eq!(host.page(frame), [0; PAGE_SIZE], "another guest's bytes");
        assert_eq!(guest.p2m_entry(&host, absent), frame);
        guest.plain(absent, [0; PAGE_SIZE]);
        guest.check(&host);
    }
}

#[test]
fn an_allocated_page_is_zeroes_and_ordinary() {
    let mut guest = PvGuest::new(WIDTHS[1]);
    // The GDT may be on it.
    let stream = stream(&guest, |stream| {
        stream.batch(&[(DATA.start, PageType::Xalloc, 0), (SPARE, PageType::Xalloc, 0)])
    });
    let host = host();
    restore_pv(&host, &stream).unwrap();
    guest.plain(DATA.start, [0; PAGE_SIZE]);
    guest.plain(SPARE, [0; PAGE_SIZE]);
    guest.check(&host);
}

#[test]
fn a_page_table_that_was_being_changed_is_a_hole_until_it_comes() {
    for width in WIDTHS {
        let guest = PvGuest::new(width);
        let host = host();
        let start = guest.start().contents(&[hole(L1), hole(L2), hole(DATA.start)]);
        let report = restore_pv(&host, &guest.state(guest.all(start, true)).end()).unwrap();
        guest.check(&host);
        assert_eq!(report.pages_depopulated, 0);
    }
}

#[test]
fn a_hole_is_given_back_at_the_end() {
    for width in WIDTHS {
        let guest = PvGuest::new(width);
        let host = host();
        let holes = [SPARE, SPARE + 1, HIGHEST - 1];
        let stream = stream(&guest, |stream| {
            // The last one is a page again.
            stream
                .pages(holes.into_iter().chain([SPARE + 2]))
                .contents(&holes.map(hole))
                .contents(&[hole(SPARE + 2), hole(SPARE + 3)])
                .pages([SPARE + 2])
        });
        let report = restore_pv(&host, &stream).unwrap();
        let calls = host.calls();
        let pins = calls.iter().position(|call| matches!(call, Call::Pin(_))).unwrap();
        let Call::Depopulate(frames) = &calls[pins + 1] else { panic!("{calls:?}") };
        assert_eq!((report.pages_depopulated, frames.len()), (3, 3));
        assert_eq!(calls.iter().filter(|call| matches!(call, Call::Depopulate(_))).count(), 1);
        let mut expected = guest;
        expected.plain(SPARE + 2, [SPARE as u8 + 2; PAGE_SIZE]);
        expected.check(&host);
    }
}

#[test]
fn a_hole_that_cannot_be_given_back_is_a_hole_to_the_guest() {
    let guest = PvGuest::new(WIDTHS[1]);
    for errno in [EINVAL, EPERM] {
        let host = host();
        host.refuse(Refusal { verb: "depopulate", after: 0, times: 1, errno });
        let bytes = stream(&guest, |stream| stream.pages([SPARE]).contents(&[hole(SPARE)]));
        let report = restore_pv(&host, &bytes).unwrap();
        assert_eq!(report.pages_depopulated, 0);
        assert!(host.frame(SPARE).is_some());
        assert_eq!(guest.p2m_entry(&host, SPARE), u64::MAX);
    }
}

#[test]
fn a_broken_page_is_the_guests_still() {
    let mut guest = PvGuest::new(WIDTHS[1]);
    guest.plain(SPARE, [1; PAGE_SIZE]);
    let host = host();
    let broken = [(SPARE, PageType::Broken, 0), (SPARE + 1, PageType::Broken, 0)];
    let report = restore_pv(&host, &stream(&guest, |stream| stream.batch(&broken))).unwrap();
    assert_eq!(report.pages_depopulated, 0);
    guest.check(&host);
}

#[test]
fn the_last_type_holds() {
    for width in WIDTHS {
        let mut guest = PvGuest::new(width);
        let entries = table([(7, DATA.start, 0x67), (8, SPARE + 2, 0x65)]);
        guest.plain(SPARE, entries);
        guest.pages.insert(SPARE + 1, (PageType::L1Pinned, entries));
        guest.pages.insert(SPARE + 2, (PageType::L1, entries));
        guest.pages.get_mut(&SPARE).unwrap().1[100] = 1;
        let before = [
            (SPARE, PageType::L1Pinned, entries),
            (SPARE + 1, PageType::Notab, [0xff; PAGE_SIZE]),
            (SPARE + 2, PageType::L1Pinned, table([(1, SPARE, 0x65)])),
        ];
        let start = guest.start().contents(&before);
        let host = host();
        restore_pv(&host, &guest.state(guest.all(start, false)).end()).unwrap();
        guest.check(&host);
        assert!(host.pinned().contains(&(SPARE + 1)) && !host.pinned().contains(&SPARE));
    }
}

#[test]
fn a_guest_may_grow() {
    for width in WIDTHS {
        let mut guest = PvGuest::new(width);
        let before = Stream::headers(xenmig_types::GuestKind::Pv)
            .with(|out| encode::pv_info(out, width.bytes(), width.levels()))
            .with(encode::static_data_end)
            .with(|out| encode::pv_p2m_frames(out, 0, 31, &[Pfn(DATA.start)]).unwrap())
            .pages([31]);
        let grown =
            before.with(|out| encode::pv_p2m_frames(out, 0, HIGHEST as u32, &guest.p2m_pages()).unwrap());
        let host = host();
        restore_pv(&host, &guest.state(guest.all(grown, false)).end()).unwrap();
        guest.plain(31, [31; PAGE_SIZE]);
        guest.check(&host);
    }
}

#[test]
fn a_part_of_the_p2m_may_move() {
    let guest = PvGuest::new(WIDTHS[1]);
    // It was on other pages before. A record that ends earlier makes the guest no smaller.
    let mut pages = guest.p2m_pages();
    let moved = [std::mem::replace(&mut pages[1], Pfn(DATA.start))];
    let start = Stream::headers(xenmig_types::GuestKind::Pv)
        .with(|out| encode::pv_info(out, 8, 4))
        .with(encode::static_data_end)
        .with(|out| encode::pv_p2m_frames(out, 0, HIGHEST as u32, &pages).unwrap())
        .with(|out| encode::pv_p2m_frames(out, 600, 700, &moved).unwrap());
    let host = host();
    restore_pv(&host, &guest.state(guest.all(start, false)).end()).unwrap();
    guest.check(&host);
}

#[test]
fn a_page_table_may_refer_to_512_pages_that_are_to_come() {
    let mut guest = PvGuest::new(WIDTHS[1]);
    let entries = table((0..512).map(|index| (index, 50 + index as u64, 0x67)));
    guest.pages.insert(40, (PageType::L1Pinned, entries));
    for pfn in 50..562 {
        guest.plain(pfn, [pfn as u8; PAGE_SIZE]);
    }
    let host = PvHost::new(600);
    let stream = guest.state(guest.all(guest.start(), false)).end();
    restore_pv(&host, &stream).unwrap();
    guest.check(&host);
    assert!(host.pinned().contains(&40) && host.pinned().contains(&L4));
}
