// SPDX-License-Identifier: GPL-3.0-or-later
//! The kinds of guests, and what saving one takes that depends on its kind: the size of the p2m, the frame behind a pfn,
//! page tables, and the state that follows the memory.
//!
//! ```text
//! save/    ──> SaveOps    ─┬─ hvm_*.rs HVM and PVH: a pfn is a gfn
//! restore/ ──> RestoreOps ─┴─ pv_*.rs  PV: frames of the host, found by the guest's p2m and Xen's m2p
//! ```
//!
//! As in libxc (`struct xc_sr_save_ops`, `struct xc_sr_restore_ops`) the algorithm is the same for every guest, and a
//! table of operations says what is not.

pub(crate) mod hvm_save;
pub(crate) mod pv_save;
pub(crate) mod save_ops;
pub(crate) mod table_fault;

use xenmig_types::{DomainInfo, GuestKind};

use crate::save::save_error::SaveError;
use hvm_save::HvmSave;
use pv_save::PvSave;
use save_ops::{Domain, SaveOps, SaveWatch};

/// Finds out what a guest is like.
pub(crate) fn open(
    domain: Domain<'_>,
    info: &DomainInfo,
    watch: &mut SaveWatch<'_>,
) -> Result<Box<dyn SaveOps>, SaveError> {
    Ok(match info.kind {
        GuestKind::Hvm => Box::new(HvmSave),
        GuestKind::Pv => Box::new(PvSave::open(domain, info, watch)?),
    })
}
