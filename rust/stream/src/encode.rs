// SPDX-License-Identifier: GPL-3.0-or-later
//! The encoder: pure functions that append to a buffer, which the engine then writes before the guest's pages.
//!
//! Nothing is appended when a function returns an error. Layouts: [`crate::format`].

use xenmig_types::{
    CpuPolicy, GuestKind, PAGE_SHIFT, PAGE_SIZE, PAGE_SIZE_U64, Pfn, TscInfo, VcpuPart, XenVersion,
};

use crate::{
    HvmParam, PageWord,
    format::{self, MAX_BODY_BYTES},
    kind::{BodyRule, RecordKind},
};

/// Why a record cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// {kind} record: a body of {length} bytes is longer than 128 MiB
    #[error("{kind} record: a body of {length} bytes is longer than {MAX_BODY_BYTES}")]
    TooLong {
        /// The kind.
        kind: RecordKind,
        /// Length of the body in bytes.
        length: u64,
    },
    /// {kind} record: a body of {length} bytes, expected {expected}
    #[error("{kind} record: a body of {length} bytes, expected {expected}")]
    Length {
        /// The kind.
        kind: RecordKind,
        /// Length of the body in bytes.
        length: u32,
        /// What the kind allows.
        expected: BodyRule,
    },
}

/// Appends the image header and the domain header: version 3, little-endian.
pub fn headers(out: &mut Vec<u8>, kind: GuestKind, version: XenVersion) {
    out.extend(format::MARKER.to_be_bytes());
    out.extend(format::IDENTIFIER.to_be_bytes());
    out.extend(format::VERSION.to_be_bytes());
    out.extend([0; 8]);
    let domain_type = match kind {
        GuestKind::Pv => format::DOMAIN_TYPE_PV,
        GuestKind::Hvm => format::DOMAIN_TYPE_HVM,
    };
    out.extend(domain_type.to_le_bytes());
    // A 16-bit page shift and 16 reserved bits.
    out.extend(PAGE_SHIFT.to_le_bytes());
    out.extend(u32::from(version.major).to_le_bytes());
    out.extend(u32::from(version.minor).to_le_bytes());
}

/// Appends a record whose body is the pieces of `body`, one after the other, and its padding.
///
/// # Errors
///
/// [`EncodeError`] if the body is longer than 128 MiB or of a length that the kind does not allow: receivers refuse
/// records without the contents that their kind should have.
pub fn record(out: &mut Vec<u8>, kind: RecordKind, body: &[&[u8]]) -> Result<(), EncodeError> {
    let length = check(kind, body.iter().map(|piece| piece.len() as u64).sum())?;
    record_header(out, kind, length);
    for piece in body {
        out.extend_from_slice(piece);
    }
    out.extend((0..format::padding(length)).map(|_| 0));
    Ok(())
}

/// Appends everything of a PAGE_DATA record in front of its pages: header, count and words. The contents of the
/// pages whose word [has data](PageWord::has_data) must follow, in the order of the words; no padding is needed.
///
/// # Errors
///
/// [`EncodeError`] if there are no words, or so many that the body with its pages were longer than 128 MiB.
pub fn page_data(out: &mut Vec<u8>, words: &[PageWord]) -> Result<(), EncodeError> {
    let kind = RecordKind::PageData;
    let pages = words.iter().filter(|word| word.has_data()).count() as u64;
    let words_bytes = format::PAGE_DATA_HEADER_BYTES as u64 + 8 * words.len() as u64;
    let length = check(kind, words_bytes + pages * PAGE_SIZE_U64)?;
    let count = count(kind, words.len())?;
    record_header(out, kind, length);
    out.extend(count.to_le_bytes());
    out.extend([0; 4]);
    let start = out.len();
    out.resize(start + 8 * words.len(), 0);
    // Whole words into room that is there already: this runs once for each batch of a save.
    if let Some(room) = out.get_mut(start..) {
        for (bytes, word) in room.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.raw().to_le_bytes();
        }
    }
    Ok(())
}

/// Appends an END record, the last one of a stream.
pub fn end(out: &mut Vec<u8>) {
    record_header(out, RecordKind::End, 0);
}

/// Appends a STATIC_DATA_END record.
pub fn static_data_end(out: &mut Vec<u8>) {
    record_header(out, RecordKind::StaticDataEnd, 0);
}

/// Appends a VERIFY record.
pub fn verify(out: &mut Vec<u8>) {
    record_header(out, RecordKind::Verify, 0);
}

/// Appends a CHECKPOINT record.
pub fn checkpoint(out: &mut Vec<u8>) {
    record_header(out, RecordKind::Checkpoint, 0);
}

/// Appends the CPU policy: an X86_CPUID_POLICY and an X86_MSR_POLICY record, each left out if it has no entries.
///
/// # Errors
///
/// [`EncodeError`] if a part does not consist of whole entries, or is longer than 128 MiB.
pub fn cpu_policy(out: &mut Vec<u8>, policy: &CpuPolicy) -> Result<(), EncodeError> {
    let start = out.len();
    for (kind, entries) in [(RecordKind::CpuidPolicy, &policy.cpuid), (RecordKind::MsrPolicy, &policy.msrs)] {
        if !entries.is_empty()
            && let Err(error) = record(out, kind, &[entries])
        {
            out.truncate(start);
            return Err(error);
        }
    }
    Ok(())
}

/// Appends an X86_TSC_INFO record.
pub fn tsc_info(out: &mut Vec<u8>, tsc: &TscInfo) {
    record_header(out, RecordKind::TscInfo, 24);
    out.extend(tsc.mode.to_le_bytes());
    out.extend(tsc.khz.to_le_bytes());
    out.extend(tsc.elapsed_ns.to_le_bytes());
    out.extend(tsc.incarnation.to_le_bytes());
    out.extend([0; 4]);
}

/// Appends an HVM_CONTEXT record.
///
/// # Errors
///
/// [`EncodeError`] if the context is empty or longer than 128 MiB.
pub fn hvm_context(out: &mut Vec<u8>, context: &[u8]) -> Result<(), EncodeError> {
    record(out, RecordKind::HvmContext, &[context])
}

/// Appends an HVM_PARAMS record.
///
/// # Errors
///
/// [`EncodeError`] if there are no parameters, or more than 128 MiB of them.
pub fn hvm_params(out: &mut Vec<u8>, params: &[HvmParam]) -> Result<(), EncodeError> {
    let kind = RecordKind::HvmParams;
    let count = count(kind, params.len())?;
    let mut items = Vec::with_capacity(16 * params.len());
    for param in params {
        items.extend(u64::from(param.index).to_le_bytes());
        items.extend(param.value.to_le_bytes());
    }
    record(out, kind, &[&count.to_le_bytes(), &[0; 4], &items])
}

/// Appends an X86_PV_INFO record: the width of the guest's words in bytes, 4 or 8, and the levels of its page
/// tables, 3 or 4.
pub fn pv_info(out: &mut Vec<u8>, width_bytes: u8, levels: u8) {
    record_header(out, RecordKind::PvInfo, 8);
    out.extend([width_bytes, levels, 0, 0, 0, 0, 0, 0]);
}

/// Appends an X86_PV_P2M_FRAMES record: `frames` hold the part of the guest's p2m from pfn `first` to pfn `last`.
///
/// # Errors
///
/// [`EncodeError`] if there are no frames, or more than 128 MiB of them.
pub fn pv_p2m_frames(out: &mut Vec<u8>, first: u32, last: u32, frames: &[Pfn]) -> Result<(), EncodeError> {
    let mut items = Vec::with_capacity(8 * frames.len());
    for frame in frames {
        items.extend(frame.0.to_le_bytes());
    }
    record(out, RecordKind::PvP2mFrames, &[&first.to_le_bytes(), &last.to_le_bytes(), &items])
}

/// Appends one of the four X86_PV_VCPU_* records.
///
/// # Errors
///
/// [`EncodeError`] if the state is empty or longer than 128 MiB.
pub fn pv_vcpu(out: &mut Vec<u8>, part: VcpuPart, vcpu: u32, state: &[u8]) -> Result<(), EncodeError> {
    record(out, RecordKind::of_vcpu(part), &[&vcpu.to_le_bytes(), &[0; 4], state])
}

/// Appends a SHARED_INFO record.
pub fn shared_info(out: &mut Vec<u8>, page: &[u8; PAGE_SIZE]) {
    record_header(out, RecordKind::SharedInfo, 1 << PAGE_SHIFT);
    out.extend(page);
}

fn record_header(out: &mut Vec<u8>, kind: RecordKind, length: u32) {
    out.extend(kind.number().to_le_bytes());
    out.extend(length.to_le_bytes());
}

/// Returns a body's length as its header has it, if the kind allows it.
fn check(kind: RecordKind, length: u64) -> Result<u32, EncodeError> {
    let too_long = EncodeError::TooLong { kind, length };
    let length = u32::try_from(length).ok().filter(|length| *length <= MAX_BODY_BYTES).ok_or(too_long)?;
    let expected = kind.body_rule();
    if expected.allows(length) { Ok(length) } else { Err(EncodeError::Length { kind, length, expected }) }
}

/// Returns a number of items as a body has it.
fn count(kind: RecordKind, items: usize) -> Result<u32, EncodeError> {
    u32::try_from(items).map_err(|_| EncodeError::TooLong { kind, length: items as u64 })
}
