// SPDX-License-Identifier: GPL-3.0-or-later
//! The kinds of record, their numbers and names, and how long the body of each may be. The encoder and the reader
//! check every record against them.

use std::fmt;

use xenmig_types::{GuestKind, VcpuPart};

/// The kinds of record (spec, "Records").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum RecordKind {
    /// The last record.
    End = 0x00,
    /// A batch of pfns, their types and the contents of those that have any.
    PageData = 0x01,
    /// Width and page table levels of a PV guest.
    PvInfo = 0x02,
    /// Frames of a PV guest's p2m.
    PvP2mFrames = 0x03,
    /// Registers of a PV vCPU.
    PvVcpuBasic = 0x04,
    /// Further registers of a PV vCPU.
    PvVcpuExtended = 0x05,
    /// XSAVE state of a PV vCPU.
    PvVcpuXsave = 0x06,
    /// Shared info page of a PV guest.
    SharedInfo = 0x07,
    /// TSC settings.
    TscInfo = 0x08,
    /// HVM context.
    HvmContext = 0x09,
    /// HVM parameters.
    HvmParams = 0x0a,
    /// A toolstack's blob, of development versions only.
    Toolstack = 0x0b,
    /// Model specific registers of a PV vCPU.
    PvVcpuMsrs = 0x0c,
    /// From here on pages are sent again, to be compared.
    Verify = 0x0d,
    /// What was sent so far is a consistent state (Remus, COLO).
    Checkpoint = 0x0e,
    /// Dirty pfns of the secondary (COLO).
    CheckpointDirtyPfnList = 0x0f,
    /// What the guest cannot change is complete.
    StaticDataEnd = 0x10,
    /// CPUID part of the CPU policy.
    CpuidPolicy = 0x11,
    /// MSR part of the CPU policy.
    MsrPolicy = 0x12,
}

/// How long a body of some kind may be, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRule {
    /// Exactly this long.
    Exactly(u32),
    /// A fixed part and then at least one item.
    Items {
        /// Length of the fixed part.
        fixed: u32,
        /// Length of one item.
        item: u32,
    },
}

impl BodyRule {
    /// Says whether a body of `length` bytes obeys the rule.
    #[must_use]
    pub const fn allows(self, length: u32) -> bool {
        match self {
            Self::Exactly(exact) => length == exact,
            Self::Items { fixed, item } => length > fixed && (length - fixed).is_multiple_of(item),
        }
    }

    /// Says whether a body of `length` bytes has no items, which old senders wrote (spec, "Errata", 1).
    #[must_use]
    pub const fn is_void(self, length: u32) -> bool {
        match self {
            Self::Exactly(_) => false,
            Self::Items { fixed, .. } => length == 0 || length == fixed,
        }
    }
}

impl fmt::Display for BodyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(exact) => write!(f, "{exact} bytes"),
            Self::Items { fixed: 0, item: 1 } => write!(f, "at least one byte"),
            Self::Items { fixed, item } => write!(f, "{fixed} bytes and one or more items of {item}"),
        }
    }
}

impl RecordKind {
    /// Every kind, in the order of its number.
    pub const ALL: [Self; 19] = [
        Self::End,
        Self::PageData,
        Self::PvInfo,
        Self::PvP2mFrames,
        Self::PvVcpuBasic,
        Self::PvVcpuExtended,
        Self::PvVcpuXsave,
        Self::SharedInfo,
        Self::TscInfo,
        Self::HvmContext,
        Self::HvmParams,
        Self::Toolstack,
        Self::PvVcpuMsrs,
        Self::Verify,
        Self::Checkpoint,
        Self::CheckpointDirtyPfnList,
        Self::StaticDataEnd,
        Self::CpuidPolicy,
        Self::MsrPolicy,
    ];

    /// Returns the number that stands in the record's header.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Returns the name that the specification uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::End => "END",
            Self::PageData => "PAGE_DATA",
            Self::PvInfo => "X86_PV_INFO",
            Self::PvP2mFrames => "X86_PV_P2M_FRAMES",
            Self::PvVcpuBasic => "X86_PV_VCPU_BASIC",
            Self::PvVcpuExtended => "X86_PV_VCPU_EXTENDED",
            Self::PvVcpuXsave => "X86_PV_VCPU_XSAVE",
            Self::SharedInfo => "SHARED_INFO",
            Self::TscInfo => "X86_TSC_INFO",
            Self::HvmContext => "HVM_CONTEXT",
            Self::HvmParams => "HVM_PARAMS",
            Self::Toolstack => "TOOLSTACK",
            Self::PvVcpuMsrs => "X86_PV_VCPU_MSRS",
            Self::Verify => "VERIFY",
            Self::Checkpoint => "CHECKPOINT",
            Self::CheckpointDirtyPfnList => "CHECKPOINT_DIRTY_PFN_LIST",
            Self::StaticDataEnd => "STATIC_DATA_END",
            Self::CpuidPolicy => "X86_CPUID_POLICY",
            Self::MsrPolicy => "X86_MSR_POLICY",
        }
    }

    /// Returns how long the record's body may be.
    #[must_use]
    pub const fn body_rule(self) -> BodyRule {
        match self {
            Self::End | Self::Verify | Self::Checkpoint | Self::StaticDataEnd => BodyRule::Exactly(0),
            Self::PvInfo => BodyRule::Exactly(8),
            Self::TscInfo => BodyRule::Exactly(24),
            Self::SharedInfo => BodyRule::Exactly(4096),
            Self::PageData | Self::PvP2mFrames => BodyRule::Items { fixed: 8, item: 8 },
            Self::HvmParams => BodyRule::Items { fixed: 8, item: 16 },
            Self::PvVcpuBasic | Self::PvVcpuExtended | Self::PvVcpuXsave | Self::PvVcpuMsrs => {
                BodyRule::Items { fixed: 8, item: 1 }
            }
            Self::HvmContext | Self::Toolstack => BodyRule::Items { fixed: 0, item: 1 },
            Self::CheckpointDirtyPfnList => BodyRule::Items { fixed: 0, item: 8 },
            Self::CpuidPolicy => BodyRule::Items { fixed: 0, item: 24 },
            Self::MsrPolicy => BodyRule::Items { fixed: 0, item: 16 },
        }
    }

    /// Says whether the record holds memory or registers of the guest, which in version 3 come after
    /// STATIC_DATA_END (spec, "v3 compat with v2").
    #[must_use]
    pub const fn is_guest_state(self) -> bool {
        matches!(
            self,
            Self::PageData
                | Self::PvP2mFrames
                | Self::PvVcpuBasic
                | Self::PvVcpuExtended
                | Self::PvVcpuXsave
                | Self::PvVcpuMsrs
                | Self::SharedInfo
                | Self::TscInfo
                | Self::HvmContext
                | Self::HvmParams
        )
    }
}

impl RecordKind {
    /// Returns the kind of guest that has such records; `None` if any guest may have them.
    #[must_use]
    pub const fn guest(self) -> Option<GuestKind> {
        match self {
            Self::HvmContext | Self::HvmParams => Some(GuestKind::Hvm),
            Self::PvInfo
            | Self::PvP2mFrames
            | Self::PvVcpuBasic
            | Self::PvVcpuExtended
            | Self::PvVcpuXsave
            | Self::PvVcpuMsrs
            | Self::SharedInfo => Some(GuestKind::Pv),
            _ => None,
        }
    }

    /// Returns the kind of the record that holds a part of a PV vCPU's state. All four have the same layout.
    #[must_use]
    pub const fn of_vcpu(part: VcpuPart) -> Self {
        match part {
            VcpuPart::Basic => Self::PvVcpuBasic,
            VcpuPart::Extended => Self::PvVcpuExtended,
            VcpuPart::Xsave => Self::PvVcpuXsave,
            VcpuPart::Msrs => Self::PvVcpuMsrs,
        }
    }
}

impl TryFrom<u32> for RecordKind {
    /// The number itself, which no kind has.
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        usize::try_from(number).ok().and_then(|index| Self::ALL.get(index).copied()).ok_or(number)
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::RECORD_OPTIONAL;

    #[test]
    fn kinds_stand_at_their_numbers() {
        for (number, kind) in (0..).zip(RecordKind::ALL) {
            assert_eq!(kind.number(), number);
            assert_eq!(RecordKind::try_from(number), Ok(kind));
        }
        assert_eq!(RecordKind::try_from(0x13), Err(0x13));
        assert_eq!(RecordKind::try_from(RECORD_OPTIONAL | 1), Err(RECORD_OPTIONAL | 1));
    }

    #[test]
    fn rules_count_whole_items() {
        let params = RecordKind::HvmParams.body_rule();
        assert!(params.allows(24) && params.allows(40) && !params.allows(8) && !params.allows(32));
        assert!(params.is_void(0) && params.is_void(8) && !params.is_void(24));
        assert!(RecordKind::End.body_rule().allows(0) && !RecordKind::End.body_rule().is_void(0));
        assert!(!RecordKind::HvmContext.body_rule().allows(0));
    }
}
