// SPDX-License-Identifier: GPL-3.0-or-later
//! Restore, against the simulated host: streams made by hand, whole domains, broken streams, a host that fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a test panics on what it does not expect"
)]

mod build;
mod caller;
mod channels;
mod domains;
mod events;
mod faults;
mod hostile;
mod memory;
mod pv;
mod state;
mod verify;
mod waiting;
