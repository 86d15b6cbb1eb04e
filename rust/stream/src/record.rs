// SPDX-License-Identifier: GPL-3.0-or-later
//! What the reader hands out: headers and records whose lengths and counts were checked. Blobs that only the
//! hypervisor understands are passed on as they came.

use xenmig_types::{GuestKind, Pfn, TscInfo, VcpuPart};

use crate::{PageWord, kind::RecordKind};

/// What the image header and the domain header say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The version of the format: 2 or 3.
    pub version: u32,
    /// The kind of guest.
    pub kind: GuestKind,
    /// Major version of the Xen that the guest was saved on; 0 if a legacy image was converted.
    pub xen_major: u32,
    /// Minor version of the Xen that the guest was saved on, or the version of the converter.
    pub xen_minor: u32,
}

/// One parameter of an HVM_PARAMS record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HvmParam {
    /// `HVM_PARAM_*` of `public/hvm/params.h`.
    pub index: u32,
    /// Its value.
    pub value: u64,
}

/// A PAGE_DATA record without its pages; [`crate::Reader`] has those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageData {
    /// The words, at least one, each of a known type. The same pfn may stand there twice.
    pub words: Vec<PageWord>,
    /// The number of pages that follow: one for each word with data.
    pub pages: u64,
}

/// A record of the stream. END is none: it ends the sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// PAGE_DATA; its pages are to be taken from the reader before the next record.
    PageData(PageData),
    /// X86_PV_INFO.
    PvInfo {
        /// Width of the guest's words in bytes: 4 or 8.
        width_bytes: u8,
        /// Levels of its page tables: 3 or 4.
        levels: u8,
    },
    /// X86_PV_P2M_FRAMES. How many frames there must be depends on the guest's width, so that is not checked here.
    PvP2mFrames {
        /// First pfn of this part of the p2m.
        first: u32,
        /// Last pfn of it, not below the first.
        last: u32,
        /// The pfns of the frames that hold it, at least one.
        frames: Vec<Pfn>,
    },
    /// One of the four X86_PV_VCPU_* records.
    PvVcpu {
        /// Which of them.
        part: VcpuPart,
        /// The vCPU's number.
        vcpu: u32,
        /// What the accessor hypercall takes, at least one byte.
        state: Vec<u8>,
    },
    /// SHARED_INFO: one page.
    SharedInfo(Vec<u8>),
    /// X86_TSC_INFO.
    TscInfo(TscInfo),
    /// HVM_CONTEXT, at least one byte.
    HvmContext(Vec<u8>),
    /// HVM_PARAMS, at least one.
    HvmParams(Vec<HvmParam>),
    /// TOOLSTACK, which is deprecated.
    Toolstack(Vec<u8>),
    /// VERIFY: from here on pages are to be compared.
    Verify,
    /// CHECKPOINT.
    Checkpoint,
    /// CHECKPOINT_DIRTY_PFN_LIST.
    CheckpointDirtyPfnList(Vec<Pfn>),
    /// STATIC_DATA_END; of a version 2 stream, which has none, the place where it belongs.
    StaticDataEnd,
    /// X86_CPUID_POLICY: whole entries, at least one.
    CpuidPolicy(Vec<u8>),
    /// X86_MSR_POLICY: whole entries, at least one.
    MsrPolicy(Vec<u8>),
    /// A record that should have contents and has none, as Xen 4.6 to 4.8 wrote them (spec, "Errata", 1).
    /// It is to be ignored.
    Void(RecordKind),
    /// An optional record of a kind that is not known. Its body was skipped.
    Optional {
        /// Its type, bit 31 included.
        number: u32,
        /// Length of its body in bytes.
        length: u32,
    },
}

impl Record {
    /// Returns the record's kind; `None` for an optional record.
    #[must_use]
    pub const fn kind(&self) -> Option<RecordKind> {
        Some(match self {
            Self::PageData(_) => RecordKind::PageData,
            Self::PvInfo { .. } => RecordKind::PvInfo,
            Self::PvP2mFrames { .. } => RecordKind::PvP2mFrames,
            Self::PvVcpu { part, .. } => RecordKind::of_vcpu(*part),
            Self::SharedInfo(_) => RecordKind::SharedInfo,
            Self::TscInfo(_) => RecordKind::TscInfo,
            Self::HvmContext(_) => RecordKind::HvmContext,
            Self::HvmParams(_) => RecordKind::HvmParams,
            Self::Toolstack(_) => RecordKind::Toolstack,
            Self::Verify => RecordKind::Verify,
            Self::Checkpoint => RecordKind::Checkpoint,
            Self::CheckpointDirtyPfnList(_) => RecordKind::CheckpointDirtyPfnList,
            Self::StaticDataEnd => RecordKind::StaticDataEnd,
            Self::CpuidPolicy(_) => RecordKind::CpuidPolicy,
            Self::MsrPolicy(_) => RecordKind::MsrPolicy,
            Self::Void(kind) => *kind,
            Self::Optional { .. } => return None,
        })
    }
}
