// SPDX-License-Identifier: GPL-3.0-or-later
//! Domains of the simulated host, made by hand or at random: sizes, holes, scripts of what the guest does and when.

use std::{ops::Range, sync::Arc};

use proptest::{collection::vec, option, prelude::*, sample::select};
use xenmig_sim::{Action, DomainConfig, Fault, Script, SimDomain, SimHost, Verb, When, Workload};
use xenmig_types::{PAGE_SIZE, PAGE_SIZE_U64, Pfn};

/// What a domain looks like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) pages: u64,
    pub(crate) holes: Vec<Range<u64>>,
    pub(crate) highest_pfn: Option<u64>,
    pub(crate) special_pages: bool,
    pub(crate) vram_tracking: bool,
    pub(crate) xen_mapped_pages: u64,
}

impl Shape {
    /// A domain of this number of pages, without holes or anything special.
    pub(crate) fn plain(pages: u64) -> Self {
        Self { pages, ..Self::default() }
    }

    /// A domain with holes.
    pub(crate) fn with_holes(pages: u64, holes: &[Range<u64>]) -> Self {
        Self { holes: holes.to_vec(), ..Self::plain(pages) }
    }

    /// Makes the domain, with contents that differ from page to page.
    pub(crate) fn build(&self, host: &SimHost, script: Script) -> Arc<SimDomain> {
        let domain = host.create(self.config(Workload::Scripted(script))).unwrap();
        domain.fill(7);
        if self.special_pages {
            for pfn in 0xfeff8..0xff000 {
                domain.write_page(Pfn(pfn), &[pfn as u8; PAGE_SIZE]).unwrap();
            }
        }
        domain
    }

    /// Makes an empty domain that this one can be restored into.
    pub(crate) fn build_empty(&self, host: &SimHost) -> Arc<SimDomain> {
        host.create(DomainConfig { populated: false, ..self.config(Workload::Idle) }).unwrap()
    }

    fn config(&self, workload: Workload) -> DomainConfig {
        DomainConfig {
            memory_bytes: self.pages * PAGE_SIZE_U64,
            holes: self.holes.clone(),
            highest_pfn: self.highest_pfn,
            special_pages: self.special_pages,
            vram_tracking: self.vram_tracking,
            xen_mapped_pages: self.xen_mapped_pages,
            workload,
            ..DomainConfig::default()
        }
    }
}

/// A list of moments with the pfns that the guest writes at each.
pub(crate) fn writes(steps: impl IntoIterator<Item = (When, Vec<u64>)>) -> Script {
    let each =
        |(when, pfns): (When, Vec<u64>)| pfns.into_iter().map(move |pfn| (when, Action::Write(Pfn(pfn))));
    steps.into_iter().flat_map(each).collect()
}

/// Any small domain.
pub(crate) fn shapes() -> impl Strategy<Value = Shape> {
    let pages = prop_oneof![12 => 1_u64..150, 5 => 150_u64..1100, 1 => 1100_u64..4000];
    let highest = option::weighted(0.4, prop_oneof![8 => 0_u64..3000, 1 => 0_u64..200_000]);
    let holes = vec((0.0..1.0, 0.0..0.4), 0..5);
    (pages, highest, holes, prop::bool::weighted(0.1), 0_u64..4).prop_map(
        |(pages, highest, holes, vram_tracking, xen_mapped_pages)| {
            let share = |share: f64| (share * pages as f64) as u64;
            let holes = holes.into_iter().map(|(from, length)| share(from)..share(from) + 1 + share(length));
            Shape {
                pages,
                holes: holes.collect(),
                highest_pfn: highest.map(|more| pages + more),
                special_pages: false,
                vram_tracking,
                xen_mapped_pages,
            }
        },
    )
}

/// A moment of a script: any, up to so late that most saves are over.
pub(crate) fn moments() -> impl Strategy<Value = When> {
    prop_oneof![
        4 => (0_u64..6).prop_map(When::BeforeClean),
        1 => (0_u64..8).prop_map(When::BeforePeek),
        2 => (0_u64..12).prop_map(When::BeforeTypes),
        2 => (0_u64..12).prop_map(When::BeforeMap),
        2 => (0_u64..12).prop_map(When::AfterMap),
        2 => Just(When::AtSuspend),
    ]
}

/// A deed of the guest, without its place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    Write,
    BalloonOut,
    BalloonIn,
}

/// What the guest does in one go: the same to a run of pages, which begins at this share of the p2m.
#[derive(Clone, Debug)]
pub(crate) struct Burst {
    pub(crate) when: When,
    pub(crate) deed: Deed,
    pub(crate) first: f64,
    pub(crate) count: u64,
}

/// Anything that the guest may do at any moment.
pub(crate) fn bursts() -> impl Strategy<Value = Vec<Burst>> {
    let deed = prop_oneof![4 => Just(Deed::Write), 1 => Just(Deed::BalloonOut), 1 => Just(Deed::BalloonIn)];
    let count = prop_oneof![3 => 1_u64..4, 2 => select(vec![1, 49, 50, 51, 64, 1024]), 1 => 1_u64..600];
    let burst = (moments(), deed, 0.0..1.0, count);
    vec(burst.prop_map(|(when, deed, first, count)| Burst { when, deed, first, count }), 0..16)
}

impl Burst {
    /// Returns the deeds, in a domain whose p2m is so long.
    pub(crate) fn steps(&self, p2m_size: u64) -> impl Iterator<Item = (When, Action)> + use<> {
        let action = match self.deed {
            Deed::Write => Action::Write,
            Deed::BalloonOut => Action::BalloonOut,
            Deed::BalloonIn => Action::BalloonIn,
        };
        let (when, first) = (self.when, (self.first * p2m_size as f64) as u64);
        (first..p2m_size.min(first + self.count)).map(move |pfn| (when, action(Pfn(pfn))))
    }
}

/// Has the guest act as these bursts say. The p2m does not grow by it: they stay within.
pub(crate) fn play(domain: &SimDomain, p2m_size: u64, bursts: &[Burst]) {
    let script = bursts.iter().flat_map(|burst| burst.steps(p2m_size)).collect();
    domain.set_workload(Workload::Scripted(script)).unwrap();
}

/// Faults that a save survives, or that end it with [`xenmig_engine::SaveError::Map`]; the pfns as shares of the p2m.
pub(crate) fn faults() -> impl Strategy<Value = Vec<(f64, Fault)>> {
    let at = Pfn(0);
    let busy = |verb| (0_u64..4).prop_map(move |nth| Fault::Errno { verb, nth, errno: libc_errno::EBUSY });
    let fault = prop_oneof![
        4 => Just(Fault::VanishBeforeMap { pfn: at }),
        1 => Just(Fault::PageMapErrno { pfn: at, errno: libc_errno::ENOMEM }),
        1 => busy(Verb::Clean),
        1 => busy(Verb::Peek),
    ];
    prop_oneof![3 => Just(Vec::new()), 1 => vec((0.0..1.0, fault), 1..4)]
}

/// Puts a fault at its pfn.
pub(crate) fn placed(share: f64, fault: Fault, p2m_size: u64) -> Fault {
    let pfn = Pfn((share * p2m_size as f64) as u64);
    match fault {
        Fault::VanishBeforeMap { .. } => Fault::VanishBeforeMap { pfn },
        Fault::PageMapErrno { errno, .. } => Fault::PageMapErrno { pfn, errno },
        other => other,
    }
}

/// Error numbers of Linux on x86.
pub(crate) mod libc_errno {
    pub(crate) const EPERM: i32 = 1;
    pub(crate) const EINTR: i32 = 4;
    pub(crate) const EIO: i32 = 5;
    pub(crate) const EAGAIN: i32 = 11;
    pub(crate) const ENOMEM: i32 = 12;
    pub(crate) const EACCES: i32 = 13;
    pub(crate) const EFAULT: i32 = 14;
    pub(crate) const EBUSY: i32 = 16;
    pub(crate) const EINVAL: i32 = 22;
    pub(crate) const ENOSPC: i32 = 28;
    pub(crate) const EPIPE: i32 = 32;
    pub(crate) const ECONNRESET: i32 = 104;
}
