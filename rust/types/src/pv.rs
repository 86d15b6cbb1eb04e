// SPDX-License-Identifier: GPL-3.0-or-later
//! What a PV guest and Xen share, as bytes: where fields lie in the shared info page, in the start info page and in a vCPU's
//! context, for guests of either width, and how a page table entry and a cr3 name a frame.
//!
//! Sources: `public/xen.h`, `public/arch-x86/xen{,-x86_32,-x86_64}.h`, `public/foreign/x86_{32,64}.h`.

use crate::Gfn;

/// The width of a PV guest's words. It decides the layout of everything that guest and Xen share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestWidth {
    /// 32 bits, with PAE: three levels of page tables.
    Bits32,
    /// 64 bits: four levels of page tables.
    Bits64,
}

impl GuestWidth {
    /// Returns the width for a number of bytes; `None` unless it is 4 or 8.
    #[must_use]
    pub const fn from_bytes(bytes: u8) -> Option<Self> {
        match bytes {
            4 => Some(Self::Bits32),
            8 => Some(Self::Bits64),
            _ => None,
        }
    }

    /// Returns the width in bytes.
    #[must_use]
    pub const fn bytes(self) -> u8 {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
        }
    }

    /// Returns the levels of page tables.
    #[must_use]
    pub const fn levels(self) -> u8 {
        match self {
            Self::Bits32 => 3,
            Self::Bits64 => 4,
        }
    }

    /// Returns how many entries of the p2m, each a word, are on a page.
    #[must_use]
    pub const fn frames_per_page(self) -> u64 {
        match self {
            Self::Bits32 => 1024,
            Self::Bits64 => 512,
        }
    }

    /// Returns the length of a vCPU's context in bytes (`vcpu_guest_context`).
    #[must_use]
    pub const fn context_bytes(self) -> usize {
        match self {
            Self::Bits32 => 2800,
            Self::Bits64 => 5168,
        }
    }

    /// Returns what a p2m entry of this width says where there is no page: all ones.
    #[must_use]
    pub const fn invalid_frame(self) -> u64 {
        match self {
            Self::Bits32 => 0xffff_ffff,
            Self::Bits64 => u64::MAX,
        }
    }

    /// Returns the virtual addresses that Xen keeps for itself, first and last (`HYPERVISOR_VIRT_START` and `_END`).
    #[must_use]
    pub const fn xen_addresses(self) -> (u64, u64) {
        match self {
            Self::Bits32 => (0xf580_0000, 0xffff_ffff),
            Self::Bits64 => (0xffff_8000_0000_0000, 0xffff_87ff_ffff_ffff),
        }
    }

    /// Returns the frame that a cr3 names. A 32-bit cr3 has the upper bits of the frame in its lowest twelve; `None` for one
    /// that is wider than the guest's words.
    #[must_use]
    pub const fn frame_of_cr3(self, cr3: u64) -> Option<Gfn> {
        match self {
            Self::Bits32 if cr3 >> 32 != 0 => None,
            Self::Bits32 => Some(Gfn(cr3 >> 12 | (cr3 << 20 & 0xffff_ffff))),
            Self::Bits64 => Some(Gfn(cr3 >> 12)),
        }
    }

    /// Returns the cr3 that names a frame; `None` if the guest's words are too narrow for it.
    #[must_use]
    pub const fn cr3_of_frame(self, frame: u64) -> Option<u64> {
        match self {
            Self::Bits32 if frame >> 32 != 0 => None,
            Self::Bits32 => Some((frame << 12 & 0xffff_ffff) | frame >> 20),
            Self::Bits64 if frame >> 52 != 0 => None,
            Self::Bits64 => Some(frame << 12),
        }
    }
}

/// A page table entry. Entries are 64 bits wide in guests of either width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pte(pub u64);

impl Pte {
    /// Entries of a page table.
    pub const PER_TABLE: usize = 512;
    const PRESENT: u64 = 1;
    const SUPERPAGE: u64 = 1 << 7;
    /// Bits 12 to 51.
    const FRAME: u64 = 0x000f_ffff_ffff_f000;

    /// Says whether the entry refers to a frame.
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 & Self::PRESENT != 0
    }

    /// Says whether an entry above L1 maps a superpage.
    #[must_use]
    pub const fn is_superpage(self) -> bool {
        self.0 & Self::SUPERPAGE != 0
    }

    /// Returns the number of the frame: an mfn in the guest's memory, a pfn in the stream.
    #[must_use]
    pub const fn frame(self) -> u64 {
        (self.0 & Self::FRAME) >> 12
    }

    /// Returns the entry with another frame; `None` for a number that has no room in it.
    #[must_use]
    pub const fn with_frame(self, frame: u64) -> Option<Self> {
        if frame >> 40 != 0 {
            return None;
        }
        Some(Self(self.0 & !Self::FRAME | frame << 12))
    }
}

/// Where a field of a structure lies, and how wide it is, for guests of either width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    bits64: Place,
    bits32: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    offset: usize,
    bytes: usize,
}

impl Field {
    /// A field that is as wide as the guest's words.
    const fn word(offset64: usize, offset32: usize) -> Self {
        Self { bits64: Place { offset: offset64, bytes: 8 }, bits32: Place { offset: offset32, bytes: 4 } }
    }

    /// A field of 32 bits.
    const fn half(offset64: usize, offset32: usize) -> Self {
        Self { bits64: Place { offset: offset64, bytes: 4 }, bits32: Place { offset: offset32, bytes: 4 } }
    }

    /// Returns the field that lies `index` fields of its size further on: an element of an array.
    #[must_use]
    pub const fn at(self, index: usize) -> Self {
        const fn moved(place: Place, index: usize) -> Place {
            Place { offset: place.offset + index * place.bytes, bytes: place.bytes }
        }
        Self { bits64: moved(self.bits64, index), bits32: moved(self.bits32, index) }
    }

    const fn place(self, width: GuestWidth) -> Place {
        match width {
            GuestWidth::Bits32 => self.bits32,
            GuestWidth::Bits64 => self.bits64,
        }
    }

    /// Returns where the field lies, in bytes from the structure's start.
    #[must_use]
    pub const fn offset(self, width: GuestWidth) -> usize {
        self.place(width).offset
    }

    /// Reads the field; `None` if the structure ends before it.
    #[must_use]
    pub fn get(self, width: GuestWidth, structure: &[u8]) -> Option<u64> {
        let Place { offset, bytes } = self.place(width);
        let field = structure.get(offset..offset.checked_add(bytes)?)?;
        let mut word = [0; 8];
        word.get_mut(..bytes)?.copy_from_slice(field);
        Some(u64::from_le_bytes(word))
    }

    /// Writes the field. Returns `None`, and writes nothing, if the structure ends before it or the value is too wide.
    #[must_use]
    pub fn set(self, width: GuestWidth, structure: &mut [u8], value: u64) -> Option<()> {
        let Place { offset, bytes } = self.place(width);
        let word = value.to_le_bytes();
        let (low, high) = word.split_at_checked(bytes)?;
        if high.iter().any(|byte| *byte != 0) {
            return None;
        }
        structure.get_mut(offset..offset.checked_add(bytes)?)?.copy_from_slice(low);
        Some(())
    }
}

/// The shared info page (`shared_info`).
pub mod shared_info {
    use std::ops::Range;

    use super::{Field, GuestWidth};

    /// vCPUs that have their `vcpu_info` here (`XEN_LEGACY_MAX_VCPUS`).
    pub const VCPUS: usize = 32;
    /// Bytes of one `vcpu_info`.
    pub const VCPU_INFO_BYTES: usize = 64;
    /// The `vcpu_info` of all of them.
    pub const VCPU_INFO: Range<usize> = 0..VCPUS * VCPU_INFO_BYTES;
    /// `evtchn_pending_sel` of the first `vcpu_info`.
    pub const PENDING_SELECTOR: Field = Field::word(8, 4);
    /// `arch.max_pfn`: the number of p2m entries, one more than the highest pfn.
    pub const MAX_PFN: Field = Field::word(3088, 2316);
    /// `arch.pfn_to_mfn_frame_list_list`: the root of the p2m that is a tree of frames.
    pub const FRAME_LIST_LIST: Field = Field::word(3096, 2320);
    /// `arch.p2m_cr3`: the page tables that map the p2m that is one list; 0 if it is a tree.
    pub const P2M_CR3: Field = Field::word(3112, 2328);
    /// `arch.p2m_vaddr`: where those page tables map it.
    pub const P2M_VADDR: Field = Field::word(3120, 2332);
    /// `arch.p2m_generation`: changes whenever the pages change that the list lies on.
    pub const P2M_GENERATION: Field = Field::word(3128, 2336);

    /// Returns where `evtchn_pending` lies.
    #[must_use]
    pub const fn pending(width: GuestWidth) -> Range<usize> {
        match width {
            GuestWidth::Bits32 => 2048..2176,
            GuestWidth::Bits64 => 2048..2560,
        }
    }

    /// Returns where `evtchn_mask` lies.
    #[must_use]
    pub const fn mask(width: GuestWidth) -> Range<usize> {
        match width {
            GuestWidth::Bits32 => 2176..2304,
            GuestWidth::Bits64 => 2560..3072,
        }
    }

    /// Returns where `arch` lies.
    #[must_use]
    pub const fn arch(width: GuestWidth) -> Range<usize> {
        match width {
            GuestWidth::Bits32 => 2316..2344,
            GuestWidth::Bits64 => 3088..3136,
        }
    }
}

/// The start info page (`start_info`), which a guest that suspends itself hands over in `rdx` of vCPU 0.
pub mod start_info {
    use super::Field;

    /// `nr_pages`: pages of the guest's p2m.
    pub const NR_PAGES: Field = Field::word(32, 32);
    /// `shared_info`: the machine address of the shared info page.
    pub const SHARED_INFO: Field = Field::word(40, 36);
    /// `flags`: `SIF_*`.
    pub const FLAGS: Field = Field::half(48, 40);
    /// `store_mfn`: the page shared with xenstore. A pfn while the guest is suspended.
    pub const STORE_MFN: Field = Field::word(56, 44);
    /// `store_evtchn`: the port of the event channel to xenstore.
    pub const STORE_EVTCHN: Field = Field::half(64, 48);
    /// `console.domU.mfn`: the page shared with the console. A pfn while the guest is suspended.
    pub const CONSOLE_MFN: Field = Field::word(72, 52);
    /// `console.domU.evtchn`: the port of the event channel to the console.
    pub const CONSOLE_EVTCHN: Field = Field::half(80, 56);
}

/// A vCPU's context (`vcpu_guest_context`).
pub mod vcpu_context {
    use super::Field;

    /// `VGCF_online`, of the flags.
    pub const ONLINE: u64 = 1 << 5;
    /// Entries that a guest may have in its GDT (`FIRST_RESERVED_GDT_ENTRY`).
    pub const MAX_GDT_ENTRIES: u64 = 7168;
    /// Entries of a GDT that a frame holds.
    pub const GDT_ENTRIES_PER_FRAME: u64 = 512;
    /// `flags`: `VGCF_*`.
    pub const FLAGS: Field = Field::word(512, 512);
    /// `user_regs.rax`: what the suspending hypercall returns.
    pub const RAX: Field = Field::word(600, 540);
    /// `user_regs.rdx`: of vCPU 0 of a suspended guest, the frame of the start info page.
    pub const RDX: Field = Field::word(616, 524);
    /// `gdt_frames`, the first of sixteen.
    pub const GDT_FRAMES: Field = Field::word(4832, 2640);
    /// `gdt_ents`: the number of entries in the GDT.
    pub const GDT_ENTRIES: Field = Field::word(4960, 2704);
    /// `ctrlreg[1]`: in 64-bit guests the frame of the page tables for user mode, as an address.
    pub const CR1: Field = Field::word(4992, 2720);
    /// `ctrlreg[3]`: the frame of the page tables ([`GuestWidth::frame_of_cr3`](super::GuestWidth::frame_of_cr3)).
    pub const CR3: Field = Field::word(5008, 2728);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_frame_of_a_narrow_guest_goes_into_the_low_bits_of_cr3() {
        let width = GuestWidth::Bits32;
        for frame in [0, 1, 0xf_ffff, 0x12_3456, 0xffff_ffff] {
            assert_eq!(width.frame_of_cr3(width.cr3_of_frame(frame).unwrap()), Some(Gfn(frame)));
        }
        assert_eq!(width.cr3_of_frame(0x12_3456), Some(0x2345_6001));
        assert_eq!((width.cr3_of_frame(1 << 32), width.frame_of_cr3(1 << 32)), (None, None));
        assert_eq!(GuestWidth::Bits64.frame_of_cr3(0x1234_5000), Some(Gfn(0x12345)));
    }

    #[test]
    fn a_pte_keeps_its_flags() {
        let pte = Pte(0x8000_0000_1234_5067);
        assert!(pte.is_present() && !pte.is_superpage());
        assert_eq!(pte.frame(), 0x12345);
        assert_eq!(pte.with_frame(0xff_ffff_ffff), Some(Pte(0x800f_ffff_ffff_f067)));
        assert_eq!(pte.with_frame(1 << 40), None);
    }

    #[test]
    fn a_field_is_read_and_written_where_it_lies() {
        let mut page = [0_u8; 4096];
        for width in [GuestWidth::Bits32, GuestWidth::Bits64] {
            shared_info::MAX_PFN.set(width, &mut page, 0x1234).unwrap();
            assert_eq!(shared_info::MAX_PFN.get(width, &page), Some(0x1234));
            assert!(shared_info::arch(width).contains(&shared_info::MAX_PFN.offset(width)));
        }
        assert_eq!(vcpu_context::GDT_FRAMES.at(1).offset(GuestWidth::Bits64), 4840);
        assert_eq!(vcpu_context::GDT_FRAMES.at(16).offset(GuestWidth::Bits32), 2704);
        assert_eq!(start_info::FLAGS.set(GuestWidth::Bits64, &mut page, 1 << 32), None);
        assert_eq!(start_info::STORE_MFN.set(GuestWidth::Bits32, &mut page, 1 << 32), None);
        assert_eq!(start_info::STORE_MFN.get(GuestWidth::Bits64, &[0; 60]), None);
    }
}
