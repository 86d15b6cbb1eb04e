// SPDX-License-Identifier: GPL-3.0-or-later
//! The simulated host: HVM, PVH and PV domains in the memory of this process, for people and tests without a Xen
//! host.
//!
//! ```text
//! DomainConfig ─> SimHost ─> SimDomain ─┬─ Guest: memory (memfd) · log-dirty bitmap · gate <─ vCPU threads
//!                  │ │                  │    └─ PvDomain: mfns, page types, vCPUs · its kernel, in that memory
//!                  │ └─ Machine: m2p    └─ blobs · script · faults · counters
//!                  └─ verbs: impl Hypervisor
//! ```
//!
//! The vCPUs are threads that really write; a CLEAN, a PEEK, a suspension or ballooning finds each of them between
//! two writes. A test can also play the guest itself ([`Script`], [`SimDomain::perform`]), inject faults ([`Fault`]) and
//! count calls ([`Counters`]). The host does not model what a hypercall costs, apart from what [`Fault::MapCost`] adds. Of a
//! grant table it keeps the two reserved entries that a toolstack writes ([`SimDomain::grants`]); its guests grant nothing.
//!
//! A host made by [`SimHost::with_clock`] runs on a given clock, without threads: the same calls then give the same
//! results.
//!
//! A PV guest ([`PvConfig`]) has page tables, a p2m and its own start info page, in frames that lie anywhere in
//! the host's machine memory; [`SimDomain::check_pv`] says whether they hang together.
//!
//! ```
//! use xenmig_sim::{DomainConfig, PvConfig, SimHost, Workload};
//!
//! let host = SimHost::new();
//! let workload = Workload::Uniform { pages_per_s: 10_000.0 };
//! let domain = host.create(DomainConfig { workload, ..DomainConfig::default() })?;
//! domain.fill(1);
//! domain.suspend()?;
//! assert_eq!(domain.fingerprint(), domain.fingerprint());
//! host.destroy(domain.domid())?;
//!
//! let pv = DomainConfig { pv: Some(PvConfig::default()), ..DomainConfig::default() };
//! host.create(pv)?.check_pv()?;
//! # Ok::<(), xenmig_sim::SimError>(())
//! ```

mod activity;
mod bits;
mod blobs;
mod claims;
mod contents;
mod counters;
mod domain;
mod domain_config;
mod error;
mod fingerprint;
mod gate;
mod guest;
mod host;
mod hypervisor_verbs;
mod inject;
mod layout;
mod life;
mod lifecycle;
mod logdirty;
mod machine;
mod memory;
mod pv;
#[cfg(feature = "raw-domains")]
mod raw;
mod region;
mod script;
mod vcpu;
mod vcpu_threads;
mod workload;

pub use counters::{Counters, Verb};
pub use domain::SimDomain;
pub use domain_config::{Blobs, DomainConfig, MAX_MEMORY_BYTES, MAX_VCPUS};
pub use error::SimError;
pub use fingerprint::Fingerprint;
pub use host::SimHost;
pub use inject::Fault;
pub use pv::{Churn, P2mForm, PteAt, PteChange, PvConfig, PvMap};
#[cfg(feature = "raw-domains")]
pub use raw::{RawDomain, RawM2p};
pub use script::{Action, Script, When};
pub use workload::{Phase, Workload};
