// SPDX-License-Identifier: GPL-3.0-or-later
//! What the kernel of a PV guest knows of itself, how it finds that again in its memory after a migration, and what it
//! does before and after a suspension, as Linux does it.
//!
//! It starts at vCPU 0: its page tables, and the start info page, after whose structure it keeps a few notes. Everything
//! else is found through these page tables.

use std::{collections::BTreeSet, fmt};

use fastrand::Rng;
use xenmig_types::{Pfn, pv::GuestWidth};

use super::{P2mForm, PteAt};

/// Where the notes are in the start info page, in words.
pub(super) mod note {
    pub(crate) const MAGIC: u64 = 256;
    pub(crate) const IS_TREE: u64 = 257;
    pub(crate) const FIRST_SLOT: u64 = 258;
    pub(crate) const MISSING: u64 = 259;
    pub(crate) const TOP: u64 = 260;
    pub(crate) const MID_MISSING: u64 = 261;
    pub(crate) const USER_TABLE: u64 = 262;
    pub(crate) const MIDS: u64 = 263;
    pub(crate) const FIRST_MID: u64 = 264;
    /// The most pages of the second level that there is room for.
    pub(crate) const MAX_MIDS: u64 = 512 - FIRST_MID;
    /// What stands at `MAGIC`.
    pub(crate) const IS_NOTES: u64 = 0x786d_6967_2d6b_6e6c;
}

/// Where the kernel maps all its memory.
pub(super) const fn direct_map(width: GuestWidth) -> u64 {
    match width {
        GuestWidth::Bits64 => 0xffff_8880_0000_0000,
        GuestWidth::Bits32 => 0x4000_0000,
    }
}

/// Pages for which the direct map has room: a 32-bit guest does not reach all of a large memory.
pub(super) const fn direct_pages(width: GuestWidth) -> u64 {
    match width {
        GuestWidth::Bits64 => 1 << 36,
        GuestWidth::Bits32 => (0xf000_0000 - direct_map(width)) >> 12,
    }
}

/// Where it maps the shared info page.
pub(super) const fn shared_info_address(width: GuestWidth) -> u64 {
    match width {
        GuestWidth::Bits64 => 0xffff_ffff_ff5f_b000,
        GuestWidth::Bits32 => 0xf57f_f000,
    }
}

/// What the guest knows of its p2m.
#[derive(Clone, Debug)]
pub(super) struct P2m {
    pub(super) form: P2mForm,
    /// Where its page tables map it as a list.
    pub(super) address: u64,
    /// The leaves, in order.
    pub(super) leaves: Vec<Pfn>,
    /// The leaf without a page.
    pub(super) missing: Pfn,
    /// The root of the tree, and the page of the second level that leads to the missing leaf only.
    pub(super) top: Pfn,
    pub(super) mid_missing: Pfn,
    /// The pages of the second level, in order.
    pub(super) mids: Vec<Pfn>,
}

impl P2m {
    /// Returns where a guest keeps room for its list, so that it begins at slot `first_slot` of that.
    pub(super) const fn address(width: GuestWidth, first_slot: u16) -> u64 {
        let base = match width {
            GuestWidth::Bits64 => 0xffff_c900_0000_0000,
            GuestWidth::Bits32 => 0xf000_0000,
        };
        base + ((first_slot as u64) << 21)
    }
}

/// What the kernel knows of itself.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) root: Pfn,
    /// The L2 table of the user's addresses; its free slots take new L1 tables.
    pub(super) user_table: Pfn,
    pub(super) start_info: Pfn,
    pub(super) store: Pfn,
    pub(super) console: Pfn,
    pub(super) p2m: P2m,
    pub(super) gdts: Vec<Pfn>,
    /// Entries that lead to frames of others for a moment.
    pub(super) torn: Vec<Torn>,
    /// Pages that the balloon has given back, the last one last.
    pub(super) out: Vec<Pfn>,
    /// Chooses what it does in the background.
    pub(super) rng: Rng,
}

/// An entry in the middle of an update.
#[derive(Clone, Copy, Debug)]
pub(super) struct Torn {
    pub(super) at: PteAt,
    /// What it was.
    pub(super) value: u64,
    /// Whether this happened in the background: then it is mended when the guest suspends itself.
    pub(super) by_churn: bool,
}

/// Why a guest does not find its way in its own memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost(pub(super) &'static str);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Kernel {
    /// Returns the pages that the kernel uses itself and that are no page tables.
    pub(super) fn own_pages(&self) -> BTreeSet<Pfn> {
        let p2m = &self.p2m;
        let single = [self.start_info, self.store, self.console, p2m.missing, p2m.top, p2m.mid_missing];
        let several = [&p2m.leaves, &p2m.mids, &self.gdts];
        single.into_iter().chain(several.into_iter().flatten().copied()).collect()
    }

    /// Chooses one of these pages; `None` if there are none.
    pub(super) fn choose(&mut self, pages: &[Pfn]) -> Option<Pfn> {
        let at = self.rng.usize(..pages.len().max(1));
        pages.get(at).copied()
    }
}
