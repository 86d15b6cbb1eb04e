// SPDX-License-Identifier: GPL-3.0-or-later
//! Why a save failed, and in what state it leaves the guest.

use std::{fmt, io, time::Duration};

use xenmig_hypervisor::{ClaimError, Errno, HypervisorError};
use xenmig_stream::EncodeError;
use xenmig_types::{DomainState, Domid, Gfn, Pfn};

use crate::{
    guest::table_fault::TableFault, interrupt::CallerError, policy::statistics::PrecopyStats, watch::Halt,
};

/// What the guest is doing when a save returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestState {
    /// It was never suspended.
    Running,
    /// It is suspended, and the caller must have it resumed or destroyed.
    Suspended,
    /// It was suspended and goes on again.
    Resumed,
    /// The hypervisor could not be asked.
    Unknown,
}

impl GuestState {
    /// Returns the state's name as Python sees it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Resumed => "resumed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for GuestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The step of a save that failed.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The domain could not be claimed: another save of it is under way, or that cannot be found out.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The hypervisor refused a call.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// Writing the stream failed.
    #[error("writing the stream failed after {written} bytes: {source}")]
    Transport {
        /// What the kernel said.
        source: io::Error,
        /// Bytes of the stream that were written.
        written: u64,
    },
    /// The other end took nothing for too long.
    #[error("the other end has taken nothing for {:.1} s, which is the limit", .waited.as_secs_f64())]
    Stalled {
        /// How long it has taken nothing.
        waited: Duration,
    },
    /// The guest shut down or crashed while it was being saved, or its domain is being destroyed.
    #[error("domain {domid} {} while it was being saved: there is nothing left to save", ended(*.state))]
    Ended {
        /// The domain.
        domid: Domid,
        /// Its state.
        state: DomainState,
    },
    /// A record could not be made.
    #[error("a record cannot be written: {0}")]
    Encode(#[from] EncodeError),
    /// The policy answered ABORT.
    #[error("the policy aborted the precopy in iteration {}{}", .stats.iteration, because(.reason.as_deref()))]
    PolicyAbort {
        /// What it had been told.
        stats: Box<PrecopyStats>,
        /// Its reason.
        reason: Option<String>,
    },
    /// The policy failed; its own error says why.
    #[error("the policy failed: {0}")]
    Policy(CallerError),
    /// The caller's observer failed.
    #[error("the progress callback failed: {0}")]
    Observer(CallerError),
    /// The caller interrupted the save.
    #[error("interrupted: {0}")]
    Interrupted(CallerError),
    /// The caller could not suspend the guest.
    #[error("the guest could not be suspended: {0}")]
    Suspend(CallerError),
    /// The caller's suspend returned, but the guest is not suspended.
    #[error("the suspend callback returned, but domain {domid} is {state:?} rather than suspended")]
    NotSuspended {
        /// The domain.
        domid: Domid,
        /// What it is doing instead.
        state: DomainState,
    },
    /// Another program resumed or ended the guest in the final pass, so the memory that was sent is of several moments.
    #[error(
        "domain {domid} was suspended for this save, but another program resumed or ended it: it is {state:?} now, so the \
         image is torn. Save it again"
    )]
    Disturbed {
        /// The domain.
        domid: Domid,
        /// What it is doing instead.
        state: DomainState,
    },
    /// The guest got memory behind the end of the p2m that the save began with.
    #[error("the p2m of domain {domid} grew from {before} to {now} pages during the save: save it again")]
    P2mGrew {
        /// The domain.
        domid: Domid,
        /// Its size when the save began, in pages.
        before: u64,
        /// Its size when the guest was suspended, in pages.
        now: u64,
    },
    /// What a PV guest says of its p2m leads nowhere.
    #[error("the p2m of domain {domid} cannot be followed: {what} is {value:#x}")]
    BadP2m {
        /// The domain.
        domid: Domid,
        /// What of it is wrong.
        what: &'static str,
        /// What it is.
        value: u64,
    },
    /// A PV guest moved its p2m onto other pages.
    #[error("domain {domid} moved its p2m during the save (p2m_generation changed): save it again")]
    P2mMoved {
        /// The domain.
        domid: Domid,
    },
    /// A frame of a PV guest that the save goes by could not be mapped.
    #[error("mapping {what} of domain {domid}, mfn {frame}, failed: {errno}")]
    MapFrame {
        /// The domain.
        domid: Domid,
        /// What is in the frame.
        what: &'static str,
        /// The frame.
        frame: Gfn,
        /// What the hypervisor answered.
        errno: Errno,
    },
    /// A page table of a suspended PV guest names a frame that is none of the guest's, or cannot be migrated for what it
    /// is.
    #[error("the page table at pfn {pfn} of domain {domid} cannot be sent: {fault}")]
    PageTable {
        /// The domain.
        domid: Domid,
        /// The page table.
        pfn: Pfn,
        /// What is wrong with it.
        fault: TableFault,
    },
    /// The context of a PV guest's vCPU names something that is none of the guest's.
    #[error("the context of vCPU {vcpu} of domain {domid} cannot be sent: {what} is {value:#x}")]
    Vcpu {
        /// The domain.
        domid: Domid,
        /// The vCPU.
        vcpu: u32,
        /// What of it is wrong.
        what: &'static str,
        /// What it is.
        value: u64,
    },
    /// The device model did not turn its log-dirty mode on.
    #[error("the device model's log-dirty mode could not be turned on: {0}")]
    DeviceModel(CallerError),
    /// A page of a suspended guest could not be mapped.
    #[error("mapping pfn {pfn} of domain {domid} failed: {errno}")]
    Map {
        /// The domain.
        domid: Domid,
        /// The page.
        pfn: Pfn,
        /// What the hypervisor answered.
        errno: Errno,
    },
    /// The domain cannot be saved as it is.
    #[error("domain {domid} cannot be saved: {why}")]
    Refused {
        /// The domain.
        domid: Domid,
        /// Why, and what to do about it.
        why: &'static str,
    },
}

/// A save that failed. The stream has no END record, log-dirty mode is off if the save turned it on, and nothing is
/// mapped any more.
#[derive(Debug, thiserror::Error)]
#[error("{error} (the guest is {guest})")]
pub struct SaveFailure {
    /// The step that failed.
    #[source]
    pub error: SaveError,
    /// What the guest is doing now.
    pub guest: GuestState,
    /// What else went wrong while cleaning up.
    pub warnings: Vec<String>,
}

/// Says what became of a guest.
const fn ended(state: DomainState) -> &'static str {
    match state {
        DomainState::Shutdown { reason: 1 } => "rebooted",
        DomainState::Shutdown { reason: 3 } => "crashed",
        DomainState::Shutdown { reason: 4 } => "was stopped by its watchdog",
        DomainState::Shutdown { .. } => "shut down",
        _ => "was destroyed",
    }
}

impl From<Halt> for SaveError {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Interrupted(error) => Self::Interrupted(error),
            Halt::Stalled(waited) => Self::Stalled { waited },
            Halt::Hypervisor(error) => Self::Hypervisor(error),
        }
    }
}

fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}
