// SPDX-License-Identifier: GPL-3.0-or-later
//! What the tests of PV guests share: guests of all kinds, and a toolstack's view of them.

use std::sync::Arc;

use xenmig_hypervisor::{Access, Hypervisor, PvVerbs};
use xenmig_sim::{DomainConfig, P2mForm, PvConfig, SimDomain, SimHost};
use xenmig_types::{Gfn, PAGE_SIZE, PageType, VcpuPart, pv::GuestWidth};

use super::pages;

pub(crate) const LIST: P2mForm = P2mForm::List { first_slot: 0 };

/// A PV guest with all that is odd: vCPUs that are off, holes, a p2m that goes on after the last page.
pub(crate) fn odd(width: GuestWidth, p2m: P2mForm) -> DomainConfig {
    let pv = PvConfig { width, p2m, spare_pfns: 3000, offline_vcpus: vec![2], ..PvConfig::default() };
    DomainConfig {
        vcpus: 5,
        holes: vec![5..9, 300..301],
        highest_pfn: Some(5000),
        seed: 7,
        pv: Some(pv),
        ..pages(700)
    }
}

pub(crate) fn plain(width: GuestWidth, p2m: P2mForm) -> DomainConfig {
    DomainConfig { pv: Some(PvConfig { width, p2m, ..PvConfig::default() }), ..pages(512) }
}

pub(crate) fn all() -> impl Iterator<Item = DomainConfig> {
    [GuestWidth::Bits32, GuestWidth::Bits64].into_iter().flat_map(|width| {
        let forms = [LIST, P2mForm::List { first_slot: 9 }, P2mForm::Tree];
        forms.into_iter().flat_map(move |form| [odd(width, form), plain(width, form)])
    })
}

pub(crate) fn guest(config: DomainConfig) -> (SimHost, Arc<SimDomain>) {
    let host = SimHost::new();
    let domain = host.create(config).unwrap();
    (host, domain)
}

pub(crate) fn types(host: &SimHost, domain: &SimDomain, frames: &[Gfn]) -> Vec<PageType> {
    let mut types = vec![PageType::Broken; frames.len()];
    host.page_types(domain.domid(), frames, &mut types).unwrap();
    types
}

/// Reads the shared info page through a foreign mapping.
pub(crate) fn shared_info_page(host: &SimHost, domain: &SimDomain) -> [u8; PAGE_SIZE] {
    let frame = Gfn(host.domain_info(domain.domid()).unwrap().shared_info_frame);
    let mut contents = [0; PAGE_SIZE];
    assert!(host.map(domain.domid(), &[frame], Access::Read).unwrap().copy_out(0, &mut contents));
    contents
}

pub(crate) fn context(host: &SimHost, domain: &SimDomain, vcpu: u32) -> Vec<u8> {
    host.vcpu_state(domain.domid(), vcpu, VcpuPart::Basic).unwrap()
}

/// Changes a byte of the shared info page.
pub(crate) fn poke_shared_info(host: &SimHost, domain: &SimDomain, at: usize) {
    let mut contents = shared_info_page(host, domain);
    contents[at] ^= 1;
    let frame = Gfn(host.domain_info(domain.domid()).unwrap().shared_info_frame);
    assert!(host.map(domain.domid(), &[frame], Access::Write).unwrap().copy_in(0, &contents));
}
