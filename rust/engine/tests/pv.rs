// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests from the engine's one end to its other, on the simulated host: whatever the guest is like and whatever its
//! kernel does meanwhile, what wakes up is the guest that fell asleep, and hangs together.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a test that meets the unexpected panics"
)]

#[path = "pv/fails.rs"]
mod fails;
#[path = "pv/guests.rs"]
mod guests;
#[path = "pv/moves.rs"]
mod moves;
mod support;
#[path = "pv/whole.rs"]
mod whole;
