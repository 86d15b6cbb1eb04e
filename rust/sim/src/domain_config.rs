// SPDX-License-Identifier: GPL-3.0-or-later
//! How a simulated domain is made: what the user says, checked.

use std::ops::Range;

use xenmig_types::{Domid, PAGE_SIZE_U64, TscInfo};

use crate::{error::SimError, layout::Layout, pv::PvConfig, workload::Workload};

/// The most memory that a simulated domain can have, in bytes: 64 GiB.
pub const MAX_MEMORY_BYTES: u64 = 64 << 30;
/// The most vCPUs that a simulated domain can have.
pub const MAX_VCPUS: u32 = 64;
/// pfns lie below this: 16 TiB.
const MAX_PFNS: u64 = 1 << 32;
/// How a domain is made. The default is a running domain of 64 MiB with one idle vCPU.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainConfig {
    /// The domain's number; `None` takes the next free one, from 1 on.
    pub domid: Option<Domid>,
    /// RAM in bytes, a multiple of 4096, at most [`MAX_MEMORY_BYTES`]. It lies at the pfns from 0 on, holes included;
    /// with special pages, what is above 3.75 GiB lies from 4 GiB on.
    pub memory_bytes: u64,
    /// Number of vCPUs, 1 to [`MAX_VCPUS`]. Each is a thread if the workload needs it.
    pub vcpus: u32,
    /// What the vCPUs do.
    pub workload: Workload,
    /// Pfns that have no page.
    pub holes: Vec<Range<u64>>,
    /// Whether the domain has the eight pages just below 4 GiB (store, console, ...) of a PVH guest.
    pub special_pages: bool,
    /// A further page at this pfn, so that the p2m is as long as a test wants it. Below 2^32.
    pub highest_pfn: Option<u64>,
    /// Seed of the blobs and of the vCPUs' choices.
    pub seed: u64,
    /// Sizes and values of the state that is not memory.
    pub blobs: Blobs,
    /// Whether log-dirty is on from the start, as for VRAM tracking: ENABLE gives `EINVAL` until OFF.
    pub vram_tracking: bool,
    /// Number of pages that Xen keeps mapped (vCPU info, runstate): the last ones of RAM, or fewer if RAM has fewer. They are written without being logged, while the vCPUs run and at the suspension, so only a CLEAN
    /// with FINAL reports them.
    pub xen_mapped_pages: u64,
    /// Makes the domain a PV guest; `None` makes it HVM or PVH, which the host does not tell apart.
    pub pv: Option<PvConfig>,
    /// `false` makes an empty, paused domain to be restored into, whose blobs are zero too. It may have as many pages
    /// as the same configuration gives to a populated one without holes.
    pub populated: bool,
}

/// The state of a domain that is not memory. Contents are derived from the domain's seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blobs {
    /// Size of the HVM context in bytes, at least 8: the first eight change with every write of a vCPU.
    pub hvm_context_bytes: usize,
    /// Number of CPUID leaves of the CPU policy.
    pub cpuid_leaves: usize,
    /// Number of MSRs of the CPU policy.
    pub msr_entries: usize,
    /// HVM parameters that are not 0, as (index, value); indices as in `public/hvm/params.h`.
    pub hvm_params: Vec<(u32, u64)>,
    /// TSC settings at the start. `elapsed_ns` grows by 1000 ns with every write of a vCPU.
    pub tsc: TscInfo,
}

impl Default for DomainConfig {
    fn default() -> Self {
        Self {
            domid: None,
            memory_bytes: 64 << 20,
            vcpus: 1,
            workload: Workload::Idle,
            holes: Vec::new(),
            special_pages: false,
            highest_pfn: None,
            seed: 0,
            blobs: Blobs::default(),
            vram_tracking: false,
            xen_mapped_pages: 2,
            pv: None,
            populated: true,
        }
    }
}

impl Default for Blobs {
    fn default() -> Self {
        Self {
            hvm_context_bytes: 8192,
            cpuid_leaves: 32,
            msr_entries: 2,
            hvm_params: vec![
                (1, 0xfeffc),        // STORE_PFN
                (2, 1),              // STORE_EVTCHN
                (4, 1),              // PAE_ENABLED
                (5, 0xfeffe),        // IOREQ_PFN
                (6, 0xfefff),        // BUFIOREQ_PFN
                (9, 0x63),           // VIRIDIAN
                (12, 0xfeffa << 12), // IDENT_PT, an address
                (17, 0xfeffb),       // CONSOLE_PFN
                (18, 2),             // CONSOLE_EVTCHN
                (19, 1),             // ACPI_IOPORTS_LOCATION
                (36, 8),             // X87_FIP_WIDTH
            ],
            tsc: TscInfo { mode: 0, khz: 2_400_000, elapsed_ns: 1_000_000_000, incarnation: 1 },
        }
    }
}

impl DomainConfig {
    /// Checks everything and returns where the pages lie.
    pub(super) fn validate(&self) -> Result<Layout, SimError> {
        let bytes = self.memory_bytes;
        if bytes == 0 || bytes > MAX_MEMORY_BYTES || !bytes.is_multiple_of(PAGE_SIZE_U64) {
            return Err(SimError::invalid(format!(
                "memory of {bytes} bytes: give a multiple of 4096, at most 64 GiB"
            )));
        }
        if !(1..=MAX_VCPUS).contains(&self.vcpus) {
            return Err(SimError::invalid(format!("{} vCPUs: give 1 to {MAX_VCPUS}", self.vcpus)));
        }
        if let Some(pfn) = self.highest_pfn.filter(|pfn| *pfn >= MAX_PFNS) {
            return Err(SimError::invalid(format!("highest_pfn is {pfn:#x}: give less than {MAX_PFNS:#x}")));
        }
        if let Some(hole) = self.holes.iter().find(|hole| hole.start >= hole.end) {
            return Err(SimError::invalid(format!("the hole {hole:?} is empty: it ends before it begins")));
        }
        if !(8..=16 << 20).contains(&self.blobs.hvm_context_bytes) {
            let bytes = self.blobs.hvm_context_bytes;
            return Err(SimError::invalid(format!(
                "an HVM context of {bytes} bytes: give 8 bytes to 16 MiB"
            )));
        }
        if self.blobs.cpuid_leaves.max(self.blobs.msr_entries) > 1 << 16 {
            return Err(SimError::invalid("more than 65536 CPUID leaves or MSRs"));
        }
        let ram_pages = bytes / PAGE_SIZE_U64;
        self.workload.validate(ram_pages)?;
        if let Some(pv) = &self.pv {
            if self.special_pages {
                return Err(SimError::invalid("a PV guest has no special pages: they are a PVH guest's"));
            }
            pv.validate(self.vcpus, self.highest_pfn.unwrap_or(0).max(ram_pages - 1))?;
        }
        Ok(Layout::new(ram_pages, self.special_pages, self.highest_pfn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut DomainConfig)) -> String {
        let mut config = DomainConfig::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn senseless_configurations_are_refused_with_what_is_allowed() {
        for bytes in [0, 4095, 4097, MAX_MEMORY_BYTES + 4096, u64::MAX] {
            assert!(refused(|config| config.memory_bytes = bytes).contains("multiple of 4096"));
        }
        assert!(refused(|config| config.vcpus = 0).contains("1 to 64"));
        assert!(refused(|config| config.vcpus = 65).contains("1 to 64"));
        assert!(refused(|config| config.highest_pfn = Some(1 << 32)).contains("less than"));
        assert!(refused(|config| config.holes = std::iter::once(5..5).collect()).contains("empty"));
        assert!(refused(|config| config.blobs.hvm_context_bytes = 7).contains("8 bytes"));
        assert!(refused(|config| config.blobs.msr_entries = usize::MAX).contains("65536"));
    }
}
