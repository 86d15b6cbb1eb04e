// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests, against a host of the tests' own, where every case can be made, and against the simulated one.

mod calls;
mod faults;
mod guest;
mod host;
mod hostile;
mod memory;
mod simulated;
mod state;
mod verify;
mod whole;
