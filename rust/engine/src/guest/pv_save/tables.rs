// SPDX-License-Identifier: GPL-3.0-or-later
//! Page tables for the stream: each entry that is present gets the pfn of the frame that it names, and the slots that Xen
//! uses for itself become empty; the receiver's Xen fills in its own.

use std::ops::RangeInclusive;

use xenmig_hypervisor::PageBuffer;
use xenmig_types::{
    Gfn, PageType, Pfn,
    pv::{GuestWidth, Pte},
};

use crate::guest::table_fault::TableFault;

/// Address bits below an entry of a table of level 2 or 4.
const L2_SHIFT: u32 = 21;
const L4_SHIFT: u32 = 39;
/// Entries of the L3 table of a 32-bit guest.
const PAE_L3_ENTRIES: usize = 4;

/// Appends a table as the stream has it. On an error some of it is appended.
pub(super) fn normalise(
    width: GuestWidth,
    compat_m2p: Option<Gfn>,
    kind: PageType,
    table: &PageBuffer,
    pfn: impl Fn(Gfn) -> Option<Pfn>,
    out: &mut Vec<u8>,
) -> Result<(), TableFault> {
    let (entries, _) = table.as_chunks::<8>();
    let level = kind.table_level().unwrap_or_default();
    if level > width.levels() {
        return Err(TableFault::Unfit { index: 0, why: "a 32-bit guest has no L4 tables" });
    }
    let entry = |index: usize| entries.get(index).map_or(Pte(0), |bytes| Pte(u64::from_le_bytes(*bytes)));
    let xen = xen_slots(width, compat_m2p, level, entry);
    out.reserve(table.len());
    for index in 0..entries.len() {
        let mut pte = entry(index);
        if xen.contains(&index) {
            pte = Pte(0);
        }
        if pte.is_present() {
            if level > 1 && pte.is_superpage() {
                return Err(TableFault::Unfit { index, why: "a superpage is mapped" });
            }
            let mfn = Gfn(pte.frame());
            let fault = TableFault::Frame { index, mfn };
            pte = pfn(mfn).and_then(|pfn| pte.with_frame(pfn.0)).ok_or(fault)?;
        }
        out.extend(pte.0.to_le_bytes());
    }
    Ok(())
}

/// Returns the slots of a table that Xen uses for itself.
fn xen_slots(
    width: GuestWidth,
    compat_m2p: Option<Gfn>,
    level: u8,
    entry: impl Fn(usize) -> Pte,
) -> RangeInclusive<usize> {
    let (first, last) = width.xen_addresses();
    let slots = |shift: u32| slot(first, shift)..=slot(last, shift);
    match (width, level) {
        (GuestWidth::Bits64, 4) => slots(L4_SHIFT),
        // The processor reads four entries; Xen may use the others.
        (GuestWidth::Bits32, 3) => PAE_L3_ENTRIES..=Pte::PER_TABLE - 1,
        // Most L2 tables are like any other. Those with mappings of Xen's begin them with the table of the m2p.
        (GuestWidth::Bits32, 2) if compat_m2p == Some(Gfn(entry(slot(first, L2_SHIFT)).frame())) => {
            slots(L2_SHIFT)
        }
        #[expect(clippy::reversed_empty_ranges, reason = "there are none")]
        _ => 1..=0,
    }
}

/// Returns the entry that an address is translated by.
const fn slot(address: u64, shift: u32) -> usize {
    const LAST: u64 = Pte::PER_TABLE as u64 - 1;
    (address >> shift & LAST) as usize
}

#[cfg(test)]
mod tests {
    use xenmig_types::PAGE_SIZE;

    use super::*;

    const COMPAT: Gfn = Gfn(0x777);

    /// A guest whose pfn is its mfn less 0x1000, up to 0x2000.
    fn pfn(mfn: Gfn) -> Option<Pfn> {
        (0x1000..0x2000).contains(&mfn.0).then(|| Pfn(mfn.0 - 0x1000))
    }

    fn table(entries: &[(usize, u64)]) -> PageBuffer {
        let mut table = [0; PAGE_SIZE];
        for (index, pte) in entries {
            table[index * 8..index * 8 + 8].copy_from_slice(&pte.to_le_bytes());
        }
        table
    }

    fn normalised(width: GuestWidth, kind: PageType, before: &PageBuffer) -> Result<PageBuffer, TableFault> {
        let mut out = Vec::new();
        normalise(width, Some(COMPAT), kind, before, pfn, &mut out)?;
        Ok(out.try_into().unwrap())
    }

    #[test]
    fn present_entries_get_pfns_and_keep_their_flags() {
        // Not present, but with a swap entry in it: the guest's own affair.
        let before = table(&[(0, 0x8000_0000_0100_1067), (5, 0x0100_2000), (511, 0x01ff_f001)]);
        let after = table(&[(0, 0x8000_0000_0000_1067), (5, 0x0100_2000), (511, 0x00ff_f001)]);
        for width in [GuestWidth::Bits32, GuestWidth::Bits64] {
            assert_eq!(normalised(width, PageType::L1, &before), Ok(after));
            assert_eq!(normalised(width, PageType::L2Pinned, &before), Ok(after));
        }
    }

    #[test]
    fn a_frame_of_another_is_told_with_its_place() {
        for (index, mfn) in [(0, 0x2000), (511, 0xfff), (256, 0xff_ffff_ffff)] {
            let before = table(&[(index, mfn << 12 | 1)]);
            let fault = normalised(GuestWidth::Bits64, PageType::L1, &before).unwrap_err();
            assert_eq!(fault, TableFault::Frame { index, mfn: Gfn(mfn) });
        }
    }

    #[test]
    fn a_superpage_is_one_above_l1_only() {
        let before = table(&[(3, 0x0100_1081)]);
        assert!(normalised(GuestWidth::Bits64, PageType::L1, &before).is_ok());
        for kind in [PageType::L2, PageType::L3, PageType::L4, PageType::L2Pinned] {
            let fault = normalised(GuestWidth::Bits64, kind, &before).unwrap_err();
            assert!(matches!(fault, TableFault::Unfit { index: 3, .. }), "{fault:?}");
        }
    }

    #[test]
    fn the_slots_of_xen_become_empty() {
        let foreign = 0x9999_9000 | 1;
        let all: Vec<_> = [255, 256, 271, 272].into_iter().map(|index| (index, foreign)).collect();
        let at = |index: usize| table(&all[index..=index]);
        let empty = table(&[]);
        assert_eq!(normalised(GuestWidth::Bits64, PageType::L4, &at(1)), Ok(empty));
        assert_eq!(normalised(GuestWidth::Bits64, PageType::L4Pinned, &at(2)), Ok(empty));
        assert!(normalised(GuestWidth::Bits64, PageType::L4, &at(0)).is_err());
        assert!(normalised(GuestWidth::Bits64, PageType::L4, &at(3)).is_err());
        assert!(normalised(GuestWidth::Bits64, PageType::L3, &at(1)).is_err());

        assert_eq!(normalised(GuestWidth::Bits32, PageType::L3, &table(&[(4, foreign)])), Ok(empty));
        assert!(normalised(GuestWidth::Bits32, PageType::L3, &table(&[(3, foreign)])).is_err());
    }

    #[test]
    fn an_l2_of_a_narrow_guest_has_slots_of_xen_if_the_m2p_is_there() {
        let m2p = COMPAT.0 << 12 | 0x81;
        let before = table(&[(427, 0x0100_1001), (428, m2p), (429, 0x9999_9081), (511, 0x9999_9001)]);
        assert_eq!(normalised(GuestWidth::Bits32, PageType::L2, &before), Ok(table(&[(427, 0x0000_1001)])));
        assert!(normalised(GuestWidth::Bits32, PageType::L1, &before).is_err());
        assert!(normalised(GuestWidth::Bits64, PageType::L2, &before).is_err());
        let without = table(&[(429, 0x9999_9001)]);
        assert!(normalised(GuestWidth::Bits32, PageType::L2, &without).is_err());
    }

    #[test]
    fn a_narrow_guest_has_no_l4() {
        let fault = normalised(GuestWidth::Bits32, PageType::L4, &table(&[])).unwrap_err();
        assert!(matches!(fault, TableFault::Unfit { .. }));
    }
}
