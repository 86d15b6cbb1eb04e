// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests of all kinds, and the way from one host to another.

use std::{
    io::{Seek, SeekFrom},
    os::fd::AsRawFd,
    sync::Arc,
};

use xenmig_engine::{
    Interrupt, SaveOptions,
    restore::{RestoreCaller, RestoreOptions, RestoreReport, restore},
};
use xenmig_hypervisor::Source;
use xenmig_sim::{DomainConfig, P2mForm, PteAt, PvConfig, Script, SimDomain, SimHost, Workload};
use xenmig_types::{PAGE_SIZE_U64, pv::GuestWidth};

use crate::support::{Saved, save_to_file, toolstack::Toolstack};

pub(crate) const WIDTHS: [GuestWidth; 2] = [GuestWidth::Bits32, GuestWidth::Bits64];
pub(crate) const FORMS: [P2mForm; 3] =
    [P2mForm::List { first_slot: 0 }, P2mForm::List { first_slot: 9 }, P2mForm::Tree];

/// A guest of this number of pages with nothing odd about it.
pub(crate) fn plain(width: GuestWidth, p2m: P2mForm, pages: u64) -> DomainConfig {
    DomainConfig {
        memory_bytes: pages * PAGE_SIZE_U64,
        xen_mapped_pages: 0,
        pv: Some(PvConfig { width, p2m, ..PvConfig::default() }),
        ..DomainConfig::default()
    }
}

/// A guest with vCPUs that are off, holes, and a p2m that goes on far behind the last page.
pub(crate) fn odd(width: GuestWidth, p2m: P2mForm) -> DomainConfig {
    let pv = PvConfig { width, p2m, spare_pfns: 3000, offline_vcpus: vec![2], ..PvConfig::default() };
    DomainConfig {
        vcpus: 5,
        holes: vec![5..9, 300..301],
        highest_pfn: Some(5000),
        seed: 7,
        xen_mapped_pages: 2,
        pv: Some(pv),
        ..plain(width, p2m, 700)
    }
}

/// A guest with a page so far up that one table does not hold the entries for all pages of its p2m.
pub(crate) fn tall(width: GuestWidth, p2m: P2mForm) -> DomainConfig {
    DomainConfig { highest_pfn: Some(1_200_000), ..plain(width, p2m, 512) }
}

pub(crate) fn all() -> impl Iterator<Item = DomainConfig> {
    let forms = |width| {
        FORMS.into_iter().flat_map(move |form| [plain(width, form, 512), odd(width, form), tall(width, form)])
    };
    WIDTHS.into_iter().flat_map(forms)
}

/// Makes a guest that does what a script says.
pub(crate) fn guest(host: &SimHost, config: &DomainConfig, script: Script) -> Arc<SimDomain> {
    let domain =
        host.create(DomainConfig { workload: Workload::Scripted(script), ..config.clone() }).unwrap();
    domain.fill(7);
    domain
}

/// Returns where the guest's kernel maps a page of data. Torn, an entry in an odd slot leads to a frame of a neighbour's, if
/// there is one, and any other to a frame of Xen's.
pub(crate) fn pte(domain: &SimDomain, odd: bool) -> PteAt {
    let data = domain.pv_map().unwrap().data;
    let mut ptes = data.into_iter().filter_map(|page| domain.pte_of(page));
    ptes.find(|at| at.slot.is_multiple_of(2) != odd).unwrap()
}

/// Saves a guest as libxc would.
pub(crate) fn saved(host: &SimHost, domain: &SimDomain, live: bool) -> Saved {
    save_to_file(host, domain, &options(live), None, &mut Toolstack::new(domain))
}

pub(crate) fn options(live: bool) -> SaveOptions {
    SaveOptions { live, ..SaveOptions::default() }
}

/// A receiver that waits for nothing.
struct Receiver;

impl Interrupt for Receiver {}

impl RestoreCaller for Receiver {}

/// Restores a stream on another host, into a domain that was made as the first was.
pub(crate) fn restored(config: &DomainConfig, saved: &mut Saved) -> (SimHost, Arc<SimDomain>, RestoreReport) {
    let host = SimHost::new();
    let empty = DomainConfig { populated: false, workload: Workload::Idle, ..config.clone() };
    let copy = host.create(empty).unwrap();
    saved.file.seek(SeekFrom::Start(0)).unwrap();
    let mut source = Source::new(saved.file.as_raw_fd()).unwrap();
    let report =
        restore(&host, copy.domid(), &mut source, &RestoreOptions::default(), &mut Receiver).unwrap();
    assert_eq!(report.bytes_received, saved.written);
    let counters = copy.counters();
    assert_eq!((counters.mappings_now, counters.pages_mapped_now), (0, 0));
    (host, copy, report)
}

/// Checks that a copy is the suspended guest, and that both can go on.
pub(crate) fn assert_same_guest(domain: &SimDomain, copy: &SimDomain) {
    assert_eq!(domain.differing_pages(copy, 5), []);
    assert_eq!(domain.fingerprint(), copy.fingerprint(), "the state differs");
    copy.check_pv().unwrap();
    for one in [domain, copy] {
        one.resume().unwrap();
        one.check_pv().unwrap();
    }
}
