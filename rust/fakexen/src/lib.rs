// SPDX-License-Identifier: GPL-3.0-or-later
//! `libfakexen.so`: a test tool that stands in for the kernel. Loaded by `LD_PRELOAD`, it plays
//! `/dev/xen/privcmd` and `/dev/xen/hypercall`, and answers hypercalls from simulated domains. All Xen libraries above
//! it are the real ones, so the real `xc_domain_save` and `xc_domain_restore` run on a machine without Xen.
//!
//! ```text
//! libxenguest, libxenctrl, libxencall, libxenforeignmemory         a test
//!       │ open ioctl mmap munmap close                                │ fakexen_create, fakexen_counters, ...
//!       v                                                             v
//!  interposed ──> devices: which descriptor is which device        control ──> spec, report
//!       │ ├─────> areas: hypercall buffers, foreign mappings          │
//!       │ └─────> mapping, resource ────────┐                         │
//!       v                                   v                         v
//!   hypercall ──> domctl, vcpus, shadow, sysctl, memory_op, machine, small_ops ──> host: the simulated domains
//!                        every call: tally ──> faults, trace
//! ```
//!
//! What it does not model: the time that a hypervisor takes (unless a test injects one), and that memory
//! mapped from the kernel's device is special: the kernel refuses `vmsplice`, `O_DIRECT` and the like on it.
//! `FAKEXEN_TRACE=1` prints each call.

mod areas;
mod c_library;
mod caller_memory;
mod control;
mod cpu_policy;
mod devices;
mod domctl;
mod failure;
mod faults;
mod grant_table;
mod host;
mod hypercall;
mod interposed;
mod kinds;
mod layout;
mod machine;
mod mapping;
mod memory_op;
mod process;
mod pv_spec;
mod report;
mod resource;
mod shadow;
mod small_ops;
mod spec;
mod sysctl;
mod tally;
mod trace;
mod vcpus;

#[cfg(test)]
mod tests;
