// SPDX-License-Identifier: GPL-3.0-or-later
//! The boundary to the hypervisor: what the engine asks of a host, and the guest memory and file descriptors that both
//! share. `xenmig-xen` and `xenmig-sim` are the hosts that answer; this crate knows neither.
//!
//! ```text
//! Hypervisor ──> DirtyBitmap ──> page_types, map ──> ForeignPages ──> Sink ──> the other end
//!                                populate, map   <── ForeignPages <── Source <── the other end
//! ```
//!
//! Guest memory is owned by the guest and changes under the reader. It is reached through [`ForeignPages`] alone, which
//! never hands out a reference to it, so the engine needs no `unsafe`.

mod claim;
mod clock;
mod dirty_bitmap;
mod error;
mod fd;
mod grants;
mod lifecycle;
mod m2p;
mod mapping;
mod process;
mod pv;
mod reserve;
mod retry;

use std::fmt;

use xenmig_types::{CpuPolicy, DomainInfo, Domid, Gfn, PageType, TscInfo, XenVersion};

pub use claim::{ClaimError, Held, Holder, SaveClaim};
pub use clock::{Clock, MachineClock, ManualClock, Moment};
pub use dirty_bitmap::{BitmapMemory, DirtyBitmap, zeroed_words};
pub use error::{Errno, HypervisorError, Result};
pub use fd::{
    endpoint::KeepWaiting,
    sink::{Piece, Sink},
    source::Source,
};
pub use grants::{ReservedEntry, ReservedGrant};
pub use lifecycle::Lifecycle;
pub use m2p::M2p;
pub use mapping::{Access, ForeignPages, PageBuffer};
pub use process::Process;
pub use pv::{PinOp, PvVerbs};
pub use reserve::Reserve;
pub use retry::{BUSY_RETRIES, BUSY_WAIT, Transient, retry_while_busy};

/// How a CLEAN is meant (`XEN_DOMCTL_SHADOW_LOGDIRTY_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanPass {
    /// The domain goes on running after it.
    Live,
    /// The domain is suspended: pages that Xen itself keeps mapped are reported as well (`LOGDIRTY_FINAL`).
    Final,
}

/// The statistics that come with a CLEAN or a PEEK. They are 32 bits wide in the domctl, so a count that matters
/// is taken from the bitmap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirtyCounts {
    /// Log-dirty faults since the last CLEAN.
    pub fault_count: u32,
    /// Dirty pages since the last CLEAN.
    pub dirty_count: u32,
}

/// The size of an extent that is populated at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// One 4 KiB page.
    Page,
    /// One 2 MiB superpage: 512 pages, aligned.
    Superpage,
}

impl Extent {
    /// Returns the number of 4 KiB pages in the extent.
    #[must_use]
    pub const fn pages(self) -> u64 {
        match self {
            Self::Page => 1,
            Self::Superpage => 512,
        }
    }
}

/// The verbs that saving and restoring a domain need. Each blocks until it is done.
///
/// Suspending is not among them: it belongs to the caller, who knows the toolstack.
///
/// # Errors
///
/// Every verb returns a [`HypervisorError`] with the operation, the domid and the errno: `ESRCH` for a domain that
/// is not there, `EPERM`/`EACCES` without the right to it, and what the hypercall's own documentation says.
pub trait Hypervisor: PvVerbs + Send + Sync + fmt::Debug {
    /// Returns the clock by which everything about this host's domains is timed.
    fn clock(&self) -> &dyn Clock;

    /// Returns the running hypervisor's version, for the domain header of the stream.
    fn version(&self) -> Result<XenVersion>;

    /// Returns the state of exactly this domain, never of the next one that exists.
    fn domain_info(&self, domid: Domid) -> Result<DomainInfo>;

    /// Claims the domain for one save. Until the claim is dropped, every other save of it is refused, also in other
    /// processes if the host has any. The domain need not exist.
    ///
    /// # Errors
    ///
    /// [`ClaimError::Held`] while another save of the domain is under way; the others if that cannot be found out.
    fn claim_save(&self, domid: Domid) -> std::result::Result<SaveClaim, ClaimError>;

    /// Returns the size of the p2m in pages: the highest gpfn plus one.
    fn nr_gpfns(&self, domid: Domid) -> Result<u64>;

    /// Turns log-dirty mode on, with nothing dirty. Fails with `EINVAL` if it is on already, be it for VRAM tracking.
    fn enable_logdirty(&self, domid: Domid) -> Result<()>;

    /// Turns log-dirty mode off, whoever turned it on.
    fn disable_logdirty(&self, domid: Domid) -> Result<()>;

    /// Allocates a bitmap of `pages` bits, all clear, in memory that the hypercalls can write to.
    fn dirty_bitmap(&self, domid: Domid, pages: u64) -> Result<DirtyBitmap>;

    /// Fetches the log-dirty bitmap and clears it in one step. With `None` it is cleared unseen.
    /// The guest is paused meanwhile. `EBUSY` means: try again.
    fn clean(&self, domid: Domid, bitmap: Option<&mut DirtyBitmap>, pass: CleanPass) -> Result<DirtyCounts>;

    /// Fetches the log-dirty bitmap and leaves it as it is. With `None` only the counts are returned, at almost no
    /// cost. `EBUSY` means: try again.
    fn peek(&self, domid: Domid, bitmap: Option<&mut DirtyBitmap>) -> Result<DirtyCounts>;

    /// Queries the type of each of at most 1024 frames (`XEN_DOMCTL_getpageframeinfo3`). `types` is as long as `gfns`.
    /// A frame without a page is [`PageType::Xtab`], not an error.
    fn page_types(&self, domid: Domid, gfns: &[Gfn], types: &mut [PageType]) -> Result<()>;

    /// Maps frames of the domain. A frame that cannot be mapped has its errno in [`ForeignPages::error`]; the
    /// others are mapped all the same.
    fn map(&self, domid: Domid, gfns: &[Gfn], access: Access) -> Result<ForeignPages>;

    /// Returns the HVM context: the virtual machine's devices and vCPUs as one opaque blob.
    fn hvm_context(&self, domid: Domid) -> Result<Vec<u8>>;

    /// Loads an HVM context.
    fn set_hvm_context(&self, domid: Domid, context: &[u8]) -> Result<()>;

    /// Returns one `HVM_PARAM_*`; 0 where it was never set.
    fn hvm_param(&self, domid: Domid, index: u32) -> Result<u64>;

    /// Sets one `HVM_PARAM_*`.
    fn set_hvm_param(&self, domid: Domid, index: u32, value: u64) -> Result<()>;

    /// Returns the TSC settings.
    fn tsc_info(&self, domid: Domid) -> Result<TscInfo>;

    /// Sets the TSC settings.
    fn set_tsc_info(&self, domid: Domid, tsc: &TscInfo) -> Result<()>;

    /// Returns the CPU policy.
    fn cpu_policy(&self, domid: Domid) -> Result<CpuPolicy>;

    /// Sets the CPU policy.
    fn set_cpu_policy(&self, domid: Domid, policy: &CpuPolicy) -> Result<()>;

    /// Gives the domain memory at each frame (`XENMEM_populate_physmap`) and returns how many extents, from the
    /// front, it got; fewer than asked means that memory ran out. For a PV guest each entry of `frames` is replaced
    /// by the mfn that was given. A new page may hold anything.
    fn populate(&self, domid: Domid, frames: &mut [Gfn], extent: Extent) -> Result<usize>;

    /// Takes the pages at these frames away from the domain (`XENMEM_decrease_reservation`).
    fn depopulate(&self, domid: Domid, gfns: &[Gfn]) -> Result<()>;

    /// Writes grants into reserved entries of the domain's grant table, which it has not used yet. `ERANGE` for a frame
    /// that has no place in an entry.
    fn seed_grants(&self, domid: Domid, grants: &[ReservedGrant]) -> Result<()>;
}
