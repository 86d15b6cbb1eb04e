// SPDX-License-Identifier: GPL-3.0-or-later
//! The real Xen, from its control domain.
//!
//! ```text
//! host.rs ──> control.rs ─────────────────────────────> libxenctrl (one version's) ──┐
//!    │                                                                               v
//!    ├──> logdirty.rs page_types.rs cpu_policy.rs domain_info.rs                     │
//!    │    address_size.rs vcpu.rs resume.rs                                          │
//!    │                  └──> domctl.rs ──> call.rs ───> libxencall ──────────────> privcmd ──> Xen
//!    │    m2p.rs mmuext.rs ───────────────────^                                      ^
//!    └──> mapping.rs grants.rs m2p.rs ────────────────> libxenforeignmemory ─────────┘
//! ```
//!
//! The verbs that all guests need are in `host.rs`, those of PV guests in `pv.rs`.
//!
//! Types, constants and prototypes come from the crate `xenctrl-sys`, that is from the headers of the machine this
//! was built on; the functions are looked up when a host is opened. So a build with this crate loads anywhere, and
//! [`XenHost::open`] says what a machine lacks. `interface.rs` says which Xen a build is for.
//!
//! Two ways lead to a hypercall. libxenctrl's functions are used where they lose nothing. These things are asked through
//! libxencall, whose interface is stable, most of them by domctl:
//! * log-dirty, because `xc_logdirty_control` takes a structure that its header calls opaque, when all that Xen needs
//!   is the bitmap's address;
//! * page types, because libxenctrl maps and unmaps a bounce buffer for each batch;
//! * the CPU policy, because its functions are in libxenguest, which must not be loaded for so little;
//! * domain info, because `xc_domain_getinfo` became `xc_domain_getinfo_single` in 4.18; the domctl stayed the same;
//! * what only PV guests need: libxenctrl has no functions for most of a vCPU's state, and would copy the lists of page
//!   tables and of the machine-to-phys table's extents once more.
//!
//! They need no lock either: libxencall may be used by many threads, so a CLEAN of one domain, which takes long, does
//! not hold up another domain's save.

mod address_size;
mod buffer;
mod call;
mod claim;
mod control;
mod cpu_policy;
mod domain_info;
mod domctl;
mod error;
mod grants;
mod host;
mod interface;
mod libraries;
mod logdirty;
mod m2p;
mod mapping;
mod mmuext;
mod page_types;
mod pv;
mod pv_layout;
mod resume;
#[cfg(test)]
mod tests;
mod vcpu;

pub use claim::RUN_DIRECTORY_VARIABLE;
pub use error::XenOpenError;
pub use host::XenHost;
