// SPDX-License-Identifier: GPL-3.0-or-later
//! The state of a simulated domain that is not memory: HVM context, HVM parameters, TSC, CPU policy. The engine
//! carries all of it without looking inside.

use std::collections::BTreeMap;

use fastrand::Rng;
use xenmig_hypervisor::{ReservedEntry, ReservedGrant};
use xenmig_types::{CpuPolicy, Domid, Gfn, TscInfo};

use crate::domain_config::Blobs;

/// `HVM_NR_PARAMS` of Xen 4.17.
const HVM_NR_PARAMS: u32 = 39;
/// Parameters that are not the guest's: the toolstack gives a restored domain its own event channels (STORE_EVTCHN,
/// CONSOLE_EVTCHN), and PAE_ENABLED has no meaning any more.
const NOT_THE_GUESTS: [u32; 3] = [2, 18, 4];
/// Guest time that passes with each write of a vCPU.
const NS_PER_WRITE: u64 = 1000;
/// Bytes at the front of the HVM context that change with each write of a vCPU.
const CLOCK_BYTES: usize = 8;

/// The blobs of one domain. `writes` in the methods below is how many pages its vCPUs wrote so far: the registers
/// and timers of a running guest never stand still.
#[derive(Clone, Debug)]
pub(super) struct BlobState {
    context: Vec<u8>,
    /// What the context's clock said when the vCPUs had written nothing.
    clock: u64,
    params: BTreeMap<u32, u64>,
    tsc: TscInfo,
    /// How many writes there were when the TSC was set.
    tsc_writes: u64,
    policy: CpuPolicy,
    /// What the toolstack has granted; it is not the guest's, so no stream carries it.
    grants: BTreeMap<ReservedEntry, (Domid, Gfn)>,
}

impl BlobState {
    /// Makes the blobs of a running guest.
    pub(super) fn of_guest(config: &Blobs, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut random = |bytes| {
            let mut blob = vec![0; bytes];
            rng.fill(&mut blob);
            blob
        };
        Self {
            clock: 0,
            context: random(config.hvm_context_bytes),
            params: config.hvm_params.iter().copied().filter(|(_, value)| *value != 0).collect(),
            tsc: config.tsc,
            tsc_writes: 0,
            policy: CpuPolicy {
                cpuid: random(config.cpuid_leaves * CpuPolicy::CPUID_LEAF_BYTES),
                msrs: random(config.msr_entries * CpuPolicy::MSR_ENTRY_BYTES),
            },
            grants: BTreeMap::new(),
        }
    }

    /// Makes the blobs of a domain that waits to be restored: nothing is as in any guest.
    pub(super) fn empty(config: &Blobs) -> Self {
        Self {
            context: vec![0; config.hvm_context_bytes],
            clock: 0,
            params: BTreeMap::new(),
            tsc: TscInfo::default(),
            tsc_writes: 0,
            policy: CpuPolicy::default(),
            grants: BTreeMap::new(),
        }
    }

    /// Returns the HVM context.
    pub(super) fn context(&self, writes: u64) -> Vec<u8> {
        let mut context = self.context.clone();
        let clock = self.clock.wrapping_add(writes).to_le_bytes();
        context.iter_mut().zip(clock).for_each(|(byte, clock)| *byte = clock);
        context
    }

    /// Loads an HVM context and says whether that was possible: there must be one.
    pub(super) fn set_context(&mut self, context: &[u8], writes: u64) -> bool {
        if context.is_empty() {
            return false;
        }
        let mut clock = [0; CLOCK_BYTES];
        clock.iter_mut().zip(context).for_each(|(clock, byte)| *clock = *byte);
        self.clock = u64::from_le_bytes(clock).wrapping_sub(writes);
        self.context = context.to_vec();
        true
    }

    /// Returns a parameter; `None` if no parameter has this index.
    pub(super) fn param(&self, index: u32) -> Option<u64> {
        (index < HVM_NR_PARAMS).then(|| self.params.get(&index).copied().unwrap_or(0))
    }

    /// Sets a parameter and says whether one has this index.
    pub(super) fn set_param(&mut self, index: u32, value: u64) -> bool {
        if index >= HVM_NR_PARAMS {
            return false;
        }
        if value == 0 {
            self.params.remove(&index);
        } else {
            self.params.insert(index, value);
        }
        true
    }

    /// Returns the TSC settings.
    pub(super) fn tsc(&self, writes: u64) -> TscInfo {
        let passed_ns = writes.saturating_sub(self.tsc_writes).saturating_mul(NS_PER_WRITE);
        TscInfo { elapsed_ns: self.tsc.elapsed_ns.saturating_add(passed_ns), ..self.tsc }
    }

    /// Sets the TSC. Like Xen, it counts one incarnation more than it was told.
    pub(super) fn set_tsc(&mut self, tsc: &TscInfo, writes: u64) {
        self.tsc = TscInfo { incarnation: tsc.incarnation.wrapping_add(1), ..*tsc };
        self.tsc_writes = writes;
    }

    /// Returns the grants of the toolstack, in the order of the entries.
    pub(super) fn grants(&self) -> Vec<ReservedGrant> {
        let grants = self.grants.iter();
        grants
            .map(|(entry, (backend, gfn))| ReservedGrant { entry: *entry, backend: *backend, gfn: *gfn })
            .collect()
    }

    /// Writes grants, and says whether each frame has a place in an entry.
    pub(super) fn seed_grants(&mut self, grants: &[ReservedGrant]) -> bool {
        let fit = grants.iter().all(|grant| u32::try_from(grant.gfn.0).is_ok());
        if fit {
            self.grants.extend(grants.iter().map(|grant| (grant.entry, (grant.backend, grant.gfn))));
        }
        fit
    }

    /// Returns the CPU policy.
    pub(super) const fn policy(&self) -> &CpuPolicy {
        &self.policy
    }

    /// Sets the CPU policy and says whether it consists of whole entries.
    pub(super) fn set_policy(&mut self, policy: &CpuPolicy) -> bool {
        let whole = policy.cpuid.len().is_multiple_of(CpuPolicy::CPUID_LEAF_BYTES)
            && policy.msrs.len().is_multiple_of(CpuPolicy::MSR_ENTRY_BYTES);
        if whole {
            self.policy = policy.clone();
        }
        whole
    }

    /// Feeds everything that must be the same after a restore to `update`. The TSC's incarnation is not: Xen counts
    /// it up.
    pub(super) fn digest(&self, writes: u64, mut update: impl FnMut(&[u8])) {
        let mut blob = |bytes: &[u8]| {
            update(&(bytes.len() as u64).to_le_bytes());
            update(bytes);
        };
        blob(&self.context(writes));
        for (index, value) in self.params.iter().filter(|(index, _)| !NOT_THE_GUESTS.contains(index)) {
            blob(&index.to_le_bytes());
            blob(&value.to_le_bytes());
        }
        self.digest_common(writes, update);
    }

    /// The same for a PV guest, which has no HVM context and no HVM parameters.
    pub(super) fn digest_common(&self, writes: u64, mut update: impl FnMut(&[u8])) {
        let mut blob = |bytes: &[u8]| {
            update(&(bytes.len() as u64).to_le_bytes());
            update(bytes);
        };
        blob(&self.policy.cpuid);
        blob(&self.policy.msrs);
        let tsc = self.tsc(writes);
        for number in [u64::from(tsc.mode), u64::from(tsc.khz), tsc.elapsed_ns] {
            blob(&number.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_that_is_loaded_is_read_back_and_then_moves_on() {
        let source = BlobState::of_guest(&Blobs::default(), 7);
        let context = source.context(1000);
        assert_ne!(context, source.context(1001));
        let mut target = BlobState::empty(&Blobs::default());
        assert!(target.set_context(&context, 5));
        assert_eq!(target.context(5), context);
        assert_eq!(target.context(6), source.context(1001));
        assert!(!target.set_context(&[], 5));
        assert!(target.set_context(&[1, 2, 3], 5));
        assert_eq!(target.context(5), [1, 2, 3]);
    }

    #[test]
    fn the_policy_consists_of_whole_entries() {
        let mut state = BlobState::empty(&Blobs::default());
        let policy = |cpuid, msrs| CpuPolicy { cpuid: vec![1; cpuid], msrs: vec![2; msrs] };
        assert!(!state.set_policy(&policy(25, 16)));
        assert!(!state.set_policy(&policy(24, 15)));
        assert!(state.policy().cpuid.is_empty());
        assert!(state.set_policy(&policy(48, 0)));
        assert_eq!(state.policy(), &policy(48, 0));
    }

    #[test]
    fn time_passes_with_writes_and_every_set_counts_an_incarnation() {
        let mut state = BlobState::of_guest(&Blobs::default(), 7);
        let tsc = state.tsc(3);
        assert_eq!(tsc.elapsed_ns, Blobs::default().tsc.elapsed_ns + 3 * NS_PER_WRITE);
        state.set_tsc(&tsc, 10);
        assert_eq!(state.tsc(10), TscInfo { incarnation: tsc.incarnation + 1, ..tsc });
    }

    #[test]
    fn parameters_have_an_end() {
        let mut state = BlobState::empty(&Blobs::default());
        assert!(state.set_param(HVM_NR_PARAMS - 1, 5) && !state.set_param(HVM_NR_PARAMS, 5));
        assert_eq!((state.param(HVM_NR_PARAMS - 1), state.param(0)), (Some(5), Some(0)));
        assert_eq!(state.param(HVM_NR_PARAMS), None);
    }
}
