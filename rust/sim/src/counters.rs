// SPDX-License-Identifier: GPL-3.0-or-later
//! What a simulated domain counts about the calls that were made on it: the tests' view of an engine.

use std::sync::atomic::{AtomicU64, Ordering};

/// A verb of [`Hypervisor`](xenmig_hypervisor::Hypervisor), or one of the two that belong to the toolstack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Verb {
    /// `version`. It names no domain, so every domain of the host counts it and can make it fail.
    Version,
    /// `domain_info`.
    DomainInfo,
    /// `nr_gpfns`.
    NrGpfns,
    /// `enable_logdirty`.
    EnableLogdirty,
    /// `disable_logdirty`.
    DisableLogdirty,
    /// `dirty_bitmap`.
    DirtyBitmap,
    /// `clean`.
    Clean,
    /// `peek`.
    Peek,
    /// `page_types`.
    PageTypes,
    /// `map`.
    Map,
    /// `hvm_context`.
    HvmContext,
    /// `set_hvm_context`.
    SetHvmContext,
    /// `hvm_param`.
    HvmParam,
    /// `set_hvm_param`.
    SetHvmParam,
    /// `tsc_info`.
    TscInfo,
    /// `set_tsc_info`.
    SetTscInfo,
    /// `cpu_policy`.
    CpuPolicy,
    /// `set_cpu_policy`.
    SetCpuPolicy,
    /// `populate`.
    Populate,
    /// `depopulate`.
    Depopulate,
    /// `seed_grants`.
    SeedGrants,
    /// `guest_width`. This and the next seven are verbs of [`PvVerbs`](xenmig_hypervisor::PvVerbs).
    GuestWidth,
    /// `set_guest_width`.
    SetGuestWidth,
    /// `vcpu_online`.
    VcpuOnline,
    /// `vcpu_state`.
    VcpuState,
    /// `set_vcpu_state`.
    SetVcpuState,
    /// `map_m2p`.
    MapM2p,
    /// `compat_m2p_frame`.
    CompatM2pFrame,
    /// `pin_tables`.
    PinTables,
    /// [`SimDomain::suspend`](super::SimDomain::suspend).
    Suspend,
    /// [`SimDomain::resume`](super::SimDomain::resume).
    Resume,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 31] = [
        Self::Version,
        Self::DomainInfo,
        Self::NrGpfns,
        Self::EnableLogdirty,
        Self::DisableLogdirty,
        Self::DirtyBitmap,
        Self::Clean,
        Self::Peek,
        Self::PageTypes,
        Self::Map,
        Self::HvmContext,
        Self::SetHvmContext,
        Self::HvmParam,
        Self::SetHvmParam,
        Self::TscInfo,
        Self::SetTscInfo,
        Self::CpuPolicy,
        Self::SetCpuPolicy,
        Self::Populate,
        Self::Depopulate,
        Self::SeedGrants,
        Self::GuestWidth,
        Self::SetGuestWidth,
        Self::VcpuOnline,
        Self::VcpuState,
        Self::SetVcpuState,
        Self::MapM2p,
        Self::CompatM2pFrame,
        Self::PinTables,
        Self::Suspend,
        Self::Resume,
    ];

    /// Returns the operation in Xen's words, as it stands in an error.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version => "xen_version",
            Self::DomainInfo => "getdomaininfo",
            Self::NrGpfns => "maximum_gpfn",
            Self::EnableLogdirty => "shadow_op ENABLE_LOGDIRTY",
            Self::DisableLogdirty => "shadow_op OFF",
            Self::DirtyBitmap => "allocation of a log-dirty bitmap",
            Self::Clean => "shadow_op CLEAN",
            Self::Peek => "shadow_op PEEK",
            Self::PageTypes => "getpageframeinfo3",
            Self::Map => "foreign mapping",
            Self::HvmContext => "gethvmcontext",
            Self::SetHvmContext => "sethvmcontext",
            Self::HvmParam => "get_param",
            Self::SetHvmParam => "set_param",
            Self::TscInfo => "gettscinfo",
            Self::SetTscInfo => "settscinfo",
            Self::CpuPolicy => "get_cpu_policy",
            Self::SetCpuPolicy => "set_cpu_policy",
            Self::Populate => "populate_physmap",
            Self::Depopulate => "decrease_reservation",
            Self::SeedGrants => "seeding the grant table",
            Self::GuestWidth => "get_address_size",
            Self::SetGuestWidth => "set_address_size",
            Self::VcpuOnline => "getvcpuinfo",
            Self::VcpuState => "getvcpucontext",
            Self::SetVcpuState => "setvcpucontext",
            Self::MapM2p => "machphys_mfn_list",
            Self::CompatM2pFrame => "machphys_compat_mfn_list",
            Self::PinTables => "mmuext_op pin",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
        }
    }
}

/// How often each verb was called.
#[derive(Debug, Default)]
pub(super) struct Calls([AtomicU64; Verb::ALL.len()]);

impl Calls {
    /// Counts a call and returns how many there were before it.
    pub(super) fn count(&self, verb: Verb) -> u64 {
        self.0.get(verb as usize).map_or(0, |calls| calls.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns how many calls there were.
    pub(super) fn get(&self, verb: Verb) -> u64 {
        self.0.get(verb as usize).map_or(0, |calls| calls.load(Ordering::Relaxed))
    }
}

/// Mappings that exist and existed.
#[derive(Debug, Default)]
pub(super) struct MapCounters {
    maps: AtomicU64,
    unmaps: AtomicU64,
    pages: AtomicU64,
    unmapped_pages: AtomicU64,
}

impl MapCounters {
    /// Counts a mapping of this number of pages.
    pub(super) fn mapped(&self, pages: u64) {
        self.maps.fetch_add(1, Ordering::Relaxed);
        self.pages.fetch_add(pages, Ordering::Relaxed);
    }

    /// Counts its end.
    pub(super) fn unmapped(&self, pages: u64) {
        self.unmaps.fetch_add(1, Ordering::Relaxed);
        self.unmapped_pages.fetch_add(pages, Ordering::Relaxed);
    }
}

/// A snapshot of a domain's counters. All count from the domain's creation unless they say *now*.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    calls: [u64; Verb::ALL.len()],
    /// Mappings made.
    pub maps: u64,
    /// Mappings dropped.
    pub unmaps: u64,
    /// Mappings that exist now.
    pub mappings_now: u64,
    /// Pages mapped, each mapping of a page counted.
    pub pages_mapped: u64,
    /// Pages that are mapped now, each mapping of a page counted.
    pub pages_mapped_now: u64,
    /// Time for which CLEAN and PEEK kept the vCPUs stopped, in nanoseconds.
    pub logdirty_pause_ns: u64,
    /// The part of it that CLEAN took, in nanoseconds.
    pub clean_time_ns: u64,
    /// Whether log-dirty mode is on now, whoever turned it on.
    pub logdirty_on: bool,
    /// Pages that `populate` gave.
    pub pages_populated: u64,
    /// Superpages that `populate` gave; their pages are in `pages_populated` too.
    pub superpages_populated: u64,
}

impl Counters {
    /// Returns how often a verb was called, failed calls included.
    #[must_use]
    pub fn calls(&self, verb: Verb) -> u64 {
        self.calls.get(verb as usize).copied().unwrap_or(0)
    }

    /// Takes what calls and mappings say; the rest is zero.
    pub(super) fn of(calls: &Calls, mappings: &MapCounters) -> Self {
        // What ended is read before what began, so that the difference is never negative.
        let unmaps = mappings.unmaps.load(Ordering::Acquire);
        let unmapped_pages = mappings.unmapped_pages.load(Ordering::Acquire);
        let maps = mappings.maps.load(Ordering::Acquire);
        let pages_mapped = mappings.pages.load(Ordering::Acquire);
        Self {
            calls: Verb::ALL.map(|verb| calls.get(verb)),
            maps,
            unmaps,
            mappings_now: maps.saturating_sub(unmaps),
            pages_mapped,
            pages_mapped_now: pages_mapped.saturating_sub(unmapped_pages),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_its_own_place() {
        for (place, verb) in Verb::ALL.into_iter().enumerate() {
            assert_eq!(verb as usize, place);
        }
    }
}
