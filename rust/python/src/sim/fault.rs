// SPDX-License-Identifier: GPL-3.0-or-later
//! Faults and verbs by name: what `SimDomain.inject` takes.

use pyo3::{exceptions::PyValueError, prelude::*};
use xenmig_sim::{Fault, Verb};
use xenmig_types::Pfn;

use crate::args::{Count, choice, quoted};

/// The verbs' names in Python: those of the Rust methods.
pub(super) const VERBS: [(&str, Verb); 31] = [
    ("version", Verb::Version),
    ("domain_info", Verb::DomainInfo),
    ("nr_gpfns", Verb::NrGpfns),
    ("enable_logdirty", Verb::EnableLogdirty),
    ("disable_logdirty", Verb::DisableLogdirty),
    ("dirty_bitmap", Verb::DirtyBitmap),
    ("clean", Verb::Clean),
    ("peek", Verb::Peek),
    ("page_types", Verb::PageTypes),
    ("map", Verb::Map),
    ("hvm_context", Verb::HvmContext),
    ("set_hvm_context", Verb::SetHvmContext),
    ("hvm_param", Verb::HvmParam),
    ("set_hvm_param", Verb::SetHvmParam),
    ("tsc_info", Verb::TscInfo),
    ("set_tsc_info", Verb::SetTscInfo),
    ("cpu_policy", Verb::CpuPolicy),
    ("set_cpu_policy", Verb::SetCpuPolicy),
    ("populate", Verb::Populate),
    ("depopulate", Verb::Depopulate),
    ("seed_grants", Verb::SeedGrants),
    ("guest_width", Verb::GuestWidth),
    ("set_guest_width", Verb::SetGuestWidth),
    ("vcpu_online", Verb::VcpuOnline),
    ("vcpu_state", Verb::VcpuState),
    ("set_vcpu_state", Verb::SetVcpuState),
    ("map_m2p", Verb::MapM2p),
    ("compat_m2p_frame", Verb::CompatM2pFrame),
    ("pin_tables", Verb::PinTables),
    ("suspend", Verb::Suspend),
    ("resume", Verb::Resume),
];

/// The kinds of faults, and the keywords that each needs.
const KINDS: [(&str, &[&str]); 4] = [
    ("errno", &["verb", "errno"]),
    ("map_cost", &["ns_per_page"]),
    ("vanish", &["pfn"]),
    ("map_errno", &["pfn", "errno"]),
];

/// Linux's `MAX_ERRNO`: no error number is greater.
const MAX_ERRNO: u64 = 4095;
/// One second: a mapping that costs more is a mistake.
const MAX_NS_PER_PAGE: u64 = 1_000_000_000;

/// The keywords of one `inject`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) verb: Option<&'a str>,
    pub(super) nth: u64,
    pub(super) errno: Option<Count>,
    pub(super) pfn: Option<Count>,
    pub(super) ns_per_page: Option<Count>,
}

impl Request<'_> {
    /// Makes the fault of a kind. It needs all its keywords and takes no others.
    pub(super) fn read(&self, kind: &str) -> PyResult<Fault> {
        self.fault(kind).map_err(PyValueError::new_err)
    }

    fn fault(&self, kind: &str) -> Result<Fault, String> {
        let needed = choice("fault", kind, &KINDS)?;
        let given = [
            ("verb", self.verb.is_some()),
            ("errno", self.errno.is_some()),
            ("pfn", self.pfn.is_some()),
            ("ns_per_page", self.ns_per_page.is_some()),
        ];
        if given.iter().any(|(keyword, given)| *given != needed.contains(keyword)) {
            return Err(format!("fault '{kind}' needs exactly {}", quoted(needed.iter().copied())));
        }
        let errno = self.errno.map(number).transpose()?;
        if let Some(Count(ns)) = self.ns_per_page.filter(|ns| ns.0 > MAX_NS_PER_PAGE) {
            return Err(format!("ns_per_page is {ns}: give 0 to {MAX_NS_PER_PAGE}"));
        }
        match (self.verb, errno, self.pfn, self.ns_per_page) {
            (Some(verb), Some(errno), None, None) => {
                Ok(Fault::Errno { verb: choice("verb", verb, &VERBS)?, nth: self.nth, errno })
            }
            (None, None, None, Some(ns)) => Ok(Fault::MapCost { ns_per_page: ns.0 }),
            (None, None, Some(pfn), None) => Ok(Fault::VanishBeforeMap { pfn: Pfn(pfn.0) }),
            (None, Some(errno), Some(pfn), None) => Ok(Fault::PageMapErrno { pfn: Pfn(pfn.0), errno }),
            _ => Err(format!("fault '{kind}' needs other keywords")),
        }
    }
}

/// Takes an error number: no zero, which is none.
fn number(Count(errno): Count) -> Result<i32, String> {
    match i32::try_from(errno) {
        Ok(number) if (1..=MAX_ERRNO).contains(&errno) => Ok(number),
        _ => Err(format!("errno is {errno}: give 1 to {MAX_ERRNO}")),
    }
}
