// SPDX-License-Identifier: GPL-3.0-or-later
//! The p2m of a PV guest: an array in its own memory that has the mfn for each pfn. Guests show it to the toolstack in
//! one of two forms.
//!
//! ```text
//! list   p2m_cr3 ─► L4 ─► L3 ─► L2 ─► L1 ─► pages of the array      mapped from p2m_vaddr on
//! tree   pfn_to_mfn_frame_list_list ─► frame lists ─► pages of the array
//! ```
//!
//! A guest may announce far more entries than it has memory for, and lets the end of the array share one page that says
//! "no page". It shows one level above: entries that are all the same. The array ends for us where they begin, or log-dirty
//! bitmap and p2m would be as long as the announcement.
//!
//! Everything is the guest's word, and is checked: no frame beyond the host's, none that cannot be mapped, and no array
//! longer than a stream can say.

use xenmig_hypervisor::{Access, ForeignPages, M2p, PageBuffer};
use xenmig_types::{
    Gfn, PAGE_SHIFT, Pfn,
    pv::{GuestWidth, Pte, shared_info},
};

use crate::{
    guest::save_ops::{Domain, SaveWatch},
    save::save_error::SaveError,
};

/// X86_PV_P2M_FRAMES has pfns of 32 bits.
const MAX_ENTRIES: u64 = 1 << 32;
/// log2 of the entries of a page table.
const TABLE_SHIFT: u32 = 9;

/// The mapped p2m.
#[derive(Debug)]
pub(super) struct P2m {
    width: GuestWidth,
    entries: u64,
    /// The frames of the array's pages, in order.
    pages: Vec<Gfn>,
    mapped: ForeignPages,
}

impl P2m {
    /// Finds the array by what the shared info page says, and maps it.
    pub(super) fn find(
        domain: Domain<'_>,
        width: GuestWidth,
        m2p: &M2p,
        shared: &PageBuffer,
        watch: &mut SaveWatch<'_>,
    ) -> Result<Self, SaveError> {
        let search = Search { domain, width, frames: m2p.frames(), shared };
        let announced = search.field(shared_info::MAX_PFN);
        if announced == 0 || announced > MAX_ENTRIES {
            return Err(search.bad("the number of its entries", announced));
        }
        let cr3 = search.field(shared_info::P2M_CR3);
        let (entries, pages) = match cr3 {
            0 => search.tree(announced, watch)?,
            _ => search.list(announced, cr3, watch)?,
        };
        let mapped = search.map(&pages, "a page of it", watch)?;
        Ok(Self { width, entries, pages, mapped })
    }

    /// Returns the number of entries.
    pub(super) const fn entries(&self) -> u64 {
        self.entries
    }

    /// Returns the frames of the pages that hold the entries.
    pub(super) fn pages(&self) -> &[Gfn] {
        &self.pages
    }

    /// Returns an entry as it is at this moment; `None` if there is no page at this pfn, or no such entry.
    pub(super) fn frame(&self, pfn: Pfn) -> Option<Gfn> {
        if pfn.0 >= self.entries {
            return None;
        }
        let per_page = self.width.frames_per_page();
        let page = usize::try_from(pfn.0 / per_page).ok()?;
        let frame = read(&self.mapped, self.width, page, pfn.0 % per_page)?;
        (frame != self.width.invalid_frame()).then_some(Gfn(frame))
    }
}

/// Reads an entry of a page of frames, a word of the guest's width.
fn read(mapped: &ForeignPages, width: GuestWidth, page: usize, index: u64) -> Option<u64> {
    let index = usize::try_from(index).ok()?;
    match width {
        GuestWidth::Bits64 => mapped.word(page, index),
        GuestWidth::Bits32 => {
            let pair = mapped.word(page, index / 2)?;
            Some(if index.is_multiple_of(2) { pair & 0xffff_ffff } else { pair >> 32 })
        }
    }
}

/// The way from the shared info page to the array.
struct Search<'a> {
    domain: Domain<'a>,
    width: GuestWidth,
    /// Frames of the host.
    frames: u64,
    shared: &'a PageBuffer,
}

impl Search<'_> {
    fn field(&self, field: xenmig_types::pv::Field) -> u64 {
        field.get(self.width, self.shared).unwrap_or_default()
    }

    const fn bad(&self, what: &'static str, value: u64) -> SaveError {
        SaveError::BadP2m { domid: self.domain.domid, what, value }
    }

    /// Checks a frame that the guest names.
    fn frame(&self, frame: u64, what: &'static str) -> Result<Gfn, SaveError> {
        if frame == 0 || frame >= self.frames { Err(self.bad(what, frame)) } else { Ok(Gfn(frame)) }
    }

    fn map(
        &self,
        frames: &[Gfn],
        what: &'static str,
        watch: &mut SaveWatch<'_>,
    ) -> Result<ForeignPages, SaveError> {
        let Domain { host, domid } = self.domain;
        let mapped = watch.retry(|| host.map(domid, frames, Access::Read))?;
        match frames.iter().enumerate().find_map(|(index, frame)| Some((frame, mapped.error(index)?))) {
            None => Ok(mapped),
            Some((frame, errno)) => Err(SaveError::MapFrame { domid, what, frame: *frame, errno }),
        }
    }

    /// Follows the tree: the root has the frames of the lists, each of which has the frames of the array.
    fn tree(&self, announced: u64, watch: &mut SaveWatch<'_>) -> Result<(u64, Vec<Gfn>), SaveError> {
        let per_page = self.width.frames_per_page();
        let per_list = per_page * per_page;
        let lists = announced.div_ceil(per_list);
        if lists > per_page {
            return Err(self.bad("the number of its entries, for a tree", announced));
        }
        let root = self.frame(self.field(shared_info::FRAME_LIST_LIST), "the frame of its root")?;
        let lists = self.frames_on(&[root], 0..lists, "the frame of a list", watch)?;
        let kept = without_end(&lists, 1);
        let lists = lists.get(..kept).unwrap_or(&lists);
        let entries = announced.min(lists.len() as u64 * per_list);
        let pages = self.frames_on(lists, 0..entries.div_ceil(per_page), "the frame of a page", watch)?;
        Ok((entries, pages))
    }

    /// Reads frames, numbered from the first page's first, off pages of frames.
    fn frames_on(
        &self,
        pages: &[Gfn],
        range: std::ops::Range<u64>,
        what: &'static str,
        watch: &mut SaveWatch<'_>,
    ) -> Result<Vec<Gfn>, SaveError> {
        let mapped = self.map(pages, "a page of its tree", watch)?;
        let per_page = self.width.frames_per_page();
        let frame = |index: u64| {
            let page = usize::try_from(index / per_page).unwrap_or(usize::MAX);
            let frame = read(&mapped, self.width, page, index % per_page).unwrap_or_default();
            self.frame(if frame == self.width.invalid_frame() { u64::MAX } else { frame }, what)
        };
        range.map(frame).collect()
    }

    /// Follows the page tables that map the list.
    fn list(
        &self,
        announced: u64,
        cr3: u64,
        watch: &mut SaveWatch<'_>,
    ) -> Result<(u64, Vec<Gfn>), SaveError> {
        let per_page = self.width.frames_per_page();
        let root = self.width.frame_of_cr3(cr3).ok_or_else(|| self.bad("p2m_cr3", cr3))?;
        let root = self.frame(root.0, "the frame of p2m_cr3")?;
        let (first, mut entries) = (self.field(shared_info::P2M_VADDR), announced);
        self.check_addresses(first, entries.div_ceil(per_page))?;
        // What of the address a level sees begins at 0 with the first table that is mapped.
        let mut page = (first & self.address_mask()) >> PAGE_SHIFT;
        let mut tables = vec![root];
        for level in (1..=u32::from(self.width.levels())).rev() {
            let shift = TABLE_SHIFT * (level - 1);
            let last = page + entries.div_ceil(per_page) - 1;
            tables = self.entries_of(&tables, page >> shift..=last >> shift, watch)?;
            if level == 2 {
                let kept = without_end(&tables, 0);
                tables.truncate(kept);
                // The first table may be mapped from its middle on.
                let pages = ((tables.len() as u64) << TABLE_SHIFT) - (page & ((1 << TABLE_SHIFT) - 1));
                entries = entries.min(pages * per_page);
            }
            page &= (1 << shift) - 1;
        }
        Ok((entries, tables))
    }

    const fn address_mask(&self) -> u64 {
        match self.width {
            GuestWidth::Bits32 => 0xffff_ffff,
            GuestWidth::Bits64 => 0xffff_ffff_ffff,
        }
    }

    /// Checks the addresses that the list is mapped at: the processor's, one half of them, and not Xen's.
    fn check_addresses(&self, first: u64, pages: u64) -> Result<(), SaveError> {
        let bad = || self.bad("the address of it", first);
        let last = first.checked_add((pages << PAGE_SHIFT) - 1).ok_or_else(bad)?;
        let (xen_first, xen_last) = self.width.xen_addresses();
        let usable = |address: u64| match self.width {
            GuestWidth::Bits32 => address <= self.address_mask(),
            GuestWidth::Bits64 => {
                let sign = address.cast_signed() >> 47;
                sign == 0 || sign == -1
            }
        };
        let one_half = self.width == GuestWidth::Bits32 || first >> 63 == last >> 63;
        let clear_of_xen = first > xen_last || last < xen_first;
        let aligned = first.trailing_zeros() >= PAGE_SHIFT;
        if usable(first) && usable(last) && one_half && clear_of_xen && aligned { Ok(()) } else { Err(bad()) }
    }

    /// Returns the frames that entries of consecutive page tables name.
    fn entries_of(
        &self,
        tables: &[Gfn],
        range: std::ops::RangeInclusive<u64>,
        watch: &mut SaveWatch<'_>,
    ) -> Result<Vec<Gfn>, SaveError> {
        let mapped = self.map(tables, "a page table of it", watch)?;
        let frame = |index: u64| {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let word = mapped.word(index / Pte::PER_TABLE, index % Pte::PER_TABLE);
            let pte = Pte(word.unwrap_or_default());
            self.frame(if pte.is_present() { pte.frame() } else { 0 }, "the frame in a page table of it")
        };
        range.map(frame).collect()
    }
}

/// Returns how many entries there are without those at the end that are all the same, but for the first `keep` of these.
/// One alone is an entry like any other. So are all of them, if there is nothing else.
fn without_end(frames: &[Gfn], keep: usize) -> usize {
    let Some(last) = frames.last() else { return 0 };
    let same = frames.iter().rev().take_while(|frame| *frame == last).count();
    let before = frames.len() - same;
    if same == 1 || before + keep == 0 { frames.len() } else { before + keep.min(same) }
}

#[cfg(test)]
mod tests {
    use xenmig_hypervisor::Hypervisor;
    use xenmig_sim::{DomainConfig, SimHost};
    use xenmig_types::PAGE_SIZE;

    use super::*;

    /// A p2m of five entries, on a page of which all words count upwards.
    fn five(width: GuestWidth) -> P2m {
        let host = SimHost::new();
        let domain = host.create(DomainConfig { memory_bytes: 1 << 20, ..DomainConfig::default() }).unwrap();
        let mut page = [0; PAGE_SIZE];
        for (number, word) in (100_u16..).zip(page.chunks_mut(width.bytes().into())) {
            word[..2].copy_from_slice(&number.to_le_bytes());
        }
        page[3 * usize::from(width.bytes())..][..usize::from(width.bytes())].fill(0xff);
        domain.write_page(Pfn(7), &page).unwrap();
        let mapped = host.map(domain.domid(), &[Gfn(7)], Access::Read).unwrap();
        P2m { width, entries: 5, pages: vec![Gfn(7)], mapped }
    }

    #[test]
    fn entries_are_read_up_to_the_last_and_no_further() {
        for width in [GuestWidth::Bits32, GuestWidth::Bits64] {
            let p2m = five(width);
            let frames: Vec<_> = (0..7).map(|pfn| p2m.frame(Pfn(pfn)).map(|frame| frame.0)).collect();
            assert_eq!(frames, [Some(100), Some(101), Some(102), None, Some(104), None, None]);
        }
    }

    fn gfns(frames: &[u64]) -> Vec<Gfn> {
        frames.iter().map(|frame| Gfn(*frame)).collect()
    }

    #[test]
    fn an_end_of_equal_entries_is_left_out() {
        for (frames, list, tree) in [
            (&[][..], 0, 0),
            (&[5], 1, 1),
            (&[5, 6], 2, 2),
            (&[5, 6, 6], 1, 2),
            (&[5, 6, 5, 6, 6, 6], 3, 4),
            (&[5, 5, 5, 6], 4, 4),
        ] {
            assert_eq!(
                (without_end(&gfns(frames), 0), without_end(&gfns(frames), 1)),
                (list, tree),
                "{frames:?}"
            );
        }
        // All the same: a list is left as it is, and of a tree one is kept.
        assert_eq!((without_end(&gfns(&[5, 5, 5]), 0), without_end(&gfns(&[5, 5, 5]), 1)), (3, 1));
    }
}
