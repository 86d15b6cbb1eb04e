// SPDX-License-Identifier: GPL-3.0-or-later
//! Pages that a PV guest's state names.

use std::fmt;

/// What a page is to a PV guest's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedPage {
    /// The start info page.
    StartInfo,
    /// The page that the guest shares with xenstore.
    Store,
    /// The page that the guest shares with its console.
    Console,
    /// A page of a vCPU's GDT.
    Gdt {
        /// The vCPU's number.
        vcpu: u32,
        /// The page's number in the GDT.
        index: u64,
    },
    /// A vCPU's page table of the top level.
    Cr3 {
        /// The vCPU's number.
        vcpu: u32,
    },
    /// A vCPU's page table of the top level in user mode.
    Cr1 {
        /// The vCPU's number.
        vcpu: u32,
    },
    /// A page of the p2m.
    P2m {
        /// Its number in the p2m.
        index: usize,
    },
}

impl fmt::Display for NamedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartInfo => write!(f, "the start info page"),
            Self::Store => write!(f, "the page of xenstore"),
            Self::Console => write!(f, "the page of the console"),
            Self::Gdt { vcpu, index } => write!(f, "page {index} of vCPU {vcpu}'s GDT"),
            Self::Cr3 { vcpu } => write!(f, "vCPU {vcpu}'s page table of the top level"),
            Self::Cr1 { vcpu } => write!(f, "vCPU {vcpu}'s page table of the top level in user mode"),
            Self::P2m { index } => write!(f, "page {index} of the p2m"),
        }
    }
}
