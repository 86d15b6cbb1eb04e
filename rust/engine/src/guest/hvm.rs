// SPDX-License-Identifier: GPL-3.0-or-later
//! HVM and PVH guests: a pfn is a gfn, and all state but memory is the HVM context and a few parameters.

use xenmig_hypervisor::Hypervisor;
use xenmig_stream::{HvmParam, encode};
use xenmig_types::{Domid, Gfn, Pfn};

use crate::SaveError;

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

/// Appends the state of a suspended guest: TSC, context, parameters. The specification would have the parameters
/// before the context; libxc writes them behind it, and readers apply both at the end.
pub(crate) fn state(host: &dyn Hypervisor, domid: Domid, out: &mut Vec<u8>) -> Result<(), SaveError> {
    encode::tsc_info(out, &host.tsc_info(domid)?);
    encode::hvm_context(out, &host.hvm_context(domid)?)?;
    let mut params = Vec::with_capacity(SAVED_PARAMS.len());
    for index in SAVED_PARAMS {
        let value = host.hvm_param(domid, index)?;
        if value != 0 {
            params.push(HvmParam { index, value });
        }
    }
    if !params.is_empty() {
        encode::hvm_params(out, &params)?;
    }
    Ok(())
}
