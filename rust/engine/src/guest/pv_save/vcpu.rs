// SPDX-License-Identifier: GPL-3.0-or-later
//! The context of a PV vCPU: where it names frames, the stream has pfns. These are the page tables in cr3 and, for user
//! mode of 64-bit guests, in cr1, the GDT, and in `rdx` of vCPU 0 the start info page that the suspending guest hands
//! over.

use xenmig_types::{
    Gfn, Pfn,
    pv::{
        GuestWidth,
        vcpu_context::{CR1, CR3, GDT_ENTRIES, GDT_ENTRIES_PER_FRAME, GDT_FRAMES, MAX_GDT_ENTRIES, RDX},
    },
};

/// What of a context cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The register or field.
    pub(super) what: &'static str,
    /// Its value.
    pub(super) value: u64,
}

/// Puts pfns for mfns into a context and cuts it to the length that it has in a guest of this width.
pub(super) fn normalise(
    width: GuestWidth,
    vcpu: u32,
    context: &mut Vec<u8>,
    pfn: impl Fn(Gfn) -> Option<Pfn>,
) -> Result<(), Fault> {
    let short = Fault { what: "a context shorter than a context is", value: context.len() as u64 };
    context.truncate(width.context_bytes());
    if context.len() != width.context_bytes() {
        return Err(short);
    }
    if vcpu == 0 {
        let mfn = RDX.get(width, context).ok_or(short)?;
        let start_info = Fault { what: "rdx, which should lead to the start info page", value: mfn };
        let pfn = pfn(Gfn(mfn)).ok_or(start_info)?;
        RDX.set(width, context, pfn.0).ok_or(start_info)?;
    }
    let entries = GDT_ENTRIES.get(width, context).ok_or(short)?;
    if entries > MAX_GDT_ENTRIES {
        return Err(Fault { what: "the number of GDT entries", value: entries });
    }
    for index in 0..MAX_GDT_ENTRIES.min(entries).div_ceil(GDT_ENTRIES_PER_FRAME) {
        let field = GDT_FRAMES.at(usize::try_from(index).unwrap_or(usize::MAX));
        let mfn = field.get(width, context).ok_or(short)?;
        let frame = Fault { what: "a frame of the GDT", value: mfn };
        field.set(width, context, pfn(Gfn(mfn)).ok_or(frame)?.0).ok_or(frame)?;
    }
    let cr3 = CR3.get(width, context).ok_or(short)?;
    let fault = Fault { what: "cr3", value: cr3 };
    let tables = width.frame_of_cr3(cr3).and_then(&pfn).ok_or(fault)?;
    CR3.set(width, context, width.cr3_of_frame(tables.0).ok_or(fault)?).ok_or(fault)?;
    if width == GuestWidth::Bits64 {
        let cr1 = CR1.get(width, context).ok_or(short)?;
        let fault = Fault { what: "cr1", value: cr1 };
        // 0: there are no page tables for user mode. In the stream bit 0 says that there are.
        if cr1 != 0 {
            let tables = pfn(Gfn(cr1 >> 12)).ok_or(fault)?;
            CR1.set(width, context, tables.0 << 12 | 1).ok_or(fault)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest whose pfn is its mfn less 0x1000, up to 0x2000.
    fn pfn(mfn: Gfn) -> Option<Pfn> {
        (0x1000..0x2000).contains(&mfn.0).then(|| Pfn(mfn.0 - 0x1000))
    }

    fn context(width: GuestWidth) -> Vec<u8> {
        let mut context = vec![0xaa; GuestWidth::Bits64.context_bytes()];
        RDX.set(width, &mut context, 0x1005).unwrap();
        GDT_ENTRIES.set(width, &mut context, 513).unwrap();
        GDT_FRAMES.set(width, &mut context, 0x1006).unwrap();
        GDT_FRAMES.at(1).set(width, &mut context, 0x1007).unwrap();
        CR3.set(width, &mut context, width.cr3_of_frame(0x1008).unwrap()).unwrap();
        if width == GuestWidth::Bits64 {
            CR1.set(width, &mut context, 0x1009 << 12).unwrap();
        }
        context
    }

    #[test]
    fn every_frame_becomes_a_pfn_and_nothing_else_changes() {
        for width in [GuestWidth::Bits32, GuestWidth::Bits64] {
            let before = context(width);
            let mut after = before.clone();
            normalise(width, 0, &mut after, pfn).unwrap();
            assert_eq!(after.len(), width.context_bytes());
            let mut expected = before[..after.len()].to_vec();
            RDX.set(width, &mut expected, 5).unwrap();
            GDT_FRAMES.set(width, &mut expected, 6).unwrap();
            GDT_FRAMES.at(1).set(width, &mut expected, 7).unwrap();
            CR3.set(width, &mut expected, width.cr3_of_frame(8).unwrap()).unwrap();
            if width == GuestWidth::Bits64 {
                CR1.set(width, &mut expected, 9 << 12 | 1).unwrap();
            }
            assert_eq!(after, expected);
        }
    }

    #[test]
    fn rdx_leads_to_the_start_info_page_on_vcpu_0_only() {
        let width = GuestWidth::Bits64;
        let mut state = context(width);
        RDX.set(width, &mut state, 0x77).unwrap();
        normalise(width, 1, &mut state.clone(), pfn).unwrap();
        let fault = normalise(width, 0, &mut state, pfn).unwrap_err();
        assert_eq!(fault.value, 0x77);
    }

    #[test]
    fn no_tables_for_user_mode_stay_none() {
        let width = GuestWidth::Bits64;
        let mut state = context(width);
        CR1.set(width, &mut state, 0).unwrap();
        normalise(width, 0, &mut state, pfn).unwrap();
        assert_eq!(CR1.get(width, &state), Some(0));
    }

    #[test]
    fn what_is_not_the_guests_is_refused() {
        let width = GuestWidth::Bits64;
        for field in [CR3, CR1, GDT_FRAMES.at(1), RDX] {
            let mut state = context(width);
            field.set(width, &mut state, 0x2000 << 12).unwrap();
            let fault = normalise(width, 0, &mut state, pfn).unwrap_err();
            assert_eq!(fault.value, 0x2000 << 12);
        }
        let mut state = context(width);
        GDT_ENTRIES.set(width, &mut state, MAX_GDT_ENTRIES + 1).unwrap();
        assert_eq!(normalise(width, 0, &mut state, pfn).unwrap_err().value, MAX_GDT_ENTRIES + 1);
        let mut state = context(width);
        state.truncate(5167);
        assert_eq!(normalise(width, 0, &mut state, pfn).unwrap_err().value, 5167);
    }
}
