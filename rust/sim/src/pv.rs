// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests: what a PV domain has beside memory, and the guest's kernel, which keeps page tables, a p2m and a start info
//! page in that memory and changes them while it runs.
//!
//! ```text
//! Machine: mfns, m2p <── PvDomain: pfn -> mfn, page types, shared info, vCPUs         what Xen knows
//!                           │
//!                        PvGuest ──> boot · search · suspension · actions · churn     what the guest does, by itself
//!                           │        over tables · p2m · kernel
//!                        vcpus ──> pv_verbs: impl PvVerbs for SimHost                 what a toolstack may do
//! ```
//!
//! A page's contents lie in the domain's memory at its pfn, so a page that is ballooned out and in again gets another mfn
//! and keeps its place. The guest knows only its memory: what it must find again after a migration, it finds by its
//! own page tables ([`search`]).
//!
//! Who changes anything of this holds the domain's control lock; page types, the frames of pfns and the m2p are also read
//! without it, as a toolstack's calls meet a guest in mid-change.

mod actions;
mod boot;
mod check;
mod churn;
mod churn_thread;
mod kernel;
mod normal;
mod p2m;
mod pte;
mod pv_config;
mod pv_domain;
mod pv_guest;
mod pv_vcpu;
mod pv_verbs;
mod search;
mod suspension;
mod tables;
mod vcpus;
mod view;

pub(crate) use self::{
    boot::CannotBoot, churn::ChurnPace, churn_thread::ChurnThread, pv_domain::PvDomain, pv_guest::PvGuest,
};
pub use self::{
    pte::{PteAt, PteChange},
    pv_config::{Churn, P2mForm, PvConfig},
    view::PvMap,
};
