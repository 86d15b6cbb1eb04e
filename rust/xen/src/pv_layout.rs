// SPDX-License-Identifier: GPL-3.0-or-later
//! Compares what `xenmig_types::pv` says of structures with the headers, for guests of either width: a wrong number there
//! does not compile. The 32-bit structures are those of `public/foreign/x86_32.h`.

use std::{
    mem::{offset_of, size_of},
    ops::Range,
};

use xenctrl_sys as sys;
use xenmig_types::{
    PAGE_SIZE_U64,
    pv::{GuestWidth, shared_info, start_info, vcpu_context},
};

const BITS64: GuestWidth = GuestWidth::Bits64;
const BITS32: GuestWidth = GuestWidth::Bits32;

/// The bytes of a field, told by what reads it.
const fn bytes<S, T>(_read: fn(&S) -> T) -> usize {
    size_of::<T>()
}

/// Asserts where fields lie, a part of a structure at `base` in it, and how wide they are.
macro_rules! lie {
    ($width:ident, $part:ident at $base:expr; $($field:expr => $($name:ident).+ $([$index:literal])?,)*) => {$({
        let bytes = bytes(|part: &sys::$part| part.$($name).+ $([$index])?);
        assert!($field.offset($width) == $base + offset_of!(sys::$part, $($name).+) $(+ $index * bytes)?);
        assert!($field.at(1).offset($width) - $field.offset($width) == bytes);
    })*};
}

/// Asserts that a range is the field at `offset`, of `bytes` bytes.
const fn spans(range: &Range<usize>, offset: usize, bytes: usize) -> bool {
    range.start == offset && range.end == offset + bytes
}

const _: () = {
    lie!(BITS64, start_info at 0;
        start_info::NR_PAGES => nr_pages,
        start_info::SHARED_INFO => shared_info,
        start_info::FLAGS => flags,
        start_info::STORE_MFN => store_mfn,
        start_info::STORE_EVTCHN => store_evtchn,
    );
    lie!(BITS64, start_info__bindgen_ty_1__bindgen_ty_1 at offset_of!(sys::start_info, console.domU);
        start_info::CONSOLE_MFN => mfn,
        start_info::CONSOLE_EVTCHN => evtchn,
    );
    lie!(BITS32, start_info_x86_32 at 0;
        start_info::NR_PAGES => nr_pages,
        start_info::SHARED_INFO => shared_info,
        start_info::FLAGS => flags,
        start_info::STORE_MFN => store_mfn,
        start_info::STORE_EVTCHN => store_evtchn,
    );
    lie!(BITS32, start_info_x86_32__bindgen_ty_1__bindgen_ty_1 at
        offset_of!(sys::start_info_x86_32, console.domU);
        start_info::CONSOLE_MFN => mfn,
        start_info::CONSOLE_EVTCHN => evtchn,
    );
};

const _: () = {
    use shared_info::{VCPU_INFO, VCPU_INFO_BYTES, VCPUS, arch, mask, pending};

    assert!(VCPUS == sys::XEN_LEGACY_MAX_VCPUS as usize && VCPU_INFO_BYTES == size_of::<sys::vcpu_info>());
    assert!(VCPU_INFO_BYTES == size_of::<sys::vcpu_info_x86_32>());

    let vcpu_info = offset_of!(sys::shared_info, vcpu_info);
    assert!(spans(&VCPU_INFO, vcpu_info, bytes(|page: &sys::shared_info| page.vcpu_info)));
    lie!(BITS64, vcpu_info at vcpu_info; shared_info::PENDING_SELECTOR => evtchn_pending_sel,);
    lie!(BITS64, shared_info at 0;
        shared_info::MAX_PFN => arch.max_pfn,
        shared_info::FRAME_LIST_LIST => arch.pfn_to_mfn_frame_list_list,
        shared_info::P2M_CR3 => arch.p2m_cr3,
        shared_info::P2M_VADDR => arch.p2m_vaddr,
        shared_info::P2M_GENERATION => arch.p2m_generation,
    );
    let (wide, events) = (BITS64, bytes(|page: &sys::shared_info| page.evtchn_pending));
    assert!(spans(&pending(wide), offset_of!(sys::shared_info, evtchn_pending), events));
    assert!(spans(&mask(wide), offset_of!(sys::shared_info, evtchn_mask), events));
    let arch_bytes = size_of::<sys::arch_shared_info>();
    assert!(spans(&arch(wide), offset_of!(sys::shared_info, arch), arch_bytes));

    let vcpu_info = offset_of!(sys::shared_info_x86_32, vcpu_info);
    assert!(spans(&VCPU_INFO, vcpu_info, bytes(|page: &sys::shared_info_x86_32| page.vcpu_info)));
    lie!(BITS32, vcpu_info_x86_32 at vcpu_info; shared_info::PENDING_SELECTOR => evtchn_pending_sel,);
    lie!(BITS32, shared_info_x86_32 at 0;
        shared_info::MAX_PFN => arch.max_pfn,
        shared_info::FRAME_LIST_LIST => arch.pfn_to_mfn_frame_list_list,
        shared_info::P2M_CR3 => arch.p2m_cr3,
        shared_info::P2M_VADDR => arch.p2m_vaddr,
        shared_info::P2M_GENERATION => arch.p2m_generation,
    );
    let (narrow, events) = (BITS32, bytes(|page: &sys::shared_info_x86_32| page.evtchn_pending));
    assert!(spans(&pending(narrow), offset_of!(sys::shared_info_x86_32, evtchn_pending), events));
    assert!(spans(&mask(narrow), offset_of!(sys::shared_info_x86_32, evtchn_mask), events));
    let arch_bytes = size_of::<sys::arch_shared_info_x86_32>();
    assert!(spans(&arch(narrow), offset_of!(sys::shared_info_x86_32, arch), arch_bytes));
};

const _: () = {
    assert!(BITS64.context_bytes() == size_of::<sys::vcpu_guest_context>());
    lie!(BITS64, vcpu_guest_context at 0;
        vcpu_context::FLAGS => flags,
        vcpu_context::RAX => user_regs.__bindgen_anon_11,
        vcpu_context::RDX => user_regs.__bindgen_anon_13,
        vcpu_context::GDT_FRAMES => gdt_frames[0],
        vcpu_context::GDT_ENTRIES => gdt_ents,
        vcpu_context::CR1 => ctrlreg[1],
        vcpu_context::CR3 => ctrlreg[3],
    );
    assert!(offset_of!(sys::cpu_user_regs__bindgen_ty_11, rax) == 0);
    assert!(offset_of!(sys::cpu_user_regs__bindgen_ty_13, rdx) == 0);

    assert!(BITS32.context_bytes() == size_of::<sys::vcpu_guest_context_x86_32>());
    lie!(BITS32, vcpu_guest_context_x86_32 at 0;
        vcpu_context::FLAGS => flags,
        vcpu_context::RAX => user_regs.eax,
        vcpu_context::RDX => user_regs.edx,
        vcpu_context::GDT_FRAMES => gdt_frames[0],
        vcpu_context::GDT_ENTRIES => gdt_ents,
        vcpu_context::CR1 => ctrlreg[1],
        vcpu_context::CR3 => ctrlreg[3],
    );

    assert!(vcpu_context::ONLINE == sys::VGCF_online as u64);
    assert!(vcpu_context::MAX_GDT_ENTRIES == sys::FIRST_RESERVED_GDT_ENTRY as u64);
    assert!(vcpu_context::GDT_ENTRIES_PER_FRAME * 8 == PAGE_SIZE_U64);
};
