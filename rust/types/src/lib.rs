// SPDX-License-Identifier: GPL-3.0-or-later
//! Xen's words as Rust types, shared by the hypervisor boundary and by the stream.
//!
//! Nothing here does anything: a [`Domid`] cannot be mistaken for a [`Pfn`], and a [`PageType`] knows
//! whether its page has contents. Sources: `xen/include/public/{xen.h,domctl.h,memory.h}`.

#![forbid(unsafe_code)]

mod domain;
mod page;
pub mod pv;

pub use domain::{
    CpuPolicy, DomainInfo, DomainState, Domid, GuestKind, InvalidDomid, TscInfo, VcpuPart, XenVersion,
};
pub use page::{Gfn, PAGE_SHIFT, PAGE_SIZE, PAGE_SIZE_U64, PageType, Pfn, UnknownPageType};
