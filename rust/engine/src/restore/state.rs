// SPDX-License-Identifier: GPL-3.0-or-later
//! The records that are not memory. CPU policy: applied at STATIC_DATA_END. TSC and HVM parameters: as they come.
//! HVM context: kept until END, since parameters decide what is valid in it and libxc sends them behind it.

use xenmig_stream::{HvmParam, RecordKind};
use xenmig_types::{CpuPolicy, TscInfo};

use super::{MissingPolicies, Restore, RestoreError};

/// `HVM_PARAM_PAE_ENABLED`: once a message between parts of the toolstack, in old streams still, of no meaning.
const PARAM_PAE_ENABLED: u32 = 4;

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
    const fn expect_open(&self, kind: RecordKind, offset: u64) -> Result<(), RestoreError> {
        if self.ended {
            let why = "it belongs in front of STATIC_DATA_END";
            return Err(RestoreError::Unsupported { kind, offset, why });
        }
        Ok(())
    }
}

impl Restore<'_, '_> {
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

    pub(super) fn hvm_params(&mut self, params: &[HvmParam]) -> Result<(), RestoreError> {
        for HvmParam { index, value } in params.iter().copied() {
            if index != PARAM_PAE_ENABLED {
                self.shared.note(index, value);
                self.set_param(index, value)?;
            }
        }
        Ok(())
    }

    pub(super) fn set_param(&mut self, index: u32, value: u64) -> Result<(), RestoreError> {
        let feed = self.reader.source_mut();
        feed.retry(|| self.host.set_hvm_param(self.domid, index, value)).map_err(|error| match error {
            RestoreError::Hypervisor(error) => RestoreError::Param { index, value, error },
            error => error,
        })
    }

    pub(super) fn load_hvm_context(&mut self) -> Result<(), RestoreError> {
        let context = self.hvm_context.take().ok_or(RestoreError::Missing(RecordKind::HvmContext))?;
        self.reader.source_mut().retry(|| self.host.set_hvm_context(self.domid, &context))
    }
}
