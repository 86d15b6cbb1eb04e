// SPDX-License-Identifier: GPL-3.0-or-later
//! The words of a PAGE_DATA record, checked and taken apart.

use xenmig_stream::{PageWord, StreamError};
use xenmig_types::{PageType, Pfn, UnknownPageType};

use super::error::RestoreError;

/// A pfn and the type of its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypedPfn {
    pub(super) pfn: Pfn,
    pub(super) kind: PageType,
}

impl TypedPfn {
    /// Takes words apart. `offset` is where their record begins.
    pub(super) fn from_words(words: &[PageWord], offset: u64) -> Result<Vec<Self>, RestoreError> {
        let typed = |word: &PageWord| {
            let pfn = word.pfn();
            let unknown = |UnknownPageType(found)| StreamError::PageType { offset, pfn, found };
            Ok(Self { pfn, kind: word.page_type().map_err(unknown)? })
        };
        words.iter().map(typed).collect()
    }
}

/// Checks the pfns of a record that begins at `offset`: each is below `limit`, and none occurs twice.
pub(super) fn check_pfns(words: &[PageWord], limit: Pfn, offset: u64) -> Result<(), RestoreError> {
    if let Some(word) = words.iter().find(|word| word.pfn() >= limit) {
        return Err(RestoreError::PfnTooHigh { offset, pfn: word.pfn() });
    }
    // Senders walk upward, so there is rarely anything to sort.
    if words.is_sorted_by(|a, b| a.pfn() < b.pfn()) {
        return Ok(());
    }
    let mut pfns: Vec<Pfn> = words.iter().map(|word| word.pfn()).collect();
    pfns.sort_unstable();
    match pfns.iter().zip(pfns.iter().skip(1)).find(|(a, b)| a == b) {
        Some((pfn, _)) => Err(RestoreError::PfnTwice { offset, pfn: *pfn }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pfns: &[u64]) -> Result<(), RestoreError> {
        let words: Vec<_> = pfns.iter().map(|pfn| PageWord::new(Pfn(*pfn), PageType::Notab)).collect();
        check_pfns(&words, Pfn(100), 40)
    }

    #[test]
    fn pfns_in_any_order_are_taken_once() {
        for pfns in [&[][..], &[0, 1, 99], &[99, 4, 0, 5]] {
            assert!(check(pfns).is_ok(), "{pfns:?}");
        }
        assert!(matches!(check(&[5, 4, 7, 5]), Err(RestoreError::PfnTwice { offset: 40, pfn: Pfn(5) })));
        assert!(matches!(check(&[5, 100, 5]), Err(RestoreError::PfnTooHigh { offset: 40, pfn: Pfn(100) })));
    }
}
