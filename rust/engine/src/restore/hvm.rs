// SPDX-License-Identifier: GPL-3.0-or-later
//! HVM and PVH guests: a pfn is a gfn, a page is taken when it becomes a hole, and the state is a context and a few
//! parameters.
//!
//! Parameters are set as they come. The context is kept until END, since parameters decide what is valid in it and
//! libxc sends them behind it.

use xenmig_stream::{HvmParam, Record, RecordKind};
use xenmig_types::{Gfn, PAGE_SHIFT, Pfn};

use super::{Guest, Restore, RestoreError, channels::SharedPages, pages::Page, pfn_set::PfnSet};
use crate::guest::hvm;

/// Physical addresses of x86 have at most 52 bits. What the host can really do is less, and it says so itself.
const PFN_LIMIT: Pfn = Pfn(1 << (52 - PAGE_SHIFT));

/// `HVM_PARAM_PAE_ENABLED`: once a message between parts of the toolstack, in old streams still, of no meaning.
const PARAM_PAE_ENABLED: u32 = 4;

/// What is known of an HVM or PVH guest.
#[derive(Debug, Default)]
pub(super) struct Hvm {
    /// The pages that the domain was given.
    pub(super) populated: PfnSet,
    pub(super) shared: SharedPages,
    context: Option<Vec<u8>>,
}

impl Guest for Hvm {
    fn pfn_limit(&self, _offset: u64) -> Result<Pfn, RestoreError> {
        Ok(PFN_LIMIT)
    }

    fn contains(&self, pfn: Pfn) -> bool {
        self.populated.contains(pfn)
    }

    fn frames(&self, pages: &[Page]) -> Result<Vec<Gfn>, Pfn> {
        Ok(pages.iter().map(|page| hvm::gfn(page.pfn)).collect())
    }

    fn insert(&mut self, pfn: Pfn, _frame: Gfn) -> Option<()> {
        self.populated.insert(pfn);
        Some(())
    }

    fn settle(restore: &mut Restore<'_, '_, Self>) -> Result<(), RestoreError> {
        restore.vacate()?;
        if restore.verification.is_none() {
            restore.populate()?;
        }
        Ok(())
    }

    fn apply(restore: &mut Restore<'_, '_, Self>, record: Record) -> Result<(), RestoreError> {
        match record {
            Record::HvmParams(params) => restore.hvm_params(&params),
            Record::HvmContext(context) => {
                restore.guest.context = Some(context);
                Ok(())
            }
            record => {
                restore.misplaced(&record, "it belongs to a PV guest, and the stream is of an HVM guest")
            }
        }
    }

    fn finish(restore: &mut Restore<'_, '_, Self>) -> Result<(), RestoreError> {
        let channels = restore.options.channels;
        if let Some(channels) = &channels {
            restore.empty_shared_pages()?;
            restore.set_event_channels(channels)?;
        }
        restore.load_context()?;
        let SharedPages { store, console, .. } = restore.guest.shared;
        restore.report.store_gfn = store.map(Gfn);
        restore.report.console_gfn = console.map(Gfn);
        restore.grant_shared_pages()
    }
}

impl Restore<'_, '_, Hvm> {
    fn hvm_params(&mut self, params: &[HvmParam]) -> Result<(), RestoreError> {
        for HvmParam { index, value } in params.iter().copied() {
            if index != PARAM_PAE_ENABLED {
                self.guest.shared.note(index, value);
                self.set_param(index, value)?;
            }
        }
        Ok(())
    }

    pub(super) fn set_param(&mut self, index: u32, value: u64) -> Result<(), RestoreError> {
        let feed = self.reader.source_mut();
        feed.retry(|| self.host.set_hvm_param(self.domid, index, value)).map_err(|error| match error {
            RestoreError::Hypervisor(error) => RestoreError::Param { index, value, error },
            error => error,
        })
    }

    fn load_context(&mut self) -> Result<(), RestoreError> {
        let context = self.guest.context.take().ok_or(RestoreError::Missing(RecordKind::HvmContext))?;
        self.reader.source_mut().retry(|| self.host.set_hvm_context(self.domid, &context))
    }
}
