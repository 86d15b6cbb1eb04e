// SPDX-License-Identifier: GPL-3.0-or-later
//! `XEN_DOMCTL_shadow_op`: log-dirty mode.

use std::ptr::NonNull;

use xenmig_hypervisor::{BitmapMemory, CleanPass, DirtyBitmap, DirtyCounts, Hypervisor};

use crate::{
    areas,
    caller_memory::Memory,
    failure::verb,
    host::{self, Domain},
    kinds::Kind,
    layout::{ShadowOp, shadow},
    tally::unknown,
    tally::{self, Answer},
};

/// Most pages of a bitmap, 16 TiB of them: a caller's mistake does not cost more memory than theirs.
const MOST_PAGES: u64 = 1 << 32;

/// Answers a shadow op.
pub(crate) fn shadow_op(domain: &Domain, body: u64) -> Answer {
    let asked: ShadowOp = Memory::Hypercall.read(body)?;
    let scope = domain.scope();
    let last = asked.mode & shadow::LOGDIRTY_FINAL != 0;
    match asked.op {
        shadow::ENABLE_LOGDIRTY => tally::call(Kind::EnableLogdirty, scope, || {
            verb(host::sim().enable_logdirty(domain.domid).map(|()| 0))
        }),
        shadow::OFF => tally::call(Kind::ShadowOff, scope, || {
            verb(host::sim().disable_logdirty(domain.domid).map(|()| 0))
        }),
        shadow::CLEAN => {
            let (kind, pass) =
                if last { (Kind::CleanFinal, CleanPass::Final) } else { (Kind::Clean, CleanPass::Live) };
            tally::call(kind, scope, || fetch(domain, body, asked, Some(pass)))
        }
        shadow::PEEK => tally::call(Kind::Peek, scope, || fetch(domain, body, asked, None)),
        other => unknown("shadow_op", other.into()),
    }
}

fn fetch(domain: &Domain, body: u64, mut asked: ShadowOp, clean: Option<CleanPass>) -> Answer {
    if asked.mode & !shadow::LOGDIRTY_FINAL != 0 || asked.pages > MOST_PAGES {
        return Err(libc::EINVAL);
    }
    let counts = if asked.dirty_bitmap == 0 {
        verb(domain.sim.raw().fetch(clean, asked.pages, None))?
    } else {
        fetch_bitmap(domain, &asked, clean)?
    };
    asked.fault_count = counts.fault_count;
    asked.dirty_count = counts.dirty_count;
    Memory::Hypercall.write(body, &asked)?;
    Ok(0)
}

/// Fetches the bitmap straight into the caller's buffer; by way of a copy if the caller's memory is no such buffer.
fn fetch_bitmap(domain: &Domain, asked: &ShadowOp, clean: Option<CleanPass>) -> Result<DirtyCounts, i32> {
    let fetch = |memory: Box<dyn BitmapMemory>| {
        let mut bitmap = DirtyBitmap::new(memory, asked.pages).ok_or(libc::EINVAL)?;
        let counts = domain.sim.raw().fetch(clean, asked.pages, Some(&mut bitmap));
        verb(counts).map(|counts| (counts, bitmap))
    };
    let words = usize::try_from(asked.pages.div_ceil(64)).map_err(|_| libc::EINVAL)?;
    let mut fetched = Err(libc::EFAULT);
    let direct = asked.pages != 0
        && asked.dirty_bitmap.is_multiple_of(8)
        && areas::in_buffer(asked.dirty_bitmap, words * 8, |address| {
            if let Some(address) = NonNull::new(address) {
                let memory = CallersBuffer { address: address.cast(), words };
                fetched = fetch(Box::new(memory)).map(|(counts, _)| counts);
            }
        });
    if direct {
        return fetched;
    }
    let (counts, bitmap) = fetch(Box::new(vec![0; words]))?;
    let bytes: Vec<u8> = bitmap.words().iter().flat_map(|word| word.to_le_bytes()).collect();
    let length = usize::try_from(asked.pages.div_ceil(8)).map_err(|_| libc::EINVAL)?;
    Memory::Hypercall.write_bytes(asked.dirty_bitmap, bytes.get(..length).unwrap_or_default())?;
    Ok(counts)
}

/// A hypercall buffer of the caller_memory, for as long as its hypercall lasts.
#[derive(Debug)]
struct CallersBuffer {
    address: NonNull<u64>,
    words: usize,
}

// SAFETY: plain memory; it goes nowhere but to the simulated domain and back.
unsafe impl Send for CallersBuffer {}

impl BitmapMemory for CallersBuffer {
    fn words(&self) -> &[u64] {
        // SAFETY: `in_buffer` found all these bytes readable, and keeps them mapped; the caller_memory, who waits for the
        // hypercall's answer, does not touch them.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.words) }
    }

    fn words_mut(&mut self) -> &mut [u64] {
        // SAFETY: as above, and writable.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.words) }
    }
}
