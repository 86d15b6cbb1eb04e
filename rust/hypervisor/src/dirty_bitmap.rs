// SPDX-License-Identifier: GPL-3.0-or-later
//! The log-dirty bitmap, in memory that the hypervisor chooses.

use std::fmt;

use crate::{HypervisorError, Result};

/// The memory of a bitmap: ordinary for the simulated host, hypercall-safe for Xen.
pub trait BitmapMemory: Send + fmt::Debug {
    /// Returns the bitmap's words.
    fn words(&self) -> &[u64];
    /// Returns the bitmap's words, to be written.
    fn words_mut(&mut self) -> &mut [u64];
}

impl BitmapMemory for Vec<u64> {
    fn words(&self) -> &[u64] {
        self
    }

    fn words_mut(&mut self) -> &mut [u64] {
        self
    }
}

/// Allocates `count` words of zeroes in ordinary memory: what grows with the guest must not abort the process where
/// memory is short.
///
/// # Errors
///
/// [`HypervisorError::OutOfMemory`], which names `what`.
pub fn zeroed_words(count: usize, what: &'static str) -> Result<Vec<u64>> {
    let mut words = Vec::new();
    let bytes = count.saturating_mul(size_of::<u64>());
    words.try_reserve_exact(count).map_err(|_| HypervisorError::OutOfMemory { what, bytes })?;
    words.resize(count, 0);
    Ok(words)
}

/// One bit for each pfn, bit 0 of word 0 first. Bits from [`DirtyBitmap::pages`] on are always clear.
#[derive(Debug)]
pub struct DirtyBitmap {
    memory: Box<dyn BitmapMemory>,
    pages: u64,
}

impl DirtyBitmap {
    /// Takes `memory`, which holds one bit for each of `pages` pages, as a bitmap.
    /// Returns `None` if it does not have exactly the words that this takes.
    #[must_use]
    pub fn new(memory: Box<dyn BitmapMemory>, pages: u64) -> Option<Self> {
        let fits = u64::try_from(memory.words().len()) == Ok(pages.div_ceil(64));
        fits.then_some(Self { memory, pages })
    }

    /// Returns the number of pages, that is of bits.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// Returns the words.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        self.memory.words()
    }

    /// Lets `write` fill the words, then clears the bits after the last page: a hypervisor may leave rubbish there.
    pub fn fill<R>(&mut self, write: impl FnOnce(&mut [u64]) -> R) -> R {
        let result = write(self.memory.words_mut());
        let used = self.pages % 64;
        if used != 0
            && let Some(last) = self.memory.words_mut().last_mut()
        {
            *last &= (1 << used) - 1;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_behind_the_last_page_are_cleared() {
        let mut bitmap = DirtyBitmap::new(Box::new(vec![0; 2]), 65).unwrap();
        bitmap.fill(|words| words.fill(u64::MAX));
        assert_eq!(bitmap.words(), [u64::MAX, 1]);
    }

    #[test]
    fn a_memory_of_another_size_is_refused() {
        assert!(DirtyBitmap::new(Box::new(vec![0; 2]), 64).is_none());
        assert!(DirtyBitmap::new(Box::new(vec![0; 1]), 65).is_none());
    }

    #[test]
    fn memory_that_there_is_not_is_an_error() {
        assert_eq!(zeroed_words(3, "a bitmap"), Ok(vec![0; 3]));
        let bytes = isize::MAX as usize & !7;
        let error = zeroed_words(bytes / 8, "a bitmap").unwrap_err();
        assert_eq!(error, HypervisorError::OutOfMemory { what: "a bitmap", bytes });
        assert_eq!(error.to_string(), format!("there is no memory for a bitmap, {bytes} bytes"));
    }
}
