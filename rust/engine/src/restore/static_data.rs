// SPDX-License-Identifier: GPL-3.0-or-later
//! What does not depend on the guest's execution: the CPU policy, which is set at STATIC_DATA_END.

use xenmig_stream::RecordKind;
use xenmig_types::CpuPolicy;

use super::{error::RestoreError, target::Target};

/// What the stream's static data lacks. The domain keeps what it was created with, unless the caller sets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissingPolicies {
    /// There was no CPUID policy.
    pub cpuid: bool,
    /// There was no MSR policy.
    pub msrs: bool,
}

/// The static data that has come.
#[derive(Debug, Default)]
pub(super) struct StaticData {
    policy: CpuPolicy,
    ended: bool,
}

impl StaticData {
    /// Keeps a CPUID policy. `offset` is where its record begins.
    pub(super) fn set_cpuid(&mut self, leaves: Vec<u8>, offset: u64) -> Result<(), RestoreError> {
        self.expect_open(RecordKind::CpuidPolicy, offset)?;
        self.policy.cpuid = leaves;
        Ok(())
    }

    /// Keeps an MSR policy. `offset` is where its record begins.
    pub(super) fn set_msrs(&mut self, entries: Vec<u8>, offset: u64) -> Result<(), RestoreError> {
        self.expect_open(RecordKind::MsrPolicy, offset)?;
        self.policy.msrs = entries;
        Ok(())
    }

    /// Refuses a record after STATIC_DATA_END: it would silently have no effect.
    pub(super) const fn expect_open(&self, kind: RecordKind, offset: u64) -> Result<(), RestoreError> {
        if self.ended {
            let why = "it belongs in front of STATIC_DATA_END";
            return Err(RestoreError::Unsupported { kind, offset, why });
        }
        Ok(())
    }

    /// Ends the static data and sets the CPU policy if there is one.
    pub(super) fn end(&mut self, target: &Target<'_>) -> Result<MissingPolicies, RestoreError> {
        self.ended = true;
        let policy = std::mem::take(&mut self.policy);
        if policy != CpuPolicy::default() {
            target.call(|host, domid| host.set_cpu_policy(domid, &policy))?;
        }
        Ok(MissingPolicies { cpuid: policy.cpuid.is_empty(), msrs: policy.msrs.is_empty() })
    }
}
