// SPDX-License-Identifier: GPL-3.0-or-later
//! Streams that lie about a PV guest.

use proptest::prelude::*;
use xenmig_engine::restore::{NamedPage, RestoreError};
use xenmig_stream::{StreamError, encode};
use xenmig_types::{GuestKind, PAGE_SIZE, PageType, Pfn, pv::GuestWidth};

use super::{
    super::build::Stream,
    guest::{DATA, HIGHEST, L1, L2, L3, L4, PvGuest, WIDTHS, restore_pv, table},
    host::{Call, PvHost},
};

fn error_of(bytes: &[u8]) -> RestoreError {
    restore_pv(&PvHost::new(100), bytes).unwrap_err().error
}

#[test]
fn pfns_beyond_the_p2m() {
    for width in WIDTHS {
        let guest = PvGuest::new(width);
        for kind in [PageType::Notab, PageType::Xtab, PageType::Broken, PageType::L1] {
            for pfn in [HIGHEST + 1, u32::MAX.into(), 1 << 32, (1 << 52) - 1] {
                let error = error_of(&guest.start().batch(&[(1, PageType::Xtab, 0), (pfn, kind, 0)]).end());
                let RestoreError::PfnTooHigh { pfn: found, .. } = error else { panic!("{error}") };
                assert_eq!(found, Pfn(pfn));
            }
        }
        let error = error_of(&guest.start().batch(&[(1, PageType::L1, 0), (1, PageType::Notab, 0)]).end());
        assert!(matches!(error, RestoreError::PfnTwice { pfn: Pfn(1), .. }), "{error}");
    }
}

#[test]
fn entries_beyond_the_p2m_are_named() {
    let kinds = [PageType::L1, PageType::L2Pinned, PageType::L3, PageType::L4Pinned];
    for (level, kind) in (1..).zip(kinds) {
        for to in [HIGHEST + 1, 1 << 32, (1 << 40) - 1] {
            let guest = PvGuest::new(GuestWidth::Bits64);
            let stream =
                guest.start().contents(&[(L1, kind, table([(5, 7, 1), (509, to, 1), (511, to, 0)]))]);
            let at = guest.start().0.len() as u64;
            let host = PvHost::new(100);
            let error = restore_pv(&host, &stream.end()).unwrap_err().error;
            let text = error.to_string();
            let RestoreError::TableEntry { offset, pfn, level: found, index: 509, to: refers, .. } = error
            else {
                panic!("{error}")
            };
            assert_eq!((offset, pfn, found, refers), (at, Pfn(L1), level, Pfn(to)));
            assert!(
                text.contains(&format!("entry 509 of the L{level} page table at pfn 0x5, to pfn {to:#x}")),
                "{text}"
            );
            assert_eq!(host.pfns().len(), 1, "nothing is given for a table that is no good");
        }
    }
}

#[test]
fn superpages_are_refused_but_bit_7_of_an_l1_is_not() {
    const BIT_7: u64 = 1 << 7;
    for width in WIDTHS {
        let guest = PvGuest::new(width);
        for (pfn, kind) in [(L2, PageType::L2), (L3, PageType::L3Pinned), (L4, PageType::L4)] {
            let bytes = guest.start().contents(&[(pfn, kind, table([(2, L1, 1 | BIT_7)]))]).end();
            let error = error_of(&bytes);
            assert!(matches!(error, RestoreError::TableEntry { index: 2, to: Pfn(L1), .. }), "{error}");
        }
        let mut guest = guest;
        guest.pages.insert(40, (PageType::L1Pinned, table([(2, DATA.start, 1 | BIT_7)])));
        // An entry that is not present may have the bit.
        guest.pages.insert(41, (PageType::L2, table([(2, 0, BIT_7)])));
        let host = PvHost::new(100);
        restore_pv(&host, &guest.stream()).unwrap();
        guest.check(&host);
    }
}

#[test]
fn a_p2m_of_16_tib_costs_what_its_record_costs() {
    let mut frames = vec![Pfn(7); 1 << 23];
    frames[..1500].fill(Pfn(DATA.start));
    let start = Stream::headers(GuestKind::Pv)
        .with(|out| encode::pv_info(out, 8, 4))
        .with(encode::static_data_end)
        .with(|out| encode::pv_p2m_frames(out, 0, u32::MAX, &frames).unwrap());
    let guest = PvGuest::new(GuestWidth::Bits64);
    let stream = guest.all(start.pages([u32::MAX.into()]), false);
    let host = PvHost::new(100);
    // A page table cannot be a page of a p2m.
    let error = restore_pv(&host, &guest.state(stream).end()).unwrap_err().error;
    let what = NamedPage::P2m { index: 1500 };
    assert!(
        matches!(error, RestoreError::Named { what: found, pfn: Pfn(7), .. } if found == what),
        "{error}"
    );
    assert_eq!(host.pfns().len(), guest.pages.len() + 1);
}

#[test]
fn streams_that_break_off() {
    let guest = PvGuest::new(GuestWidth::Bits32);
    let bytes = guest.stream();
    let (mut cuts, mut offsets) = (0, 0..bytes.len());
    while let Some(cut) = offsets.next() {
        let host = PvHost::new(100);
        let error = restore_pv(&host, &bytes[..cut]).unwrap_err().error;
        let RestoreError::Stream(StreamError::Truncated { offset, .. }) = error else {
            panic!("{cut}: {error}")
        };
        assert_eq!(offset, cut as u64);
        assert!(host.calls().iter().all(|call| matches!(call, Call::Width(4))));
        cuts += 1;
        if cut > 300 {
            offsets.nth(if cut + 600 < bytes.len() { 3_001 } else { 7 });
        }
    }
    assert!(cuts > 330, "{cuts}");
}

/// Returns the places in a stream that are not contents of ordinary pages: most changes there matter.
fn vital(guest: &PvGuest, bytes: &[u8]) -> Vec<usize> {
    let plain: Vec<&[u8]> = guest
        .pages
        .values()
        .filter(|(kind, page)| !kind.is_page_table() && *page == [page[0]; PAGE_SIZE])
        .map(|(_, page)| &page[..])
        .collect();
    let mut vital = vec![true; bytes.len()];
    for at in (0..bytes.len().saturating_sub(PAGE_SIZE)).step_by(8) {
        if plain.contains(&&bytes[at..at + PAGE_SIZE]) {
            vital[at..at + PAGE_SIZE].fill(false);
        }
    }
    (0..bytes.len()).filter(|at| vital[*at]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Changing a stream in some places never causes a panic, leaves a mapping, or touches a page that is not the guest's.
    #[test]
    fn corruption_is_survived(
        is_wide in any::<bool>(),
        resent in prop::collection::vec((0..22_u64, 0..12_usize), 0..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<[bool; 2]>()), 0..6),
    ) {
        let guest = PvGuest::new(WIDTHS[usize::from(is_wide)]);
        let mut stream = guest.all(guest.start(), false);
        for (pfn, kind) in resent {
            stream = stream.contents(&[(pfn, PageType::ALL[kind], table([(pfn as usize, pfn, 1)]))]);
        }
        let mut bytes = guest.state(stream.with(encode::verify).pages([DATA.start])).end();
        let vital = vital(&guest, &bytes);
        for (at, value, [bit, front]) in changes {
            // The first records and the first page words are a small part of the bytes.
            let at = *at.get(if front { &vital[..guest.start().0.len() + 70] } else { &vital });
            bytes[at] = if bit { bytes[at] ^ 1 << (value % 8) } else { value };
        }
        let host = PvHost::new(40);
        match restore_pv(&host, &bytes) {
            Ok(report) => {
                prop_assert!(report.pages_populated <= 40);
                prop_assert!(host.calls().ends_with(&[Call::Grants]));
            }
            Err(failure) => {
                prop_assert!(failure.bytes_read <= bytes.len() as u64);
                prop_assert!(!failure.to_string().contains('\n'));
            }
        }
        prop_assert!(host.pfns().len() <= 40);
        prop_assert_eq!(host.strays(), 0);
    }
}
