// SPDX-License-Identifier: GPL-3.0-or-later
//! Frames and page types.

use std::fmt;

/// log2 of the guest page size: x86 guests have 4 KiB pages.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a guest page.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
/// Bytes in a guest page, for sums of bytes.
pub const PAGE_SIZE_U64: u64 = 1 << PAGE_SHIFT;

/// A frame number as the guest counts its memory: the index into its p2m, and what the stream carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(pub u64);

/// A frame number as the hypervisor addresses a guest: equal to the pfn for HVM and PVH, an mfn for PV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gfn(pub u64);

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Gfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The type of a guest page: `XEN_DOMCTL_PFINFO_*` of `public/domctl.h`, as the number in bits 28-31 there and
/// in bits 60-63 of a pfn word in the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PageType {
    /// An ordinary page.
    #[default]
    Notab = 0x0,
    /// An L1 page table (PV).
    L1 = 0x1,
    /// An L2 page table (PV).
    L2 = 0x2,
    /// An L3 page table (PV).
    L3 = 0x3,
    /// An L4 page table (PV).
    L4 = 0x4,
    /// A pinned L1 page table (PV).
    L1Pinned = 0x9,
    /// A pinned L2 page table (PV).
    L2Pinned = 0xa,
    /// A pinned L3 page table (PV).
    L3Pinned = 0xb,
    /// A pinned L4 page table (PV).
    L4Pinned = 0xc,
    /// A page that hardware reported as broken: no contents.
    Broken = 0xd,
    /// To be allocated by the receiver, without contents.
    Xalloc = 0xe,
    /// No page: a hole in the p2m.
    Xtab = 0xf,
}

impl PageType {
    /// Every type, in the order of its number.
    pub const ALL: [Self; 12] = [
        Self::Notab,
        Self::L1,
        Self::L2,
        Self::L3,
        Self::L4,
        Self::L1Pinned,
        Self::L2Pinned,
        Self::L3Pinned,
        Self::L4Pinned,
        Self::Broken,
        Self::Xalloc,
        Self::Xtab,
    ];

    /// Returns the type's number, 0 to 15.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Says whether a page of this type has contents, in the domain and in the stream.
    #[must_use]
    pub const fn has_data(self) -> bool {
        !matches!(self, Self::Broken | Self::Xalloc | Self::Xtab)
    }

    /// Says whether the receiver must have a page of its own for this type.
    #[must_use]
    pub const fn is_populated(self) -> bool {
        !matches!(self, Self::Broken | Self::Xtab)
    }

    /// Says whether the page is a page table of a PV guest, pinned or not.
    #[must_use]
    pub const fn is_page_table(self) -> bool {
        self.table_level().is_some()
    }

    /// Returns the level of a page table, 1 to 4, pinned or not; `None` for other types.
    #[must_use]
    pub const fn table_level(self) -> Option<u8> {
        match self {
            Self::L1 | Self::L1Pinned => Some(1),
            Self::L2 | Self::L2Pinned => Some(2),
            Self::L3 | Self::L3Pinned => Some(3),
            Self::L4 | Self::L4Pinned => Some(4),
            Self::Notab | Self::Broken | Self::Xalloc | Self::Xtab => None,
        }
    }

    /// Says whether the page is a pinned page table.
    #[must_use]
    pub const fn is_pinned(self) -> bool {
        matches!(self, Self::L1Pinned | Self::L2Pinned | Self::L3Pinned | Self::L4Pinned)
    }
}

/// A page type number that no Xen defines: 5 to 8, or more than 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPageType(pub u8);

impl fmt::Display for UnknownPageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown page type {:#x}", self.0)
    }
}

impl std::error::Error for UnknownPageType {}

impl TryFrom<u8> for PageType {
    type Error = UnknownPageType;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Ok(match number {
            0x0 => Self::Notab,
            0x1 => Self::L1,
            0x2 => Self::L2,
            0x3 => Self::L3,
            0x4 => Self::L4,
            0x9 => Self::L1Pinned,
            0xa => Self::L2Pinned,
            0xb => Self::L3Pinned,
            0xc => Self::L4Pinned,
            0xd => Self::Broken,
            0xe => Self::Xalloc,
            0xf => Self::Xtab,
            other => return Err(UnknownPageType(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_there_and_back() {
        for number in 0..=u8::MAX {
            match PageType::try_from(number) {
                Ok(kind) => assert_eq!(kind.number(), number),
                Err(UnknownPageType(n)) => assert!((5..=8).contains(&n) || n > 15),
            }
        }
    }

    #[test]
    fn only_three_types_have_no_contents() {
        let empty: Vec<_> = PageType::ALL.into_iter().filter(|t| !t.has_data()).collect();
        assert_eq!(empty, [PageType::Broken, PageType::Xalloc, PageType::Xtab]);
        assert!(PageType::Xalloc.is_populated() && !PageType::Xtab.is_populated());
        assert_eq!(PageType::ALL.into_iter().filter(|t| t.is_page_table()).count(), 8);
    }

    #[test]
    fn a_pinned_table_is_of_the_level_of_its_plain_type() {
        for kind in PageType::ALL.into_iter().filter(|kind| kind.is_page_table()) {
            assert_eq!(kind.table_level(), Some(kind.number() & 7));
            assert_eq!(kind.is_pinned(), kind.number() & 8 != 0);
        }
        assert!(PageType::ALL.into_iter().all(|kind| kind.is_page_table() || !kind.is_pinned()));
    }
}
