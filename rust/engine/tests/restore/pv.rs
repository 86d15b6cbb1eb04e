// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests, against a host of the tests' own.

mod faults;
mod guest;
mod host;
mod hostile;
mod memory;
mod state;
mod verify;
mod whole;
