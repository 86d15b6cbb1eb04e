// SPDX-License-Identifier: GPL-3.0-or-later
//! Mapped pages of the domain, whose errors name the pfn.

use xenmig_hypervisor::{Access, Errno, ForeignPages, PageBuffer};
use xenmig_types::{Domid, Gfn, PAGE_SIZE, Pfn};

use super::{error::RestoreError, target::Target, typed_pfn::TypedPfn};

/// `EFAULT` of Linux.
const EFAULT: Errno = Errno(14);

/// A page of zeroes.
pub(super) const ZEROES: PageBuffer = [0; PAGE_SIZE];

/// Pages that are mapped, all of them. They are unmapped when it is dropped.
#[derive(Debug)]
pub(super) struct MappedPages<'p> {
    domid: Domid,
    pages: &'p [TypedPfn],
    /// `None` if there are no pages.
    mapped: Option<ForeignPages>,
}

impl<'p> MappedPages<'p> {
    /// Maps pages. `frames` are theirs, or else the pfn that has none.
    pub(super) fn new(
        target: &Target<'_>,
        pages: &'p [TypedPfn],
        frames: Result<Vec<Gfn>, Pfn>,
        access: Access,
    ) -> Result<Self, RestoreError> {
        let domid = target.domid();
        if pages.is_empty() {
            return Ok(Self { domid, pages, mapped: None });
        }
        let frames = frames.map_err(|pfn| RestoreError::Map { domid, pfn, errno: EFAULT })?;
        let mapped = target.call(|host, domid| host.map(domid, &frames, access))?;
        for (index, page) in pages.iter().enumerate() {
            if let Some(errno) = mapped.error(index) {
                return Err(RestoreError::Map { domid, pfn: page.pfn, errno });
            }
        }
        Ok(Self { domid, pages, mapped: Some(mapped) })
    }

    /// Returns the mapping; `None` if there are no pages.
    pub(super) const fn foreign(&self) -> Option<&ForeignPages> {
        self.mapped.as_ref()
    }

    /// Copies page `index` into `contents`.
    pub(super) fn copy_out(&self, index: usize, contents: &mut PageBuffer) -> Result<(), RestoreError> {
        self.check(index, self.mapped.as_ref().is_some_and(|mapped| mapped.copy_out(index, contents)))
    }

    /// Copies `contents` into page `index`.
    pub(super) fn copy_in(&self, index: usize, contents: &PageBuffer) -> Result<(), RestoreError> {
        self.check(index, self.mapped.as_ref().is_some_and(|mapped| mapped.copy_in(index, contents)))
    }

    fn check(&self, index: usize, copied: bool) -> Result<(), RestoreError> {
        if copied {
            return Ok(());
        }
        let pfn = self.pages.get(index).map(|page| page.pfn).unwrap_or_default();
        Err(RestoreError::Map { domid: self.domid, pfn, errno: EFAULT })
    }
}
