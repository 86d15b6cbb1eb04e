// SPDX-License-Identifier: GPL-3.0-or-later
//! Guest pages mapped into this process. They belong to a domain that may be running: what a read returns may be
//! torn, two reads may differ, and no reference to them may exist. So they can only be copied, whole, or handed to
//! [`Sink`](crate::Sink) and [`Source`](crate::Source), which pass their addresses to the kernel.

use std::{fmt, ptr::NonNull};

use xenmig_types::PAGE_SIZE;

use crate::Errno;

/// What a mapping may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read the pages.
    Read,
    /// To read and to write them.
    Write,
}

/// A private copy of one page.
pub type PageBuffer = [u8; PAGE_SIZE];

const WORD: usize = size_of::<u64>();

/// Mapped pages of a domain, in the order they were asked for. They are unmapped when it is dropped.
pub struct ForeignPages {
    /// One entry a page: where it is, or why it is not there.
    pages: Vec<std::result::Result<NonNull<u8>, Errno>>,
    access: Access,
    /// Its drop unmaps the pages.
    _mapping: Box<dyn Send>,
}

// SAFETY: the addresses are valid in every thread of the process for as long as `_mapping`, which is Send, lives.
unsafe impl Send for ForeignPages {}

impl ForeignPages {
    /// Takes a mapping. Dropping `mapping` must be what unmaps it.
    ///
    /// # Safety
    ///
    /// Until `mapping` is dropped, each address must be page-aligned and lead to `PAGE_SIZE` bytes that stay mapped
    /// with at least `access`, and no Rust reference to these bytes may exist.
    #[must_use]
    pub unsafe fn new(
        pages: Vec<std::result::Result<NonNull<u8>, Errno>>,
        access: Access,
        mapping: Box<dyn Send>,
    ) -> Self {
        Self { pages, access, _mapping: mapping }
    }

    /// Returns the number of pages that were asked for.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.pages.len()
    }

    /// Says whether no page was asked for.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Returns why page `index` is not mapped; `None` if it is mapped.
    #[must_use]
    pub fn error(&self, index: usize) -> Option<Errno> {
        self.pages.get(index).and_then(|page| page.as_ref().err().copied())
    }

    /// Copies page `index` into `to` and says whether it is mapped.
    pub fn copy_out(&self, index: usize, to: &mut PageBuffer) -> bool {
        let Some(page) = self.address(index) else { return false };
        let words = page.cast::<u64>();
        for (i, to) in to.chunks_exact_mut(WORD).enumerate() {
            // SAFETY: `i` is below PAGE_SIZE / 8, and the page has PAGE_SIZE bytes.
            let word = unsafe { words.add(i) };
            // SAFETY: the page is aligned and mapped (`new`); the guest may write meanwhile, so the read is volatile.
            let value = unsafe { word.read_volatile() };
            to.copy_from_slice(&value.to_ne_bytes());
        }
        true
    }

    /// Returns 64-bit word `word` of page `index`, as it is at this moment; `None` if the page is not mapped or has no such
    /// word.
    #[must_use]
    pub fn word(&self, index: usize, word: usize) -> Option<u64> {
        let page = self.address(index)?;
        if word >= PAGE_SIZE / WORD {
            return None;
        }
        // SAFETY: `word` is below PAGE_SIZE / 8, and the page has PAGE_SIZE bytes.
        let word = unsafe { page.cast::<u64>().add(word) };
        // SAFETY: the page is aligned and mapped (`new`); the guest may write meanwhile, so the read is volatile.
        Some(unsafe { word.read_volatile() })
    }

    /// Copies `from` into page `index` and says whether that could be done: the page is mapped, for writing.
    pub fn copy_in(&self, index: usize, from: &PageBuffer) -> bool {
        let Some(page) = self.address(index) else { return false };
        if self.access != Access::Write {
            return false;
        }
        let words = page.cast::<u64>();
        for (i, from) in from.chunks_exact(WORD).enumerate() {
            let mut value = [0; WORD];
            value.copy_from_slice(from);
            // SAFETY: `i` is below PAGE_SIZE / 8, and the page has PAGE_SIZE bytes.
            let word = unsafe { words.add(i) };
            // SAFETY: the page is aligned and mapped for writing (`new`, and the check above).
            unsafe { word.write_volatile(u64::from_ne_bytes(value)) };
        }
        true
    }

    /// Returns the address of page `index`, to be given to the kernel.
    pub(crate) fn address(&self, index: usize) -> Option<NonNull<u8>> {
        self.pages.get(index).and_then(|page| page.as_ref().ok().copied())
    }

    /// Returns what the mapping may be used for.
    pub(crate) const fn access(&self) -> Access {
        self.access
    }
}

impl fmt::Debug for ForeignPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mapped = self.pages.iter().filter(|page| page.is_ok()).count();
        f.debug_struct("ForeignPages")
            .field("asked", &self.pages.len())
            .field("mapped", &mapped)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}
