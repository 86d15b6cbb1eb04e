// SPDX-License-Identifier: GPL-3.0-or-later
//! The records that any guest has and that are not memory. CPU policy: applied at STATIC_DATA_END. TSC: as it comes.

use xenmig_stream::RecordKind;
use xenmig_types::{CpuPolicy, TscInfo};

use super::{Guest, MissingPolicies, Restore, RestoreError};

/// What the guest's execution does not change.
#[derive(Debug, Default)]
pub(super) struct StaticData {
    policy: CpuPolicy,
    ended: bool,
}

impl StaticData {
    pub(super) fn set_cpuid(&mut self, leaves: Vec<u8>, offset: u64) -> Result<(), RestoreError> {
        self.expect_open(RecordKind::CpuidPolicy, offset)?;
        self.policy.cpuid = leaves;
        Ok(())
    }

    pub(super) fn set_msrs(&mut self, entries: Vec<u8>, offset: u64) -> Result<(), RestoreError> {
        self.expect_open(RecordKind::MsrPolicy, offset)?;
        self.policy.msrs = entries;
        Ok(())
    }

    /// A policy that comes too late would silently have no effect.
    pub(super) const fn expect_open(&self, kind: RecordKind, offset: u64) -> Result<(), RestoreError> {
        if self.ended {
            let why = "it belongs in front of STATIC_DATA_END";
            return Err(RestoreError::Unsupported { kind, offset, why });
        }
        Ok(())
    }
}

impl<G: Guest> Restore<'_, '_, G> {
    pub(super) fn static_data_end(&mut self) -> Result<(), RestoreError> {
        self.static_data.ended = true;
        let policy = std::mem::take(&mut self.static_data.policy);
        self.report.missing_cpuid_policy = policy.cpuid.is_empty();
        self.report.missing_msr_policy = policy.msrs.is_empty();
        let feed = self.reader.source_mut();
        if policy != CpuPolicy::default() {
            feed.retry(|| self.host.set_cpu_policy(self.domid, &policy))?;
        }
        feed.static_data_done(MissingPolicies {
            cpuid: policy.cpuid.is_empty(),
            msrs: policy.msrs.is_empty(),
        })
    }

    pub(super) fn tsc_info(&mut self, tsc: &TscInfo) -> Result<(), RestoreError> {
        self.reader.source_mut().retry(|| self.host.set_tsc_info(self.domid, tsc))
    }
}
