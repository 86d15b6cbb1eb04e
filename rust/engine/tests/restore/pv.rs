// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests.

mod guest;
mod host;
mod whole;
