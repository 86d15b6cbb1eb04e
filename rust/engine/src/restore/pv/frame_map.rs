// SPDX-License-Identifier: GPL-3.0-or-later
//! For each pfn at which the domain was given a page: its frame, its type as the stream gave it last, and whether it was
//! ever filled.
//!
//! A pfn is entered when the hypervisor has given a page for it. So the map grows with the domain's own memory, which its
//! limit bounds, and not with the numbers in the stream: an isolated page costs one block of 600 bytes, and a dense guest
//! takes little more than nine bytes per page.

use std::{array, collections::BTreeMap};

use xenmig_types::{Gfn, PageType, Pfn, pv::GuestWidth};

use super::super::{error::RestoreError, named_page::NamedPage, typed_pfn::TypedPfn};

/// Pages of a block: one for each bit of a word.
const BLOCK_PAGES: u64 = u64::BITS as u64;
const BLOCK_LENGTH: usize = u64::BITS as usize;

/// Neighbouring pages.
#[derive(Clone, Debug)]
struct FrameBlock {
    /// Which of them the domain was given. The other fields mean nothing for the rest.
    given: u64,
    /// Which of them were filled.
    filled: u64,
    kinds: [PageType; BLOCK_LENGTH],
    frames: [Gfn; BLOCK_LENGTH],
}

impl Default for FrameBlock {
    fn default() -> Self {
        Self {
            given: 0,
            filled: 0,
            kinds: [PageType::Notab; BLOCK_LENGTH],
            frames: array::from_fn(|_| Gfn::default()),
        }
    }
}

/// Returns the number of a pfn's block, and the pfn's place in it.
const fn place(pfn: Pfn) -> (u64, usize) {
    (pfn.0 / BLOCK_PAGES, (pfn.0 % BLOCK_PAGES) as usize)
}

/// A page that the domain was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageEntry {
    pub(super) pfn: Pfn,
    pub(super) frame: Gfn,
    /// Its type as the stream gave it last; an ordinary page before that.
    pub(super) kind: PageType,
    /// It was filled, with contents or zeroes.
    pub(super) filled: bool,
}

impl PageEntry {
    pub(super) const fn page(self) -> TypedPfn {
        TypedPfn { pfn: self.pfn, kind: self.kind }
    }
}

impl FrameBlock {
    fn entry(&self, pfn: Pfn) -> Option<PageEntry> {
        let (_, at) = place(pfn);
        let (frame, kind) = (*self.frames.get(at)?, *self.kinds.get(at)?);
        let is_in = |set: u64| set >> at & 1 == 1;
        is_in(self.given).then_some(PageEntry { pfn, frame, kind, filled: is_in(self.filled) })
    }

    /// Iterates over the pages of a block of this number.
    fn entries(&self, number: u64) -> impl Iterator<Item = PageEntry> + '_ {
        let first = number * BLOCK_PAGES;
        (first..first + BLOCK_PAGES).filter_map(|pfn| self.entry(Pfn(pfn)))
    }
}

/// The map.
#[derive(Debug, Default)]
pub(super) struct FrameMap {
    blocks: BTreeMap<u64, Box<FrameBlock>>,
}

impl FrameMap {
    /// Returns the frames of pages. The error is the first pfn at which the domain has no page.
    pub(super) fn frames(&self, pages: &[TypedPfn]) -> Result<Vec<Gfn>, Pfn> {
        let mut lookup = self.lookup();
        pages.iter().map(|page| lookup.frame(page.pfn).ok_or(page.pfn)).collect()
    }

    /// Returns a page that the guest's state names.
    pub(super) fn named(&self, what: NamedPage, pfn: Pfn) -> Result<PageEntry, RestoreError> {
        let why = "which the guest does not have";
        self.entry(pfn).ok_or(RestoreError::Named { what, pfn, why })
    }

    /// Returns a page that the guest's state names and that must be an ordinary one.
    pub(super) fn ordinary(&self, what: NamedPage, pfn: Pfn) -> Result<PageEntry, RestoreError> {
        let entry = self.named(what, pfn)?;
        if matches!(entry.kind, PageType::Notab | PageType::Xalloc) {
            return Ok(entry);
        }
        Err(RestoreError::Named { what, pfn, why: "which is no ordinary page" })
    }

    /// Returns a page that the guest's state names and that must be a page table of the top level.
    pub(super) fn top_table(
        &self,
        width: GuestWidth,
        what: NamedPage,
        pfn: Pfn,
    ) -> Result<PageEntry, RestoreError> {
        let entry = self.named(what, pfn)?;
        if entry.kind.table_level() == Some(width.levels()) {
            return Ok(entry);
        }
        Err(RestoreError::Named { what, pfn, why: "which is no page table of the top level" })
    }

    /// Returns what is known of a page; `None` if the domain has none at this pfn.
    pub(super) fn entry(&self, pfn: Pfn) -> Option<PageEntry> {
        self.blocks.get(&place(pfn).0)?.entry(pfn)
    }

    /// Enters a page that the domain was given.
    pub(super) fn insert(&mut self, pfn: Pfn, frame: Gfn) {
        let (number, at) = place(pfn);
        let block = self.blocks.entry(number).or_default();
        if let (Some(to), Some(kind)) = (block.frames.get_mut(at), block.kinds.get_mut(at)) {
            (*to, *kind) = (frame, PageType::Notab);
            block.given |= 1 << at;
            block.filled &= !(1 << at);
        }
    }

    /// Takes note of the types of pages and, if `fills`, that those of them with contents are filled. Pfns without a page
    /// are ignored.
    pub(super) fn note(&mut self, pages: &[TypedPfn], fills: bool) {
        for neighbours in pages.chunk_by(|a, b| place(a.pfn).0 == place(b.pfn).0) {
            let Some((number, _)) = neighbours.first().map(|page| place(page.pfn)) else { continue };
            let Some(block) = self.blocks.get_mut(&number) else { continue };
            for TypedPfn { pfn, kind } in neighbours {
                let (_, at) = place(*pfn);
                if let Some(to) = block.kinds.get_mut(at) {
                    *to = *kind;
                    block.filled |= u64::from(fills && kind.is_populated()) << at;
                }
            }
        }
    }

    /// Forgets a page.
    pub(super) fn remove(&mut self, pfn: Pfn) {
        let (number, at) = place(pfn);
        if let Some(block) = self.blocks.get_mut(&number) {
            block.given &= !(1 << at);
            if block.given == 0 {
                self.blocks.remove(&number);
            }
        }
    }

    /// Iterates over the pages, from the lowest pfn on.
    pub(super) fn entries(&self) -> impl Iterator<Item = PageEntry> + '_ {
        self.blocks.iter().flat_map(|(number, block)| block.entries(*number))
    }

    /// Returns the pages that were never filled.
    pub(super) fn unfilled(&self) -> Vec<TypedPfn> {
        let some = self.blocks.iter().filter(|(_, block)| block.given & !block.filled != 0);
        let entries = some.flat_map(|(number, block)| block.entries(*number));
        entries.filter(|entry| !entry.filled).map(PageEntry::page).collect()
    }

    /// Returns a look-up that is fast for a pfn near the last one.
    pub(super) const fn lookup(&self) -> FrameLookup<'_> {
        FrameLookup { map: self, number: u64::MAX, block: None }
    }
}

/// A look-up of frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameLookup<'p> {
    map: &'p FrameMap,
    /// The number of the last block.
    number: u64,
    /// That block, if there is one of that number.
    block: Option<&'p FrameBlock>,
}

impl FrameLookup<'_> {
    /// Returns the frame of a page; `None` if the domain has none at this pfn.
    pub(super) fn frame(&mut self, pfn: Pfn) -> Option<Gfn> {
        let (number, at) = place(pfn);
        if number != self.number {
            self.number = number;
            self.block = self.map.blocks.get(&number).map(|block| &**block);
        }
        let block = self.block.filter(|block| block.given >> at & 1 == 1)?;
        block.frames.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two crowded places, one of them far away.
    fn pfns() -> impl Strategy<Value = Pfn> {
        (0..200_u64, any::<bool>()).prop_map(|(low, far)| Pfn(if far { (1 << 32) - 1 - low } else { low }))
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0..4_u8, pfns(), 1..1_u64 << 40, 0..12_usize), 0..100)) {
            let (mut map, mut model) = (FrameMap::default(), BTreeMap::new());
            for (what, pfn, frame, kind) in steps {
                match what {
                    0 | 1 => {
                        map.insert(pfn, Gfn(frame));
                        model.insert(pfn, PageEntry { pfn, frame: Gfn(frame), kind: PageType::Notab, filled: false });
                    }
                    2 => {
                        map.remove(pfn);
                        model.remove(&pfn);
                    }
                    _ => {
                        let (kind, fills) = (PageType::ALL[kind], frame % 2 == 0);
                        // In one block, in the next one, and again in the first.
                        let pages = [pfn, Pfn(pfn.0 ^ 64), Pfn(pfn.0 ^ 1)].map(|pfn| TypedPfn { pfn, kind });
                        map.note(&pages, fills);
                        for page in pages {
                            if let Some(entry) = model.get_mut(&page.pfn) {
                                entry.kind = kind;
                                entry.filled |= fills && kind.is_populated();
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(map.entries().collect::<Vec<_>>(), model.values().copied().collect::<Vec<_>>());
            let unfilled = model.values().filter(|entry| !entry.filled).map(|entry| entry.pfn);
            prop_assert_eq!(map.unfilled().iter().map(|page| page.pfn).collect::<Vec<_>>(), unfilled.collect::<Vec<_>>());
            prop_assert!(map.blocks.values().all(|block| block.given != 0));
            let mut lookup = map.lookup();
            for pfn in (0..200).chain((1 << 32) - 200..1 << 32).map(Pfn) {
                prop_assert_eq!(map.entry(pfn), model.get(&pfn).copied());
                prop_assert_eq!(lookup.frame(pfn), model.get(&pfn).map(|entry| entry.frame));
            }
        }
    }
}
