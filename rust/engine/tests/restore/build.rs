// SPDX-License-Identifier: GPL-3.0-or-later
//! What the tests share: streams made by hand, a domain to restore them into, and the restore itself.

use std::{
    io::{Seek, Write},
    os::fd::AsRawFd,
    sync::Arc,
};

use xenmig_engine::Interrupt;
use xenmig_engine::restore::{
    RestoreCaller, RestoreError, RestoreFailure, RestoreOptions, RestoreReport, restore,
};
use xenmig_hypervisor::{Hypervisor, PageBuffer, Source};
use xenmig_sim::{DomainConfig, SimDomain, SimHost};
use xenmig_stream::{HvmParam, PageWord, encode};
use xenmig_types::{CpuPolicy, GuestKind, PAGE_SIZE, PageType, Pfn, TscInfo, XenVersion};

/// A stream under construction.
#[derive(Clone)]
pub(crate) struct Stream(pub(crate) Vec<u8>);

impl Stream {
    /// The headers alone.
    pub(crate) fn headers(kind: GuestKind) -> Self {
        let mut bytes = Vec::new();
        encode::headers(&mut bytes, kind, XenVersion { major: 4, minor: 16 });
        Self(bytes)
    }

    /// Headers and STATIC_DATA_END.
    pub(crate) fn new() -> Self {
        Self::headers(GuestKind::Hvm).with(encode::static_data_end)
    }

    /// [`Stream::headers`] of version 2.
    pub(crate) fn version_2() -> Self {
        let mut stream = Self::headers(GuestKind::Hvm);
        stream.0[15] = 2;
        stream
    }

    pub(crate) fn with(mut self, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        write(&mut self.0);
        self
    }

    /// A PAGE_DATA record: pfns with their types; a page with contents is filled with the third number.
    pub(crate) fn batch(mut self, pages: &[(u64, PageType, u8)]) -> Self {
        let words: Vec<_> = pages.iter().map(|(pfn, kind, _)| PageWord::new(Pfn(*pfn), *kind)).collect();
        encode::page_data(&mut self.0, &words).unwrap();
        for (_, _, fill) in pages.iter().filter(|(_, kind, _)| kind.has_data()) {
            self.0.extend([*fill; PAGE_SIZE]);
        }
        self
    }

    /// A PAGE_DATA record: pfns with their types and contents.
    pub(crate) fn contents(mut self, pages: &[(u64, PageType, PageBuffer)]) -> Self {
        let words: Vec<_> = pages.iter().map(|(pfn, kind, _)| PageWord::new(Pfn(*pfn), *kind)).collect();
        encode::page_data(&mut self.0, &words).unwrap();
        for (_, _, page) in pages.iter().filter(|(_, kind, _)| kind.has_data()) {
            self.0.extend(page);
        }
        self
    }

    /// A PAGE_DATA record of ordinary pages, each filled with the lowest byte of its pfn.
    pub(crate) fn pages(self, pfns: impl IntoIterator<Item = u64>) -> Self {
        let pages: Vec<_> = pfns.into_iter().map(|pfn| (pfn, PageType::Notab, pfn as u8)).collect();
        self.batch(&pages)
    }

    /// An HVM context, and nothing else of the state.
    pub(crate) fn context(self) -> Self {
        self.with(|out| encode::hvm_context(out, &CONTEXT).unwrap())
    }

    pub(crate) fn params(self, params: &[(u32, u64)]) -> Self {
        let params: Vec<_> =
            params.iter().map(|(index, value)| HvmParam { index: *index, value: *value }).collect();
        self.with(|out| encode::hvm_params(out, &params).unwrap())
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.with(encode::end).0
    }

    /// A stream with all records that a guest has, in libxc's order.
    pub(crate) fn typical() -> Vec<u8> {
        Self::headers(GuestKind::Hvm)
            .with(|out| encode::cpu_policy(out, &policy()).unwrap())
            .with(encode::static_data_end)
            .pages(512..1024)
            .pages([3, 5])
            .batch(&[(3, PageType::Xtab, 0), (5, PageType::Notab, 9), (7, PageType::Xalloc, 0)])
            .with(|out| encode::tsc_info(out, &TSC))
            .context()
            .params(&[(1, 0xfeffc), (17, 0xfeffb)])
            .end()
    }
}

pub(crate) const CONTEXT: [u8; 20] = *b"context of one guest";
pub(crate) const TSC: TscInfo = TscInfo { mode: 1, khz: 3_000_000, elapsed_ns: 77, incarnation: 4 };

pub(crate) fn policy() -> CpuPolicy {
    CpuPolicy { cpuid: vec![1; 48], msrs: vec![2; 16] }
}

/// A host and an empty domain of 8 MiB on it.
pub(crate) fn target() -> (SimHost, Arc<SimDomain>) {
    target_of(DomainConfig { memory_bytes: 8 << 20, ..DomainConfig::default() })
}

/// A host and an empty domain to restore one of this configuration into.
pub(crate) fn target_of(config: DomainConfig) -> (SimHost, Arc<SimDomain>) {
    let host = SimHost::new();
    let domain = host.create(DomainConfig { populated: false, ..config }).unwrap();
    (host, domain)
}

/// A caller that never interferes.
pub(crate) struct Quiet;

impl Interrupt for Quiet {}

impl RestoreCaller for Quiet {}

/// Restores a stream out of a file.
pub(crate) fn restore_with(
    host: &SimHost,
    domain: &SimDomain,
    bytes: &[u8],
    options: &RestoreOptions,
    caller: &mut dyn RestoreCaller,
) -> Result<RestoreReport, RestoreFailure> {
    restore_on(host, domain, bytes, options, caller)
}

/// Does the same on a host whose pages are those of this domain.
pub(crate) fn restore_on(
    host: &dyn Hypervisor,
    domain: &SimDomain,
    bytes: &[u8],
    options: &RestoreOptions,
    caller: &mut dyn RestoreCaller,
) -> Result<RestoreReport, RestoreFailure> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    let mut source = Source::new(file.as_raw_fd()).unwrap();
    let result = restore(host, domain.domid(), &mut source, options, caller);
    let counters = domain.counters();
    assert_eq!((counters.mappings_now, counters.pages_mapped_now), (0, 0), "a mapping was left");
    if let Err(failure) = &result {
        assert_eq!((failure.domid, failure.bytes_read), (domain.domid(), source.read()));
    }
    result
}

/// Restores a stream with the default options.
pub(crate) fn restore_into(
    host: &SimHost,
    domain: &SimDomain,
    bytes: &[u8],
) -> Result<RestoreReport, RestoreFailure> {
    restore_with(host, domain, bytes, &RestoreOptions::default(), &mut Quiet)
}

/// Restores a stream into a new domain, which must fail.
pub(crate) fn error_of(bytes: &[u8]) -> RestoreError {
    let (host, domain) = target();
    restore_into(&host, &domain, bytes).unwrap_err().error
}

/// Returns what a page is filled with; it must be one byte all over.
pub(crate) fn fill_of(domain: &SimDomain, pfn: u64) -> u8 {
    let mut page: PageBuffer = [0; PAGE_SIZE];
    domain.read_page(Pfn(pfn), &mut page).unwrap();
    assert_eq!(page, [page[0]; PAGE_SIZE], "pfn {pfn:#x}");
    page[0]
}
