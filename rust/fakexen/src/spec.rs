// SPDX-License-Identifier: GPL-3.0-or-later
//! The descriptions of domains that the control interface takes as JSON.

use std::{collections::BTreeMap, ops::Range};

use serde::Deserialize;
use xenmig_sim::{Action, Blobs, DomainConfig, Script, SimDomain, When, Workload};
use xenmig_types::{Domid, PAGE_SIZE_U64, Pfn, TscInfo};

use crate::{
    failure::Failure,
    pv_spec::{PvAction, PvSpec},
};

/// One pfn, or a range of them as `[first, end]` without its end.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Pfns {
    /// One.
    One(u64),
    /// A range.
    Range([u64; 2]),
}

impl Pfns {
    const fn range(&self) -> Range<u64> {
        match *self {
            Self::One(pfn) => pfn..pfn.saturating_add(1),
            Self::Range([first, end]) => first..end,
        }
    }
}

/// A domain.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Spec {
    /// Its number; the next free one without it.
    domid: Option<u16>,
    /// Pages of RAM, from pfn 0 on, holes included.
    memory_pages: u64,
    /// Number of vCPUs.
    vcpus: u32,
    /// Pfns without a page.
    holes: Vec<Pfns>,
    /// A further page at this pfn.
    highest_pfn: Option<u64>,
    /// Whether there are the eight pages just below 4 GiB.
    special_pages: bool,
    /// Seed of everything that looks random.
    pub(crate) seed: u64,
    /// Whether pages hold random bytes, rather than zeros.
    pub(crate) fill: bool,
    /// Whether all of RAM is backed by memory from the start, so that no measurement pays for a first touch.
    pub(crate) warm: bool,
    /// `false` for an empty, paused domain to be restored into.
    pub(crate) populated: bool,
    /// Whether log-dirty mode is on already.
    vram_tracking: bool,
    /// Pages that only a CLEAN with FINAL reports.
    xen_mapped_pages: u64,
    /// Size of the HVM context in bytes.
    hvm_context_bytes: usize,
    /// HVM parameters that are not 0, by index.
    hvm_params: Option<BTreeMap<u32, u64>>,
    /// TSC settings.
    tsc: Option<Tsc>,
    /// The CPU policy; a usual one without it.
    pub(crate) cpu_policy: Option<CpuPolicySpec>,
    /// Page types to be reported instead of the true ones, as pairs of pfn and type number 0 to 15.
    pub(crate) types: Vec<(u64, u64)>,
    /// Makes it a PV guest.
    pub(crate) pv: Option<PvSpec>,
    /// What the vCPUs do.
    pub(crate) workload: WorkloadSpec,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            domid: None,
            memory_pages: 1024,
            vcpus: 1,
            holes: Vec::new(),
            highest_pfn: None,
            special_pages: false,
            seed: 0,
            fill: true,
            warm: false,
            populated: true,
            vram_tracking: false,
            xen_mapped_pages: 2,
            hvm_context_bytes: 8192,
            hvm_params: None,
            tsc: None,
            cpu_policy: None,
            types: Vec::new(),
            pv: None,
            workload: WorkloadSpec::Idle,
        }
    }
}

/// A domain's TSC settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tsc {
    mode: u32,
    khz: u32,
    elapsed_ns: u64,
    incarnation: u32,
}

/// A CPU policy. What it does not have is zero.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CpuPolicySpec {
    /// Leaf, subleaf (2^32 - 1 for none), eax, ebx, ecx, edx.
    #[serde(default)]
    pub(crate) leaves: Vec<[u32; 6]>,
    /// Values by index.
    #[serde(default)]
    pub(crate) msrs: BTreeMap<u32, u64>,
}

/// What a domain's vCPUs do.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum WorkloadSpec {
    /// Nothing.
    Idle,
    /// They write random pages.
    Uniform {
        /// Pages written per second.
        pages_per_s: f64,
    },
    /// They write the first pages often, the others seldom.
    Hotcold {
        /// How many are hot.
        hot_pages: u64,
        /// Hot pages written per second.
        hot_pages_per_s: f64,
        /// Cold pages written per second.
        cold_pages_per_s: f64,
    },
    /// The guest acts exactly where this says.
    Scripted {
        /// In any order.
        steps: Vec<Step>,
    },
}

/// What the guest does at one moment.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    when: Moment,
    /// The number of the call, from 0, counted from the domain's creation.
    #[serde(default)]
    n: u64,
    /// Pages that it writes.
    #[serde(default)]
    write: Vec<Pfns>,
    /// Pages that it gives back, after the writes.
    #[serde(default)]
    balloon_out: Vec<Pfns>,
    /// Pages that it gets, after that.
    #[serde(default)]
    balloon_in: Vec<Pfns>,
    /// What the kernel of a PV guest then does.
    #[serde(default)]
    pv: Vec<PvAction>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Moment {
    BeforeClean,
    BeforePeek,
    BeforeTypes,
    BeforeMap,
    AfterMap,
    AtSuspend,
}

impl Spec {
    /// Returns the configuration of the simulated domain.
    pub(crate) fn config(&self) -> Result<DomainConfig, Failure> {
        let usual = Blobs::default();
        let domid = self.domid.map(|domid| Domid::new(domid.into())).transpose();
        let memory_bytes = self.memory_pages.checked_mul(PAGE_SIZE_U64);
        if let Some((pfn, kind)) = self.types.iter().find(|(_, kind)| *kind > 15) {
            return Err(Failure::invalid(format!("type {kind} of pfn {pfn:#x}: give 0 to 15")));
        }
        Ok(DomainConfig {
            domid: domid.map_err(|error| Failure::invalid(error.to_string()))?,
            memory_bytes: memory_bytes.ok_or_else(|| Failure::invalid("too many memory_pages"))?,
            vcpus: self.vcpus,
            // It comes when the domain is there.
            workload: Workload::Idle,
            holes: self.holes.iter().map(Pfns::range).collect(),
            special_pages: self.special_pages,
            highest_pfn: self.highest_pfn,
            seed: self.seed,
            blobs: Blobs {
                hvm_context_bytes: self.hvm_context_bytes,
                cpuid_leaves: 0,
                msr_entries: 0,
                hvm_params: self.hvm_params.as_ref().map_or(usual.hvm_params, |params| {
                    params.iter().map(|(i, value)| (*i, *value)).collect()
                }),
                tsc: self.tsc.as_ref().map_or(usual.tsc, |tsc| TscInfo {
                    mode: tsc.mode,
                    khz: tsc.khz,
                    elapsed_ns: tsc.elapsed_ns,
                    incarnation: tsc.incarnation,
                }),
            },
            vram_tracking: self.vram_tracking,
            xen_mapped_pages: self.xen_mapped_pages,
            pv: self.pv.as_ref().map(PvSpec::config).transpose()?,
            populated: self.populated,
        })
    }
}

impl WorkloadSpec {
    /// Returns the workload for a domain.
    pub(crate) fn workload(&self, domain: &SimDomain) -> Workload {
        match self {
            Self::Idle => Workload::Idle,
            Self::Uniform { pages_per_s } => Workload::Uniform { pages_per_s: *pages_per_s },
            Self::Hotcold { hot_pages, hot_pages_per_s, cold_pages_per_s } => Workload::HotCold {
                hot_pages: *hot_pages,
                hot_pages_per_s: *hot_pages_per_s,
                cold_pages_per_s: *cold_pages_per_s,
            },
            Self::Scripted { steps } => {
                let mut script = Script::new();
                steps.iter().for_each(|step| step.play(domain, &mut script));
                Workload::Scripted(script)
            }
        }
    }
}

impl Step {
    fn play(&self, domain: &SimDomain, script: &mut Script) {
        let when = match self.when {
            Moment::BeforeClean => When::BeforeClean(self.n),
            Moment::BeforePeek => When::BeforePeek(self.n),
            Moment::BeforeTypes => When::BeforeTypes(self.n),
            Moment::BeforeMap => When::BeforeMap(self.n),
            Moment::AfterMap => When::AfterMap(self.n),
            Moment::AtSuspend => When::AtSuspend,
        };
        let mut push = |pages: &[Pfns], action: fn(Pfn) -> Action| {
            pages.iter().flat_map(Pfns::range).for_each(|pfn| script.push(when, action(Pfn(pfn))));
        };
        push(&self.write, Action::Write);
        push(&self.balloon_out, Action::BalloonOut);
        push(&self.balloon_in, Action::BalloonIn);
        for action in self.pv.iter().filter_map(|action| action.action(domain)) {
            script.push(when, action);
        }
    }
}
