// SPDX-License-Identifier: GPL-3.0-or-later
//! HVM and PVH guests: a pfn is a gfn, and all state but memory is the HVM context and a few parameters.

use xenmig_hypervisor::PageBuffer;
use xenmig_stream::{HvmParam, encode};
use xenmig_types::{Gfn, GuestKind, PageType, Pfn};

use super::{
    save_ops::{Domain, SaveOps, SaveWatch, check_growth},
    table_fault::TableFault,
};
use crate::save::save_error::SaveError;

/// The `HVM_PARAM_*` that are saved, in the order of the record: libxc's, not the numbers'
/// (`public/hvm/params.h`). The pages they name are the guest's channels to its toolstack and device model.
const SAVED_PARAMS: [u32; 16] = [
    1,  // STORE_PFN
    5,  // IOREQ_PFN
    6,  // BUFIOREQ_PFN
    27, // PAGING_RING_PFN
    28, // MONITOR_RING_PFN
    29, // SHARING_RING_PFN
    37, // VM86_TSS_SIZED
    17, // CONSOLE_PFN
    19, // ACPI_IOPORTS_LOCATION
    9,  // VIRIDIAN
    12, // IDENT_PT
    34, // VM_GENERATION_ID_ADDR
    32, // IOREQ_SERVER_PFN
    33, // NR_IOREQ_SERVER_PAGES
    36, // X87_FIP_WIDTH
    38, // MCA_CAP
];

/// Returns the frame by which the hypervisor knows a pfn: for these guests they are the same.
pub(crate) const fn gfn(pfn: Pfn) -> Gfn {
    Gfn(pfn.0)
}

/// Saves an HVM or PVH guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HvmSave;

impl SaveOps for HvmSave {
    fn has_device_model(&self) -> bool {
        true
    }

    fn p2m_size(&self, domain: Domain<'_>, watch: &mut SaveWatch<'_>) -> Result<u64, SaveError> {
        Ok(watch.retry(|| domain.host.nr_gpfns(domain.domid))?)
    }

    fn front(
        &self,
        domain: Domain<'_>,
        watch: &mut SaveWatch<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SaveError> {
        let Domain { host, domid } = domain;
        encode::headers(out, GuestKind::Hvm, watch.retry(|| host.version())?);
        encode::cpu_policy(out, &watch.retry(|| host.cpu_policy(domid))?)?;
        encode::static_data_end(out);
        Ok(())
    }

    fn frames(&self, pfns: &[Pfn], frames: &mut Vec<Gfn>) -> usize {
        frames.clear();
        frames.extend(pfns.iter().map(|pfn| gfn(*pfn)));
        0
    }

    fn normalise(&self, _kind: PageType, table: &PageBuffer, out: &mut Vec<u8>) -> Result<(), TableFault> {
        // No page of these guests has the type of a page table.
        out.extend_from_slice(table);
        Ok(())
    }

    fn check_p2m(&self) -> Result<(), SaveError> {
        Ok(())
    }

    fn check_size(
        &self,
        domain: Domain<'_>,
        watch: &mut SaveWatch<'_>,
        before: u64,
    ) -> Result<(), SaveError> {
        check_growth(domain.domid, before, self.p2m_size(domain, watch)?)
    }

    /// TSC, context, parameters. The specification has the parameters before the context; libxc writes them after it,
    /// and readers apply both at the end.
    fn state(
        &self,
        domain: Domain<'_>,
        watch: &mut SaveWatch<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SaveError> {
        let Domain { host, domid } = domain;
        encode::tsc_info(out, &watch.retry(|| host.tsc_info(domid))?);
        encode::hvm_context(out, &watch.retry(|| host.hvm_context(domid))?)?;
        let mut params = Vec::with_capacity(SAVED_PARAMS.len());
        for index in SAVED_PARAMS {
            let value = watch.retry(|| host.hvm_param(domid, index))?;
            if value != 0 {
                params.push(HvmParam { index, value });
            }
        }
        if !params.is_empty() {
            encode::hvm_params(out, &params)?;
        }
        Ok(())
    }
}
