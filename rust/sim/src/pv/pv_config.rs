// SPDX-License-Identifier: GPL-3.0-or-later
//! What makes a simulated domain a PV guest, as the user says it.

use xenmig_types::pv::GuestWidth;

use crate::error::SimError;

/// pfns of a PV guest lie below this: 128 GiB.
pub(super) const MAX_PFNS: u64 = 1 << 25;
/// Slots of an L2 table that the list of the p2m may begin at, so that a 32-bit guest has room for all of it.
const MAX_LIST_SLOT: u16 = 16;
/// The most that XSAVE saves here, in bytes.
pub(super) const MAX_XSAVE_BYTES: usize = 8192;
/// The most MSRs that Xen saves of a vCPU.
pub(super) const MAX_MSRS: usize = 7;
/// The fewest bytes of what XSAVE saves: two masks.
pub(super) const MIN_XSAVE_BYTES: usize = 16;

/// How a PV guest tells the toolstack where its p2m is. Either way it has it mapped as one list in its own page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum P2mForm {
    /// A list that is mapped by the page tables that the shared info page names. It begins at this slot of an L2 table,
    /// at most 16.
    List {
        /// The slot, counted from where the guest keeps room for the list.
        first_slot: u16,
    },
    /// A tree of frames: three levels, the pages of the p2m being the lowest.
    Tree,
}

/// What the kernel of a PV guest does beside its workload, in steps per second. Data are written by the workload.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Churn {
    /// Entries of page tables written: cleared, set, led to another page, accessed and dirty bits; some lead for a
    /// moment to a frame that is not the guest's.
    pub ptes_per_s: f64,
    /// Pages that become page tables, and page tables that become pages again.
    pub tables_per_s: f64,
    /// Pages ballooned out, and in again.
    pub balloons_per_s: f64,
}

/// What makes a domain a PV guest. The default is a 64-bit guest with a list, all its vCPUs online.
#[derive(Clone, Debug, PartialEq)]
pub struct PvConfig {
    /// The width of its words. An empty domain is made with 64 bits, as Xen makes it.
    pub width: GuestWidth,
    /// How its p2m is found.
    pub p2m: P2mForm,
    /// pfns that the p2m has entries for after the last page. The last of its pages, and page tables, are then one and
    /// the same page again and again.
    pub spare_pfns: u64,
    /// vCPUs that were never brought up. Not the first.
    pub offline_vcpus: Vec<u32>,
    /// Whether a vCPU has an extended context.
    pub extended: bool,
    /// Size of what XSAVE saves of a vCPU, 16 to 8192 bytes; 0 for nothing.
    pub xsave_bytes: usize,
    /// MSRs of a vCPU that are not 0, at most 7.
    pub msrs: usize,
    /// Whether the kernel clears a page before it gives it back, as Linux does unless it is told not to. Xen does not
    /// log that a page is gone: without the clearing nothing says so but the p2m.
    pub scrubs: bool,
    /// What the kernel does in the background.
    pub churn: Churn,
}

impl Default for P2mForm {
    fn default() -> Self {
        Self::List { first_slot: 0 }
    }
}

impl Default for PvConfig {
    fn default() -> Self {
        Self {
            width: GuestWidth::Bits64,
            p2m: P2mForm::default(),
            spare_pfns: 0,
            offline_vcpus: Vec::new(),
            extended: true,
            xsave_bytes: 832,
            msrs: 2,
            scrubs: true,
            churn: Churn::default(),
        }
    }
}

impl PvConfig {
    /// Checks everything against the rest of the domain's configuration.
    pub(crate) fn validate(&self, vcpus: u32, highest_pfn: u64) -> Result<(), SimError> {
        if self.spare_pfns >= MAX_PFNS || highest_pfn + self.spare_pfns >= MAX_PFNS {
            return Err(SimError::invalid(format!("the pfns of a PV guest lie below {MAX_PFNS:#x}")));
        }
        if let P2mForm::List { first_slot } = self.p2m
            && first_slot > MAX_LIST_SLOT
        {
            return Err(SimError::invalid(format!("first_slot is {first_slot}: give 0 to {MAX_LIST_SLOT}")));
        }
        if self.offline_vcpus.iter().any(|vcpu| !(1..vcpus).contains(vcpu)) {
            return Err(SimError::invalid(
                "offline vCPUs are numbers from 1 on, of vCPUs that the domain has",
            ));
        }
        if self.xsave_bytes != 0 && !(MIN_XSAVE_BYTES..=MAX_XSAVE_BYTES).contains(&self.xsave_bytes) {
            let bytes = self.xsave_bytes;
            return Err(SimError::invalid(format!(
                "{bytes} bytes of XSAVE: give 0, or 16 to {MAX_XSAVE_BYTES}"
            )));
        }
        if self.msrs > MAX_MSRS {
            return Err(SimError::invalid(format!("{} MSRs of a vCPU: give at most {MAX_MSRS}", self.msrs)));
        }
        self.churn.validate()
    }
}

impl Churn {
    /// Says whether there is anything to do.
    pub(crate) fn is_any(&self) -> bool {
        self.ptes_per_s + self.tables_per_s + self.balloons_per_s > 0.0
    }

    /// Checks the rates.
    pub(crate) fn validate(&self) -> Result<(), SimError> {
        for (name, rate) in [
            ("ptes_per_s", self.ptes_per_s),
            ("tables_per_s", self.tables_per_s),
            ("balloons_per_s", self.balloons_per_s),
        ] {
            if !(0.0..=1e5).contains(&rate) {
                return Err(SimError::invalid(format!("{name} is {rate}: give 0 to 1e5 steps per second")));
            }
        }
        Ok(())
    }
}
