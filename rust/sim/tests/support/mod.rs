// SPDX-License-Identifier: GPL-3.0-or-later
//! What the tests of the simulated host share: small domains, and a copy of memory that is kept up to date the way a
//! migration does it.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod pv;

use std::{ops::Range, sync::Arc};

use proptest::test_runner::{Config as ProptestConfig, FileFailurePersistence};
use xenmig_hypervisor::{Access, DirtyBitmap, Hypervisor, HypervisorError, PageBuffer};
use xenmig_sim::{DomainConfig, SimDomain, SimHost};
use xenmig_types::{Gfn, PAGE_SIZE, PAGE_SIZE_U64, Pfn};

/// Runs this many cases. Inputs that fail are kept beside the test, in `NAME.regressions`: commit that file.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    let kept = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(kept)), ..ProptestConfig::default() }
}

/// The configuration of a domain of this size.
pub(crate) fn pages(pages: u64) -> DomainConfig {
    DomainConfig { memory_bytes: pages * PAGE_SIZE_U64, ..DomainConfig::default() }
}

/// Returns one hole.
pub(crate) fn hole(pfns: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(pfns).collect()
}

/// Makes a domain on its own host.
pub(crate) fn domain(config: DomainConfig) -> (SimHost, Arc<SimDomain>) {
    let host = SimHost::new();
    let domain = host.create(config).unwrap();
    (host, domain)
}

/// Returns the errno of a call that must fail.
pub(crate) fn errno<T>(result: Result<T, HypervisorError>) -> i32 {
    result.map(drop).unwrap_err().errno().unwrap().0
}

/// Returns the pfns that are set in a bitmap.
pub(crate) fn set_bits(bitmap: &DirtyBitmap) -> Vec<u64> {
    (0..bitmap.pages()).filter(|pfn| bitmap.words()[(pfn / 64) as usize] >> (pfn % 64) & 1 == 1).collect()
}

/// Returns a bitmap of the right size for a domain.
pub(crate) fn bitmap(host: &SimHost, domain: &SimDomain) -> DirtyBitmap {
    host.dirty_bitmap(domain.domid(), host.nr_gpfns(domain.domid()).unwrap()).unwrap()
}

/// Returns a page of a domain; `None` if there is none.
pub(crate) fn page(domain: &SimDomain, pfn: u64) -> Option<PageBuffer> {
    let mut page = [0; PAGE_SIZE];
    domain.read_page(Pfn(pfn), &mut page).ok().map(|()| page)
}

/// A copy of a domain's memory, as a receiver has it.
#[derive(Debug)]
pub(crate) struct Copy(Vec<Option<PageBuffer>>);

impl Copy {
    pub(crate) fn new(p2m_pages: u64) -> Self {
        Self(vec![None; p2m_pages as usize])
    }

    /// Copies these pages again, through foreign mappings.
    pub(crate) fn update(&mut self, host: &SimHost, domain: &SimDomain, pfns: &[u64]) {
        for batch in pfns.chunks(1024) {
            let gfns: Vec<Gfn> = batch.iter().copied().map(Gfn).collect();
            let mapped = host.map(domain.domid(), &gfns, Access::Read).unwrap();
            for (at, pfn) in batch.iter().enumerate() {
                let mut page = [0; PAGE_SIZE];
                self.0[*pfn as usize] = mapped.copy_out(at, &mut page).then_some(page);
            }
        }
    }

    /// Returns the pfns where the copy is not what the domain has.
    pub(crate) fn stale(&self, domain: &SimDomain) -> Vec<u64> {
        (0..self.0.len() as u64).filter(|pfn| self.0[*pfn as usize] != page(domain, *pfn)).collect()
    }
}
