// SPDX-License-Identifier: GPL-3.0-or-later
//! What does not depend on the guest's execution: the CPU policy, which is set at STATIC_DATA_END.

use xenmig_stream::RecordKind;
use xenmig_types::CpuPolicy;

use super::{error::RestoreError, events::MissingPolicies, target::Target};

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

#[cfg(test)]
mod tests {
    use xenmig_hypervisor::Hypervisor;
    use xenmig_sim::{DomainConfig, Fault, SimHost, Verb};
    use xenmig_types::Domid;

    use super::*;
    use crate::{
        interrupt::Interrupt,
        restore::{caller::RestoreCaller, options::RestoreOptions},
    };

    struct Quiet;
    impl Interrupt for Quiet {}
    impl RestoreCaller for Quiet {}

    /// Ends static data of these lengths in a domain whose host is busy at first.
    fn end(cpuid: usize, msrs: usize) -> (MissingPolicies, SimHost, Domid) {
        let host = SimHost::new();
        let domain = host.create(DomainConfig { populated: false, ..DomainConfig::default() }).unwrap();
        domain.inject(Fault::Errno { verb: Verb::SetCpuPolicy, nth: 0, errno: 16 });
        let domid = domain.domid();
        let mut static_data = StaticData::default();
        static_data.set_cpuid(vec![3; cpuid], 40).unwrap();
        static_data.set_msrs(vec![4; msrs], 40).unwrap();
        let (options, mut caller) = (RestoreOptions::default(), Quiet);
        let missing = static_data.end(&Target::new(&host, domid, &options, &mut caller)).unwrap();
        assert!(static_data.set_msrs(Vec::new(), 40).is_err(), "it is too late");
        (missing, host, domid)
    }

    #[test]
    fn what_came_is_set_and_what_is_missing_is_named() {
        let (missing, host, domid) = end(24, 0);
        assert_eq!(missing, MissingPolicies { cpuid: false, msrs: true });
        assert_eq!(host.cpu_policy(domid).unwrap(), CpuPolicy { cpuid: vec![3; 24], msrs: Vec::new() });
        assert_eq!(end(0, 0).0, MissingPolicies { cpuid: true, msrs: true });
    }
}
