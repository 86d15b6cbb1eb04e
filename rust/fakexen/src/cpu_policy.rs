// SPDX-License-Identifier: GPL-3.0-or-later
//! A domain's CPU policy. Like Xen, it is kept as a table of leaves, and written as the leaves that its own maximum
//! leaves call for, in one order: libxenguest reads a policy into the same table and writes it again, so only such a
//! list comes through byte for byte.

use std::collections::BTreeMap;

use xenmig_types::CpuPolicy;

use crate::{
    failure::Failure,
    layout::{CpuidLeaf, MsrEntry},
    spec::Spec,
};

/// `XEN_CPUID_NO_SUBLEAF`.
const NO_SUBLEAF: u32 = u32::MAX;
/// What `getcpupolicy` says the most leaves are (`CPUID_MAX_SERIALISED_LEAVES`): the sum of the table's parts below.
pub(crate) const MAX_LEAVES: u32 = 120;
/// `MSR_MAX_SERIALISED_ENTRIES`.
pub(crate) const MAX_MSRS: u32 = 2;

/// The highest basic leaf that is kept.
const LAST_BASIC: u32 = 0xd;
/// The highest extended leaf that is kept.
const LAST_EXTENDED: u32 = 0x8000_0021;
const EXTENDED: u32 = 0x8000_0000;
/// The last of the hypervisor's own leaves, and of Viridian's: one byte is kept of each.
const XEN_LIMIT: u32 = 0x4000_0000;
const VIRIDIAN_LIMIT: u32 = 0x4000_0100;
/// Subleaves of leaf 4 (caches), 7 (features), 0xb (topology), 0xd (xstate) that are kept.
const CACHES: u32 = 6;
const FEATURES: u32 = 3;
const TOPOLOGY: u32 = 2;
const XSTATES: u32 = 63;
/// `MSR_INTEL_PLATFORM_INFO`, of which 32 bits are kept, and `MSR_ARCH_CAPABILITIES`.
const PLATFORM_INFO: u32 = 0xce;
const ARCH_CAPABILITIES: u32 = 0x10a;

/// Which entry of a policy was refused, and with which errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There are too many entries.
    TooMany,
    /// A leaf that is not kept.
    Leaf { leaf: u32, subleaf: u32 },
    /// An MSR that is not kept, or a value that it cannot have.
    Msr { index: u32, errno: i32 },
}

/// A CPU policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    leaves: BTreeMap<(u32, u32), [u32; 4]>,
    platform_info: u64,
    arch_capabilities: u64,
}

impl Policy {
    /// Makes the policy that a description asks for.
    pub(crate) fn of_spec(spec: &Spec) -> Result<Self, Failure> {
        let Some(given) = &spec.cpu_policy else { return Ok(Self::usual()) };
        let mut policy = Self::default();
        let leaves = given.leaves.iter().map(|[leaf, subleaf, a, b, c, d]| CpuidLeaf {
            leaf: *leaf,
            subleaf: *subleaf,
            a: *a,
            b: *b,
            c: *c,
            d: *d,
        });
        let msrs = given.msrs.iter().map(|(idx, val)| MsrEntry { idx: *idx, flags: 0, val: *val });
        policy
            .merge(&leaves.collect::<Vec<_>>(), &msrs.collect::<Vec<_>>())
            .map_err(|refused| Failure::invalid(format!("cpu_policy: {refused:x?}")))?;
        Ok(policy)
    }

    /// Returns the policy of a plausible guest, with something in each part of the table.
    pub(crate) fn usual() -> Self {
        let leaf = |leaf, subleaf, [a, b, c, d]: [u32; 4]| CpuidLeaf { leaf, subleaf, a, b, c, d };
        let leaves = [
            leaf(0, NO_SUBLEAF, [0xd, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
            leaf(1, NO_SUBLEAF, [0x0005_0654, 0x0010_0800, 0xf7fa_3203, 0x1f8b_fbff]),
            leaf(2, NO_SUBLEAF, [0x7603_6301, 0x00f0_b5ff, 0, 0x00c3_0000]),
            leaf(4, 0, [0x0400_0121, 0x01c0_003f, 0x3f, 0]),
            leaf(4, 1, [0x0400_0122, 0x01c0_003f, 0x3f, 0]),
            leaf(4, 2, [0x0400_0143, 0x03c0_003f, 0x3ff, 0]),
            leaf(5, NO_SUBLEAF, [0x40, 0x40, 3, 0x0020_2020]),
            leaf(7, 0, [1, 0x019c_07ab, 0x8, 0xac00_0400]),
            leaf(7, 1, [0x0000_1c30, 0, 0, 0]),
            leaf(0xa, NO_SUBLEAF, [0x0730_0404, 0, 0, 0x603]),
            leaf(0xb, 0, [1, 2, 0x100, 0]),
            leaf(0xb, 1, [4, 8, 0x201, 0]),
            leaf(0xd, 0, [0x7, 0x340, 0x340, 0]),
            leaf(0xd, 1, [0xf, 0x340, 0, 0]),
            leaf(0xd, 2, [0x100, 0x240, 0, 0]),
            leaf(XEN_LIMIT, NO_SUBLEAF, [5, 0, 0, 0]),
            leaf(EXTENDED, NO_SUBLEAF, [EXTENDED + 8, 0, 0, 0]),
            leaf(EXTENDED + 1, NO_SUBLEAF, [0, 0, 0x121, 0x2c10_0800]),
            leaf(EXTENDED + 2, NO_SUBLEAF, [0x656e_6558, 0x2067_696d, 0x6b61_6620, 0x5043_2065]),
            leaf(EXTENDED + 6, NO_SUBLEAF, [0, 0, 0x0100_6040, 0]),
            leaf(EXTENDED + 7, NO_SUBLEAF, [0, 0, 0, 0x100]),
            leaf(EXTENDED + 8, NO_SUBLEAF, [0x302e, 0, 0, 0]),
        ];
        let msrs = [
            MsrEntry { idx: PLATFORM_INFO, flags: 0, val: 0x8000_0000 },
            MsrEntry { idx: ARCH_CAPABILITIES, flags: 0, val: 0x2b },
        ];
        let mut policy = Self::default();
        // All of them are leaves and MSRs that are kept; a test looks.
        let _ = policy.merge(&leaves, &msrs);
        policy
    }

    fn leaf(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        self.leaves.get(&(leaf, subleaf)).copied().unwrap_or_default()
    }

    /// Takes over leaves and MSRs, and forgets the leaves that the maximum leaves do not reach any more.
    pub(crate) fn merge(&mut self, leaves: &[CpuidLeaf], msrs: &[MsrEntry]) -> Result<(), Refused> {
        if leaves.len() > MAX_LEAVES as usize || msrs.len() > MAX_MSRS as usize {
            return Err(Refused::TooMany);
        }
        let mut merged = self.clone();
        for CpuidLeaf { leaf, subleaf, a, b, c, d } in leaves.iter().copied() {
            let subleaves = match leaf {
                4 => 0..CACHES,
                7 => 0..FEATURES,
                0xb => 0..TOPOLOGY,
                0xd => 0..XSTATES,
                _ => 0..0,
            };
            let plain =
                matches!(leaf, 0..=LAST_BASIC | XEN_LIMIT | VIRIDIAN_LIMIT | EXTENDED..=LAST_EXTENDED);
            let kept = if subleaves.is_empty() {
                plain && subleaf == NO_SUBLEAF
            } else {
                subleaves.contains(&subleaf)
            };
            if !kept {
                return Err(Refused::Leaf { leaf, subleaf });
            }
            let limit = matches!(leaf, XEN_LIMIT | VIRIDIAN_LIMIT);
            merged.leaves.insert((leaf, subleaf), if limit { [a & 0xff, 0, 0, 0] } else { [a, b, c, d] });
        }
        for msr in msrs {
            let errno = match msr.idx {
                _ if msr.flags != 0 => libc::EINVAL,
                PLATFORM_INFO if u32::try_from(msr.val).is_err() => libc::EOVERFLOW,
                PLATFORM_INFO => {
                    merged.platform_info = msr.val;
                    continue;
                }
                ARCH_CAPABILITIES => {
                    merged.arch_capabilities = msr.val;
                    continue;
                }
                _ => libc::ERANGE,
            };
            return Err(Refused::Msr { index: msr.idx, errno });
        }
        merged.leaves = merged
            .leaves()
            .map(|CpuidLeaf { leaf, subleaf, a, b, c, d }| ((leaf, subleaf), [a, b, c, d]))
            .collect();
        *self = merged;
        Ok(())
    }

    /// Iterates over the leaves, in order, that the policy is written as.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = CpuidLeaf> + '_ {
        let [last, ..] = self.leaf(0, NO_SUBLEAF);
        let [last_extended, ..] = self.leaf(EXTENDED, NO_SUBLEAF);
        let last_extended = (EXTENDED | (last_extended & 0xffff)).min(LAST_EXTENDED);
        let basic = (0..=last.min(LAST_BASIC))
            .flat_map(|leaf| self.subleaves(leaf).into_iter().map(move |subleaf| (leaf, subleaf)));
        let limits = [XEN_LIMIT, VIRIDIAN_LIMIT];
        let rest = limits.into_iter().chain(EXTENDED..=last_extended).map(|leaf| (leaf, NO_SUBLEAF));
        basic.chain(rest).map(|(leaf, subleaf)| {
            let [a, b, c, d] = self.leaf(leaf, subleaf);
            CpuidLeaf { leaf, subleaf, a, b, c, d }
        })
    }

    /// Returns the subleaves of a basic leaf that are written.
    fn subleaves(&self, leaf: u32) -> Vec<u32> {
        // A list that ends with the first entry of type 0, which is written as well.
        let until_null = |count: u32, is_null: &dyn Fn([u32; 4]) -> bool| {
            let last = (0..count).find(|subleaf| is_null(self.leaf(leaf, *subleaf)));
            (0..=last.unwrap_or(count - 1)).collect()
        };
        match leaf {
            4 => until_null(CACHES, &|[a, ..]| a & 0x1f == 0),
            7 => {
                let [last, ..] = self.leaf(7, 0);
                (0..=last.min(FEATURES - 1)).collect()
            }
            0xb => until_null(TOPOLOGY, &|[_, _, c, _]| c & 0xff00 == 0),
            0xd => {
                let [low, _, _, high] = self.leaf(0xd, 0);
                let [_, _, supervisor_low, supervisor_high] = self.leaf(0xd, 1);
                let states = u64::from(high | supervisor_high) << 32 | u64::from(low | supervisor_low);
                (0..XSTATES.min(2.max(64 - states.leading_zeros()))).collect()
            }
            _ => vec![NO_SUBLEAF],
        }
    }

    /// Returns the MSRs that the policy is written as.
    pub(crate) const fn msrs(&self) -> [MsrEntry; MAX_MSRS as usize] {
        [
            MsrEntry { idx: PLATFORM_INFO, flags: 0, val: self.platform_info },
            MsrEntry { idx: ARCH_CAPABILITIES, flags: 0, val: self.arch_capabilities },
        ]
    }

    /// Writes the policy as two arrays.
    pub(crate) fn serialise(&self) -> CpuPolicy {
        let mut cpuid = Vec::new();
        for CpuidLeaf { leaf, subleaf, a, b, c, d } in self.leaves() {
            cpuid.extend([leaf, subleaf, a, b, c, d].into_iter().flat_map(u32::to_le_bytes));
        }
        let mut msrs = Vec::new();
        for MsrEntry { idx, flags, val } in self.msrs() {
            msrs.extend([idx, flags].into_iter().flat_map(u32::to_le_bytes).chain(val.to_le_bytes()));
        }
        CpuPolicy { cpuid, msrs }
    }

    /// Reads a policy that [`Policy::serialise`] wrote.
    pub(crate) fn deserialise(written: &CpuPolicy) -> Self {
        let words: Vec<u32> =
            written.cpuid.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let leaves: Vec<CpuidLeaf> = words
            .as_chunks()
            .0
            .iter()
            .map(|&[leaf, subleaf, a, b, c, d]| CpuidLeaf { leaf, subleaf, a, b, c, d })
            .collect();
        let words: Vec<u64> =
            written.msrs.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        #[expect(clippy::cast_possible_truncation, reason = "the lower half of the first word")]
        let msrs: Vec<MsrEntry> = words
            .as_chunks()
            .0
            .iter()
            .map(|&[index, val]| MsrEntry { idx: index as u32, flags: 0, val })
            .collect();
        let mut policy = Self::default();
        // What was written is accepted.
        let _ = policy.merge(&leaves, &msrs);
        policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_policy_has_every_part_and_comes_back_as_it_was() {
        let usual = Policy::usual();
        let leaves: Vec<_> = usual.leaves().map(|leaf| (leaf.leaf, leaf.subleaf)).collect();
        assert!(leaves.is_sorted() && leaves.len() == 32, "{leaves:x?}");
        assert!(leaves.contains(&(4, 3)) && !leaves.contains(&(4, 4)), "the list of caches has an end");
        assert_eq!(usual.leaf(7, 1)[0], 0x1c30);
        assert_eq!(usual.leaf(XEN_LIMIT, NO_SUBLEAF), [5, 0, 0, 0]);
        assert_eq!(Policy::deserialise(&usual.serialise()), usual);
    }

    #[test]
    fn an_empty_policy_is_written_as_its_few_leaves() {
        let leaves: Vec<_> = Policy::default().leaves().map(|leaf| leaf.leaf).collect();
        assert_eq!(leaves, [0, XEN_LIMIT, VIRIDIAN_LIMIT, EXTENDED]);
    }

    #[test]
    fn a_full_policy_has_as_many_leaves_as_there_can_be() {
        let mut policy = Policy::default();
        let leaf = |leaf, subleaf, a, c| CpuidLeaf { leaf, subleaf, a, b: 0, c, d: 0 };
        let mut leaves = vec![leaf(0, NO_SUBLEAF, 0xd, 0), leaf(EXTENDED, NO_SUBLEAF, LAST_EXTENDED, 0)];
        leaves.extend((0..CACHES).map(|cache| leaf(4, cache, 1, 0)));
        leaves.extend((0..TOPOLOGY).map(|level| leaf(0xb, level, 0, 0x100)));
        leaves.extend([leaf(7, 0, u32::MAX, 0), CpuidLeaf { d: u32::MAX, ..leaf(0xd, 0, 0, 0) }]);
        policy.merge(&leaves, &[]).unwrap();
        assert_eq!(policy.leaves().count(), MAX_LEAVES as usize);
    }

    #[test]
    fn what_is_not_kept_is_refused_and_changes_nothing() {
        let before = Policy::usual();
        let mut policy = before.clone();
        for (leaf, subleaf) in
            [(0xe, NO_SUBLEAF), (1, 0), (4, CACHES), (4, NO_SUBLEAF), (0x4000_0001, NO_SUBLEAF)]
        {
            let entry = CpuidLeaf { leaf, subleaf, ..CpuidLeaf::default() };
            let good = CpuidLeaf { leaf: 1, subleaf: NO_SUBLEAF, ..CpuidLeaf::default() };
            assert_eq!(policy.merge(&[good, entry], &[]), Err(Refused::Leaf { leaf, subleaf }));
        }
        for (idx, flags, val, errno) in
            [(0xce, 1, 0, libc::EINVAL), (0xce, 0, 1 << 32, libc::EOVERFLOW), (0x10, 0, 0, libc::ERANGE)]
        {
            let refused = policy.merge(&[], &[MsrEntry { idx, flags, val }]);
            assert_eq!(refused, Err(Refused::Msr { index: idx, errno }));
        }
        assert_eq!(policy.merge(&vec![CpuidLeaf::default(); 121], &[]), Err(Refused::TooMany));
        assert_eq!(policy, before);
    }

    #[test]
    fn a_list_without_entries_has_an_end_all_the_same() {
        let mut policy = Policy::default();
        let longest = CpuidLeaf { leaf: 0, subleaf: NO_SUBLEAF, a: 0xd, ..CpuidLeaf::default() };
        policy.merge(&[longest], &[]).unwrap();
        let subleaves = |leaf| policy.leaves().filter(|entry| entry.leaf == leaf).count();
        assert_eq!([4, 7, 0xb, 0xd].map(subleaves), [1, 1, 1, 2]);
    }

    #[test]
    fn one_byte_is_kept_of_the_limits() {
        let mut policy = Policy::default();
        let limit = CpuidLeaf { leaf: XEN_LIMIT, subleaf: NO_SUBLEAF, a: 0x4000_0105, b: 1, c: 2, d: 3 };
        policy.merge(&[limit], &[]).unwrap();
        assert_eq!(policy.leaf(XEN_LIMIT, NO_SUBLEAF), [5, 0, 0, 0]);
    }

    #[test]
    fn leaves_beyond_the_new_maximum_are_forgotten() {
        let mut policy = Policy::usual();
        let shorter = CpuidLeaf { leaf: 0, subleaf: NO_SUBLEAF, a: 1, ..CpuidLeaf::default() };
        policy.merge(&[shorter], &[]).unwrap();
        assert_eq!(policy.leaf(7, 1), [0; 4]);
        assert_eq!(policy.leaves().filter(|leaf| leaf.leaf <= LAST_BASIC).count(), 2);
    }
}
