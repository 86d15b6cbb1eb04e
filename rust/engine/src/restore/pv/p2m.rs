// SPDX-License-Identifier: GPL-3.0-or-later
//! The p2m under construction: for each pfn at which the domain was given a page, its frame, what the stream said last
//! of its type, and whether it was ever filled.
//!
//! A pfn is entered when the hypervisor has given a page for it. So this grows with the domain's own memory, which its
//! limit bounds, and not with the numbers in the stream: a page all by itself costs one piece of 600 bytes, and a
//! dense guest takes little more than nine bytes a page.

use std::{array, collections::BTreeMap};

use xenmig_types::{Gfn, PageType, Pfn};

use super::super::pages::Page;

/// Pages of a piece: one for each bit of a word.
const PIECE_PAGES: u64 = u64::BITS as u64;
const PIECE_LENGTH: usize = u64::BITS as usize;

/// Neighbouring pages.
#[derive(Clone, Debug)]
struct Piece {
    /// Which of them the domain was given. What is said of the others means nothing.
    given: u64,
    /// Which of them were filled.
    filled: u64,
    kinds: [PageType; PIECE_LENGTH],
    frames: [Gfn; PIECE_LENGTH],
}

impl Default for Piece {
    fn default() -> Self {
        Self {
            given: 0,
            filled: 0,
            kinds: [PageType::Notab; PIECE_LENGTH],
            frames: array::from_fn(|_| Gfn::default()),
        }
    }
}

/// Returns the number of a pfn's piece, and the pfn's place in it.
const fn place(pfn: Pfn) -> (u64, usize) {
    (pfn.0 / PIECE_PAGES, (pfn.0 % PIECE_PAGES) as usize)
}

/// A page that the domain was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) pfn: Pfn,
    pub(super) frame: Gfn,
    /// What the stream said last of it; an ordinary page if nothing.
    pub(super) kind: PageType,
    /// It has got contents, or zeroes.
    pub(super) filled: bool,
}

impl Entry {
    pub(super) const fn page(self) -> Page {
        Page { pfn: self.pfn, kind: self.kind }
    }
}

impl Piece {
    fn entry(&self, pfn: Pfn) -> Option<Entry> {
        let (_, at) = place(pfn);
        let (frame, kind) = (*self.frames.get(at)?, *self.kinds.get(at)?);
        let is_in = |set: u64| set >> at & 1 == 1;
        is_in(self.given).then_some(Entry { pfn, frame, kind, filled: is_in(self.filled) })
    }

    /// Iterates over the pages of a piece of this number.
    fn entries(&self, number: u64) -> impl Iterator<Item = Entry> + '_ {
        let first = number * PIECE_PAGES;
        (first..first + PIECE_PAGES).filter_map(|pfn| self.entry(Pfn(pfn)))
    }
}

/// The p2m.
#[derive(Debug, Default)]
pub(super) struct P2m {
    pieces: BTreeMap<u64, Box<Piece>>,
}

impl P2m {
    /// Returns what is known of a page; `None` if the domain has none at this pfn.
    pub(super) fn entry(&self, pfn: Pfn) -> Option<Entry> {
        self.pieces.get(&place(pfn).0)?.entry(pfn)
    }

    /// Enters a page that the domain was given.
    pub(super) fn insert(&mut self, pfn: Pfn, frame: Gfn) {
        let (number, at) = place(pfn);
        let piece = self.pieces.entry(number).or_default();
        if let (Some(to), Some(kind)) = (piece.frames.get_mut(at), piece.kinds.get_mut(at)) {
            (*to, *kind) = (frame, PageType::Notab);
            piece.given |= 1 << at;
            piece.filled &= !(1 << at);
        }
    }

    /// Takes note of the types of pages, and, if they are filled with that, that those which can be are. Of a pfn
    /// without a page nothing is noted.
    pub(super) fn note(&mut self, pages: &[Page], fills: bool) {
        for neighbours in pages.chunk_by(|a, b| place(a.pfn).0 == place(b.pfn).0) {
            let Some((number, _)) = neighbours.first().map(|page| place(page.pfn)) else { continue };
            let Some(piece) = self.pieces.get_mut(&number) else { continue };
            for Page { pfn, kind } in neighbours {
                let (_, at) = place(*pfn);
                if let Some(to) = piece.kinds.get_mut(at) {
                    *to = *kind;
                    piece.filled |= u64::from(fills && kind.is_populated()) << at;
                }
            }
        }
    }

    /// Forgets a page.
    pub(super) fn remove(&mut self, pfn: Pfn) {
        let (number, at) = place(pfn);
        if let Some(piece) = self.pieces.get_mut(&number) {
            piece.given &= !(1 << at);
            if piece.given == 0 {
                self.pieces.remove(&number);
            }
        }
    }

    /// Iterates over the pages, from the lowest pfn on.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.pieces.iter().flat_map(|(number, piece)| piece.entries(*number))
    }

    /// Returns the pages that were never filled.
    pub(super) fn unfilled(&self) -> Vec<Page> {
        let some = self.pieces.iter().filter(|(_, piece)| piece.given & !piece.filled != 0);
        let entries = some.flat_map(|(number, piece)| piece.entries(*number));
        entries.filter(|entry| !entry.filled).map(Entry::page).collect()
    }

    /// Returns a look-up that is quick for a pfn that is near the last one.
    pub(super) const fn lookup(&self) -> Lookup<'_> {
        Lookup { p2m: self, number: u64::MAX, piece: None }
    }
}

/// A look-up of frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lookup<'p> {
    p2m: &'p P2m,
    /// The number of the last piece.
    number: u64,
    /// That piece, if there is one of that number.
    piece: Option<&'p Piece>,
}

impl Lookup<'_> {
    /// Returns the frame of a page; `None` if the domain has none at this pfn.
    pub(super) fn frame(&mut self, pfn: Pfn) -> Option<Gfn> {
        let (number, at) = place(pfn);
        if number != self.number {
            self.number = number;
            self.piece = self.p2m.pieces.get(&number).map(|piece| &**piece);
        }
        let piece = self.piece.filter(|piece| piece.given >> at & 1 == 1)?;
        piece.frames.get(at).copied()
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
            let (mut p2m, mut model) = (P2m::default(), BTreeMap::new());
            for (what, pfn, frame, kind) in steps {
                match what {
                    0 | 1 => {
                        p2m.insert(pfn, Gfn(frame));
                        model.insert(pfn, Entry { pfn, frame: Gfn(frame), kind: PageType::Notab, filled: false });
                    }
                    2 => {
                        p2m.remove(pfn);
                        model.remove(&pfn);
                    }
                    _ => {
                        let (kind, fills) = (PageType::ALL[kind], frame % 2 == 0);
                        // In one piece, in the next one, and again in the first.
                        let pages = [pfn, Pfn(pfn.0 ^ 64), Pfn(pfn.0 ^ 1)].map(|pfn| Page { pfn, kind });
                        p2m.note(&pages, fills);
                        for page in pages {
                            if let Some(entry) = model.get_mut(&page.pfn) {
                                entry.kind = kind;
                                entry.filled |= fills && kind.is_populated();
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(p2m.entries().collect::<Vec<_>>(), model.values().copied().collect::<Vec<_>>());
            let unfilled = model.values().filter(|entry| !entry.filled).map(|entry| entry.pfn);
            prop_assert_eq!(p2m.unfilled().iter().map(|page| page.pfn).collect::<Vec<_>>(), unfilled.collect::<Vec<_>>());
            prop_assert!(p2m.pieces.values().all(|piece| piece.given != 0));
            let mut lookup = p2m.lookup();
            for pfn in (0..200).chain((1 << 32) - 200..1 << 32).map(Pfn) {
                prop_assert_eq!(p2m.entry(pfn), model.get(&pfn).copied());
                prop_assert_eq!(lookup.frame(pfn), model.get(&pfn).map(|entry| entry.frame));
            }
        }
    }
}
