// SPDX-License-Identifier: GPL-3.0-or-later
//! The extension's allocator: the system's, with a reserve for when the system has no memory left. Then runs end in order
//! instead of aborting the process.

use xenmig_hypervisor::Reserve;

#[global_allocator]
pub(crate) static ALLOCATOR: Reserve = Reserve::new();
