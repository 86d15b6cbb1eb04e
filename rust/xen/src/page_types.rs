// SPDX-License-Identifier: GPL-3.0-or-later
//! `XEN_DOMCTL_getpageframeinfo3`: the types of a batch of frames. It is asked once a batch, so its memory is kept.

use std::sync::{Arc, Mutex, PoisonError};

use xenctrl_sys as sys;
use xenmig_hypervisor::{BitmapMemory, Errno};
use xenmig_types::{Domid, Gfn, PageType};

use crate::{
    buffer::HypercallBuffer,
    call::CallHandle,
    domctl::{domctl, perform_in},
    error::CallResult,
};

/// Most frames in one query: Xen's limit.
const MAX_FRAMES: usize = 1024;
/// Where hypercall memory may fault, a query is made this many times, as libxenctrl does. It changes nothing.
const FAULT_RETRIES: u32 = 2;

/// The memory of one query.
#[derive(Debug)]
struct Query {
    domctl: HypercallBuffer,
    frames: HypercallBuffer,
}

/// Makes type queries. Threads that ask at the same time have a memory each.
#[derive(Debug, Default)]
pub(super) struct TypeQueries {
    idle: Mutex<Vec<Query>>,
}

impl TypeQueries {
    /// Queries the types of frames. `E2BIG` for more than 1024, `EPROTO` for a type that no Xen defines.
    pub(super) fn query(
        &self,
        call: &Arc<CallHandle>,
        domid: Domid,
        gfns: &[Gfn],
        types: &mut [PageType],
    ) -> CallResult<()> {
        if gfns.len() > MAX_FRAMES {
            return Err(Errno(libc::E2BIG));
        }
        if gfns.len() != types.len() {
            return Err(Errno(libc::EINVAL));
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut query = match idle {
            Some(query) => query,
            None => Query {
                domctl: HypercallBuffer::bytes_zeroed(call, size_of::<sys::xen_domctl>())?,
                frames: HypercallBuffer::words_zeroed(call, MAX_FRAMES)?,
            },
        };
        let result = query.make(domid, gfns, types);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(query);
        result
    }
}

impl Query {
    fn make(&mut self, domid: Domid, gfns: &[Gfn], types: &mut [PageType]) -> CallResult<()> {
        let mut tries = 0;
        loop {
            self.frames.words_mut().iter_mut().zip(gfns).for_each(|(word, gfn)| *word = gfn.0);
            match self.ask(domid, gfns.len()) {
                Err(Errno(libc::EFAULT)) if tries < FAULT_RETRIES && !self.domctl.call().never_faults() => {
                    tries += 1;
                }
                result => break result?,
            }
        }
        for (word, kind) in self.frames.words().iter().zip(types) {
            *kind = page_type(*word)?;
        }
        Ok(())
    }

    /// Lets Xen replace the first `count` frames, which are at most 1024, by their types.
    fn ask(&mut self, domid: Domid, count: usize) -> CallResult<()> {
        let mut command = domctl(sys::XEN_DOMCTL_getpageframeinfo3, domid);
        command.u.getpageframeinfo3 = sys::xen_domctl_getpageframeinfo3 {
            num: count.min(MAX_FRAMES) as u64,
            array: sys::__guest_handle_xen_pfn_t { p: self.frames.address().cast() },
        };
        // SAFETY: the array has room for 1024 frames, is ours, and is borrowed exclusively.
        unsafe { perform_in(&mut self.domctl, &mut command) }
    }
}

/// Takes the type out of bits 28-31 of what Xen put in a frame's place.
fn page_type(word: u64) -> CallResult<PageType> {
    let number = (word & u64::from(sys::XEN_DOMCTL_PFINFO_LTAB_MASK)) >> sys::XEN_DOMCTL_PFINFO_LTAB_SHIFT;
    u8::try_from(number).ok().and_then(|number| PageType::try_from(number).ok()).ok_or(Errno(libc::EPROTO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_in_bits_28_to_31() {
        for kind in PageType::ALL {
            let word = u64::from(kind.number()) << 28;
            assert_eq!(page_type(word), Ok(kind));
            assert_eq!(page_type(word | 0xffff_ffff_0fff_ffff), Ok(kind));
        }
    }

    #[test]
    fn a_type_that_no_xen_defines_is_an_error() {
        for number in 5..=8 {
            assert_eq!(page_type(number << 28), Err(Errno(libc::EPROTO)));
        }
    }
}
