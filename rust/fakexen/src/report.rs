// SPDX-License-Identifier: GPL-3.0-or-later
//! What the control interface tells about domains and calls, as JSON.

use std::{io, os::fd::AsRawFd, sync::atomic::Ordering};

use serde_json::{Map, Value, json};
use xenmig_hypervisor::{Hypervisor, HypervisorError, PvVerbs};
use xenmig_types::{DomainState, Gfn, PAGE_SIZE, Pfn};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::{
    areas, devices,
    failure::Failure,
    grant_table::GRANT_ENTRIES,
    host::{self, Domain},
    kinds::Kind,
    layout::GrantEntry,
    tally,
};

/// `HVM_NR_PARAMS`.
const HVM_PARAMS: u32 = 39;

/// Tells about a domain.
pub(crate) fn state(domain: &Domain) -> Result<Value, Failure> {
    let (host, domid, sim) = (host::sim(), domain.domid, &domain.sim);
    let (state, reason) = match sim.state() {
        DomainState::Running => ("running", None),
        DomainState::Paused => ("paused", None),
        DomainState::Shutdown { reason } => ("shutdown", Some(reason)),
        DomainState::Dying => ("dying", None),
    };
    let mut params = Map::new();
    let is_pv = domain.is_pv();
    for index in 0..if is_pv { 0 } else { HVM_PARAMS } {
        match host.hvm_param(domid, index)? {
            0 => {}
            value => drop(params.insert(index.to_string(), value.into())),
        }
    }
    let tsc = host.tsc_info(domid)?;
    let context = if is_pv { Vec::new() } else { host.hvm_context(domid)? };
    let policy = host.cpu_policy(domid)?;
    let (logdirty_on, dirty) = sim.raw().logdirty();
    let grants: [GrantEntry; GRANT_ENTRIES] = domain.grants.entries();
    Ok(json!({
        "domid": domid.get(),
        "state": state,
        "shutdown_reason": reason,
        "memory_pages": sim.memory_pages(),
        "populated_pages": sim.populated_pages(),
        "p2m_pages": sim.raw().p2m_pages(),
        "writes": sim.writes(),
        "logdirty_on": logdirty_on,
        "dirty_pages": dirty.dirty_count,
        "xen_mapped": sim.xen_mapped().iter().map(|pfn| pfn.0).collect::<Vec<_>>(),
        "memory": memory(domain),
        "hvm_context_bytes": context.len(),
        "hvm_context": digest(&context),
        "hvm_params": params,
        "tsc": {
            "mode": tsc.mode, "khz": tsc.khz, "elapsed_ns": tsc.elapsed_ns, "incarnation": tsc.incarnation,
        },
        "cpuid": digest(&policy.cpuid),
        "msrs": digest(&policy.msrs),
        "pv": if is_pv { Some(pv(domain)?) } else { None },
        "shared_info": if is_pv { Some(shared_info(domain)?) } else { None },
        "grants": grants.map(|GrantEntry { flags, domid, frame }| json!([flags, domid, frame])),
    }))
}

/// Tells what there is of a PV guest beside: a fingerprint that says the same of a guest that was migrated, and what is
/// wrong with it, if anything is.
fn pv(domain: &Domain) -> Result<Value, Failure> {
    let (host, sim) = (host::sim(), &domain.sim);
    let online: Vec<bool> = (0..sim.vcpus())
        .map(|vcpu| host.vcpu_online(domain.domid, vcpu))
        .collect::<Result<_, HypervisorError>>()?;
    Ok(json!({
        "width_bytes": host.guest_width(domain.domid)?,
        "online": online,
        "fingerprint": sim.fingerprint().to_string(),
        "unsound": sim.check_pv().err().map(|error| error.to_string()),
    }))
}

/// Returns a digest of a PV guest's shared info page.
fn shared_info(domain: &Domain) -> Result<String, Failure> {
    let frame = Gfn(host::sim().domain_info(domain.domid)?.shared_info_frame);
    let place = domain.sim.raw().place(frame, false).and_then(|page| i64::try_from(page).ok());
    let place = place.ok_or_else(|| Failure::invalid("there is no shared info page"))?;
    let mut page = [0_u8; PAGE_SIZE];
    let file = domain.sim.raw().memory().as_raw_fd();
    // SAFETY: the buffer may be written.
    let read = unsafe { libc::pread(file, page.as_mut_ptr().cast(), PAGE_SIZE, place * PAGE_SIZE as i64) };
    if read == PAGE_SIZE as isize {
        Ok(digest(&page))
    } else {
        Err(Failure::system("reading the shared info page", &io::Error::last_os_error()))
    }
}

/// Tells what a PV guest uses its pages for; nothing of one that has not run.
pub(crate) fn pv_map(domain: &Domain) -> Result<Value, Failure> {
    let map = domain.sim.pv_map().ok_or_else(|| Failure::invalid("this is no PV guest that has run"))?;
    let pfns = |pages: &[Pfn]| pages.iter().map(|pfn| pfn.0).collect::<Vec<_>>();
    Ok(json!({
        "start_info": map.start_info.0,
        "store": map.store.0,
        "console": map.console.0,
        "p2m_pages": pfns(&map.p2m_pages),
        "gdts": pfns(&map.gdts),
        "tables": map.tables.iter().map(|(pfn, kind)| (pfn.0, kind.number())).collect::<Vec<_>>(),
        "data": pfns(&map.data),
    }))
}

fn digest(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

/// Returns a digest of which pages there are and what they hold. It says something only while the domain does not run.
fn memory(domain: &Domain) -> String {
    let mut hash = Xxh3::new();
    let mut page = [0; PAGE_SIZE];
    for pfn in domain.sim.raw().runs().flatten() {
        // A page that is given back at this moment is none.
        if domain.sim.read_page(Pfn(pfn), &mut page).is_ok() {
            hash.update(&pfn.to_le_bytes());
            hash.update(&page);
        }
    }
    format!("{:032x}", hash.digest128())
}

/// Tells about calls, of a domain or of all, and about what is mapped now.
pub(crate) fn counters(domain: Option<&Domain>) -> Value {
    let tally = domain.map_or(&tally::HOST, |domain| &domain.tally);
    let mut calls = Map::new();
    for kind in Kind::ALL {
        match tally.get(*kind) {
            0 => {}
            count => drop(calls.insert(kind.name().to_owned(), count.into())),
        }
    }
    let mut report = json!({ "calls": calls });
    let now = areas::existing(domain.map(|domain| domain.domid.get()));
    let sums = &areas::SUMS;
    let both = [
        ("areas_now", now.areas_now),
        ("mappings_now", now.mappings_now),
        ("pages_mapped_now", now.pages_mapped_now),
    ];
    let host_only = [
        ("buffers_now", now.buffers_now),
        ("buffer_pages_now", now.buffer_pages_now),
        ("devices_open_now", devices::open_now() as u64),
        ("unsafe_pointers", tally::UNSAFE_POINTERS.load(Ordering::Relaxed)),
        ("maps", sums.maps.load(Ordering::Relaxed)),
        ("unmaps", sums.unmaps.load(Ordering::Relaxed)),
        ("pages_mapped", sums.pages_mapped.load(Ordering::Relaxed)),
    ];
    let shown = both.into_iter().chain(host_only.into_iter().filter(|_| domain.is_none()));
    if let Some(report) = report.as_object_mut() {
        report.extend(shown.map(|(name, number)| (name.to_owned(), number.into())));
    }
    report
}
