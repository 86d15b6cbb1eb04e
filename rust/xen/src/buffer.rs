// SPDX-License-Identifier: GPL-3.0-or-later
//! Memory that hypercalls read and write. Ordinary memory will not do: the kernel may move one of its pages just when
//! the hypervisor wants it, and the hypercall then fails with `EFAULT`. This memory comes from `/dev/xen/hypercall`.

use std::{ffi::c_void, fmt, ptr::NonNull, sync::Arc};

use xenmig_hypervisor::{BitmapMemory, Errno};

use crate::{call::CallHandle, error::CallResult, interface::HYPERCALL_PAGE_BYTES};

/// Some 64-bit words of hypercall memory, in whole pages. Freed when it is dropped.
pub(super) struct HypercallBuffer {
    call: Arc<CallHandle>,
    base: NonNull<c_void>,
    words: usize,
    pages: usize,
}

// SAFETY: it owns its memory, and the handle that it came from may be used from any thread.
unsafe impl Send for HypercallBuffer {}

impl HypercallBuffer {
    /// Allocates room for `words` words, all zero; at least one page.
    pub(super) fn words_zeroed(call: &Arc<CallHandle>, words: usize) -> CallResult<Self> {
        let bytes = words.checked_mul(size_of::<u64>()).ok_or(Errno(libc::ENOMEM))?;
        let pages = bytes.div_ceil(HYPERCALL_PAGE_BYTES).max(1);
        Ok(Self { base: call.allocate(pages)?, call: Arc::clone(call), words, pages })
    }

    /// Allocates room for `bytes` bytes, all zero.
    pub(super) fn bytes_zeroed(call: &Arc<CallHandle>, bytes: usize) -> CallResult<Self> {
        Self::words_zeroed(call, bytes.div_ceil(size_of::<u64>()))
    }

    /// Returns the handle that the memory came from.
    pub(super) fn call(&self) -> &Arc<CallHandle> {
        &self.call
    }

    /// Returns the address, for a hypercall to read and write.
    pub(super) fn address(&mut self) -> *mut c_void {
        self.base.as_ptr()
    }

    /// Copies bytes to the front, as many as there is room for.
    pub(super) fn copy_in(&mut self, bytes: &[u8]) {
        for (word, bytes) in self.words_mut().iter_mut().zip(bytes.chunks(size_of::<u64>())) {
            let mut value = [0; size_of::<u64>()];
            value.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            *word = u64::from_ne_bytes(value);
        }
    }

    /// Returns a copy of the first `bytes` bytes, fewer if there are fewer.
    pub(super) fn copy_out(&self, bytes: usize) -> Vec<u8> {
        let mut copy: Vec<u8> = self.words().iter().flat_map(|word| word.to_ne_bytes()).collect();
        copy.truncate(bytes);
        copy
    }
}

impl BitmapMemory for HypercallBuffer {
    /// No words in a child of the process that allocated them: where the kernel has no `/dev/xen/hypercall`, they
    /// are not mapped there.
    fn words(&self) -> &[u64] {
        let words = if self.call.is_own_process() { self.words } else { 0 };
        // SAFETY: `base` leads to `pages` pages of our own, aligned, initialised and with room for `words` words. The
        // hypervisor writes them during a hypercall only, and each of those borrows or owns the buffer exclusively.
        unsafe { std::slice::from_raw_parts(self.base.cast().as_ptr(), words) }
    }

    fn words_mut(&mut self) -> &mut [u64] {
        let words = if self.call.is_own_process() { self.words } else { 0 };
        // SAFETY: as above, and the buffer is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.base.cast().as_ptr(), words) }
    }
}

impl Drop for HypercallBuffer {
    fn drop(&mut self) {
        // SAFETY: these are the pages that were allocated, and they are no longer used.
        unsafe { self.call.free(self.base, self.pages) };
    }
}

impl fmt::Debug for HypercallBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HypercallBuffer").field("words", &self.words).finish_non_exhaustive()
    }
}
