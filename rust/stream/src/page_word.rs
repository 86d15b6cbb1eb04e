// SPDX-License-Identifier: GPL-3.0-or-later
//! The words of a PAGE_DATA record. The engine makes them from page types, the reader finds them in a body.

use xenmig_types::{PageType, Pfn, UnknownPageType};

const TYPE_SHIFT: u32 = 60;

/// A pfn and its type in eight bytes: bits 63-60 the type, bits 51-0 the pfn (spec, "PAGE_DATA").
///
/// Bits 59-52 are reserved. They are written as zeroes, and what a stream has there is ignored, as the
/// specification asks and libxc does: they never become a part of the pfn or of the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageWord(u64);

impl PageWord {
    /// The highest pfn that a word can carry.
    pub const MAX_PFN: Pfn = Pfn((1 << 52) - 1);

    /// Joins a pfn and its type. Bits of the pfn above [`PageWord::MAX_PFN`] are lost; no Xen has such pfns.
    #[must_use]
    pub const fn new(pfn: Pfn, kind: PageType) -> Self {
        debug_assert!(pfn.0 <= Self::MAX_PFN.0, "pfn wider than 52 bits");
        // The type's number has four bits: it fits above the shift, and the cast widens.
        Self((kind.number() as u64) << TYPE_SHIFT | pfn.0 & Self::MAX_PFN.0)
    }

    /// Takes a word as it stands in a stream.
    #[must_use]
    pub const fn from_raw(word: u64) -> Self {
        Self(word)
    }

    /// Returns the word as it stands in a stream.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Returns the pfn.
    #[must_use]
    pub const fn pfn(self) -> Pfn {
        Pfn(self.0 & Self::MAX_PFN.0)
    }

    /// Returns the type.
    ///
    /// # Errors
    ///
    /// [`UnknownPageType`] for the numbers 5 to 8. A word that [`crate::Reader`] handed out has none of them.
    pub fn page_type(self) -> Result<PageType, UnknownPageType> {
        PageType::try_from(self.type_number())
    }

    /// Says whether the page's contents follow in the record. A word of an unknown type counts as one with contents.
    #[must_use]
    pub const fn has_data(self) -> bool {
        self.type_number() < PageType::Broken.number()
    }

    const fn type_number(self) -> u8 {
        // Four bits are left after the shift: bytes [7] to [1] of the big-endian form are zero.
        let [.., number] = (self.0 >> TYPE_SHIFT).to_be_bytes();
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_comes_back_with_its_pfn() {
        for kind in PageType::ALL {
            let word = PageWord::new(PageWord::MAX_PFN, kind);
            assert_eq!((word.pfn(), word.page_type()), (PageWord::MAX_PFN, Ok(kind)));
            assert_eq!(word.has_data(), kind.has_data(), "{kind:?}");
        }
    }

    #[test]
    fn reserved_bits_are_no_part_of_anything() {
        let word = PageWord::from_raw(0xfff0_0000_0000_0007);
        assert_eq!((word.pfn(), word.page_type()), (Pfn(7), Ok(PageType::Xtab)));
    }

    #[test]
    fn four_numbers_are_no_types() {
        for number in 0..16 {
            let word = PageWord::from_raw(number << TYPE_SHIFT);
            assert_eq!(word.page_type().is_err(), (5..=8).contains(&number), "{number}");
        }
    }
}
