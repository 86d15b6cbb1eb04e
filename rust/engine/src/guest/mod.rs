// SPDX-License-Identifier: GPL-3.0-or-later
//! What differs between kinds of guests: their static data, their frames, and the state that follows their memory.

pub(crate) mod hvm;
