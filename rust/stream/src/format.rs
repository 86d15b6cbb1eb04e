// SPDX-License-Identifier: GPL-3.0-or-later
//! The layout of the stream: numbers that both the encoder and the reader obey.
//!
//! Each row of a diagram is eight bytes; the bytes of a field that are not named are zero when written and ignored
//! when read (spec, "Fields"). The image header is big-endian, everything after it little-endian.
//!
//! ```text
//! image header    ff ff ff ff ff ff ff ff                     marker: a legacy image has a zero bit here
//!                 58 45 4e 46 | version: u32                  "XENF"; 3 when written, 2 or 3 when read
//!                 options: u16 | -                            bit 0: big-endian, refused
//! domain header   type: u32 | page_shift: u16 | -             1 PV, 2 HVM and PVH; 12
//!                 xen_major: u32 | xen_minor: u32             of the sender
//! record          type: u32 | length: u32                     of the body, at most 128 MiB
//!                 body                                        then zeroes up to a multiple of eight bytes
//!
//! PAGE_DATA       count: u32 | -                              at least 1
//!                 count x u64                                 bits 63-60 page type, 51-0 pfn
//!                 4096 bytes for each word with data          not XTAB, XALLOC, BROKEN
//! X86_PV_INFO     guest_width: u8 | pt_levels: u8 | -         4 or 8 bytes; 3 or 4 levels
//! X86_PV_P2M_FRAMES   first pfn: u32 | last pfn: u32          inclusive
//!                 n x u64                                     pfns of the frames that hold this part of the p2m
//! X86_PV_VCPU_*   vcpu: u32 | -
//!                 blob                                        what the accessor hypercall takes
//! SHARED_INFO     4096 bytes
//! X86_TSC_INFO    mode: u32 | khz: u32
//!                 elapsed_ns: u64
//!                 incarnation: u32 | -
//! HVM_PARAMS      count: u32 | -
//!                 count x (index: u64, value: u64)
//! HVM_CONTEXT, TOOLSTACK                                      blob
//! X86_CPUID_POLICY, X86_MSR_POLICY                            entries of 24 and of 16 bytes
//! CHECKPOINT_DIRTY_PFN_LIST                                   n x u64
//! END, VERIFY, CHECKPOINT, STATIC_DATA_END                    no body
//! ```

/// Marker of the image header: eight bytes of ones.
pub const MARKER: u64 = u64::MAX;
/// Identifier of the image header: "XENF".
pub const IDENTIFIER: u32 = u32::from_be_bytes(*b"XENF");
/// The version that is written.
pub const VERSION: u32 = 3;
/// The oldest version that is read.
pub const OLDEST_VERSION: u32 = 2;
/// Bit of the image header's options: the rest of the stream is big-endian.
pub const OPTION_BIG_ENDIAN: u16 = 1;
/// Length of the image header in bytes.
pub const IMAGE_HEADER_BYTES: usize = 24;
/// Length of the domain header in bytes.
pub const DOMAIN_HEADER_BYTES: usize = 16;
/// `type` of the domain header for a PV guest.
pub const DOMAIN_TYPE_PV: u32 = 1;
/// `type` of the domain header for an HVM or PVH guest.
pub const DOMAIN_TYPE_HVM: u32 = 2;
/// Length of a record's header in bytes.
pub const RECORD_HEADER_BYTES: usize = 8;
/// Records begin and end at multiples of this many bytes.
pub const RECORD_ALIGNMENT: u32 = 8;
/// The longest body in bytes that libxc reads or writes.
pub const MAX_BODY_BYTES: u32 = 128 << 20;
/// Bit of a record's type: a receiver that does not know the record may skip it.
pub const RECORD_OPTIONAL: u32 = 1 << 31;
/// Length in bytes of the part of a PAGE_DATA body before its pfn words.
pub const PAGE_DATA_HEADER_BYTES: usize = 8;

/// Returns how many bytes of padding follow a body of `length` bytes.
#[must_use]
pub const fn padding(length: u32) -> u32 {
    length.wrapping_neg() % RECORD_ALIGNMENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_reaches_the_next_multiple_of_eight() {
        assert_eq!([0, 1, 7, 8, 9, MAX_BODY_BYTES].map(padding), [0, 7, 1, 0, 7, 0]);
    }
}
