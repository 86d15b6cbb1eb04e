// SPDX-License-Identifier: GPL-3.0-or-later
//! HVM and PVH guests: a pfn is a gfn, a page is taken away when it becomes a hole, and the state is a context and a few
//! parameters.
//!
//! Parameters are set as they come. The context is kept until END, since parameters decide what is valid in it and libxc
//! sends them after it.
//!
//! The pages that the guest shares with xenstore, its console and its device model are part of its memory. Their contents
//! concern the sender's host, so they are emptied, at END: a page may come after the parameters that name it. Source:
//! `public/hvm/params.h`.

use xenmig_hypervisor::{Access, Extent, HypervisorError};
use xenmig_stream::{HvmParam, Record, RecordKind};
use xenmig_types::{Gfn, PAGE_SHIFT, PageType, Pfn};

use super::{
    channels::Channels,
    error::RestoreError,
    events::RestoreProgress,
    grants,
    mapped_pages::{MappedPages, ZEROES},
    ops::{RestoreOps, SharedFrames},
    options::RestoreOptions,
    pfn_set::{PfnSet, SUPERPAGE_PAGES, superpage_of},
    static_data::StaticData,
    target::Target,
    typed_pfn::TypedPfn,
};
use crate::guest::hvm_save::gfn;

/// Physical addresses of x86 have at most 52 bits. The host's own limit is lower, and the host enforces it.
const PFN_LIMIT: Pfn = Pfn(1 << (52 - PAGE_SHIFT));

/// `HVM_PARAM_PAE_ENABLED`: once a message between parts of the toolstack, still in old streams, without meaning.
const PARAM_PAE_ENABLED: u32 = 4;
/// `HVM_PARAM_STORE_PFN`, `HVM_PARAM_IOREQ_PFN`, `HVM_PARAM_BUFIOREQ_PFN`, `HVM_PARAM_CONSOLE_PFN`.
const STORE_PFN: u32 = 1;
const IOREQ_PFN: u32 = 5;
const BUFIOREQ_PFN: u32 = 6;
const CONSOLE_PFN: u32 = 17;
/// `HVM_PARAM_STORE_EVTCHN`, `HVM_PARAM_CONSOLE_EVTCHN`.
const STORE_EVTCHN: u32 = 2;
const CONSOLE_EVTCHN: u32 = 18;

/// The pages that the stream's parameters name.
#[derive(Clone, Copy, Debug, Default)]
struct SharedPages {
    store: Option<u64>,
    console: Option<u64>,
    ioreq: Option<u64>,
    bufioreq: Option<u64>,
}

impl SharedPages {
    /// Takes note of a parameter; the last one of a kind holds.
    const fn note(&mut self, index: u32, value: u64) {
        let page = match index {
            STORE_PFN => &mut self.store,
            CONSOLE_PFN => &mut self.console,
            IOREQ_PFN => &mut self.ioreq,
            BUFIOREQ_PFN => &mut self.bufioreq,
            _ => return,
        };
        *page = Some(value);
    }
}

/// What is known of an HVM or PVH guest.
#[derive(Debug)]
pub(super) struct HvmRestore {
    /// The pages that the domain was given.
    populated: PfnSet,
    uses_superpages: bool,
    channels: Option<Channels>,
    shared: SharedPages,
    context: Option<Vec<u8>>,
}

impl HvmRestore {
    /// Begins with an empty domain.
    pub(super) fn new(options: &RestoreOptions) -> Self {
        Self {
            populated: PfnSet::default(),
            uses_superpages: options.superpages,
            channels: options.channels,
            shared: SharedPages::default(),
            context: None,
        }
    }

    /// Takes away each page of the batch that is a hole now but was a page earlier in the stream. A page left behind would
    /// count against the domain's limit, and would be in the way when the guest balloons in again.
    fn vacate(
        &mut self,
        batch: &[TypedPfn],
        target: &Target<'_>,
        progress: &mut RestoreProgress,
    ) -> Result<(), RestoreError> {
        let holes = batch.iter().filter(|page| page.kind == PageType::Xtab).map(|page| page.pfn);
        let stale: Vec<Pfn> = holes.filter(|pfn| self.populated.contains(*pfn)).collect();
        if stale.is_empty() {
            return Ok(());
        }
        let gfns: Vec<Gfn> = stale.iter().copied().map(gfn).collect();
        target.call(|host, domid| host.depopulate(domid, &gfns))?;
        for pfn in &stale {
            self.populated.remove(*pfn);
        }
        progress.pages_depopulated += stale.len() as u64;
        Ok(())
    }

    /// Gives the domain each page of the batch that it needs and does not have.
    fn populate(
        &mut self,
        batch: &[TypedPfn],
        target: &Target<'_>,
        progress: &mut RestoreProgress,
    ) -> Result<(), RestoreError> {
        let (mut whole, mut single) = (Vec::new(), Vec::new());
        for group in batch.chunk_by(|a, b| superpage_of(a.pfn) == superpage_of(b.pfn)) {
            let Some(first) = group.first() else { continue };
            let there = self.populated.block(first.pfn);
            let wanted = group.iter().filter(|page| page.kind.is_populated() && !there.contains(page.pfn));
            let before = single.len();
            single.extend(wanted.map(|page| page.pfn));
            // No pfn is in a batch twice, so if there are as many as a superpage has, they are all of it.
            if self.uses_superpages && (single.len() - before) as u64 == SUPERPAGE_PAGES {
                whole.push(Pfn(superpage_of(first.pfn) * SUPERPAGE_PAGES));
                single.truncate(before);
            }
        }
        for refused in self.populate_superpages(&whole, target, progress)? {
            single.extend((refused.0..refused.0 + SUPERPAGE_PAGES).map(Pfn));
        }
        target.populate(&single, progress)?;
        for pfn in single {
            self.populated.insert(pfn);
        }
        Ok(())
    }

    /// Gives superpages and returns those that the host could not give: its memory may be too fragmented.
    fn populate_superpages<'w>(
        &mut self,
        whole: &'w [Pfn],
        target: &Target<'_>,
        progress: &mut RestoreProgress,
    ) -> Result<&'w [Pfn], RestoreError> {
        if whole.is_empty() {
            return Ok(whole);
        }
        let given = match target.populate_extents(whole, Extent::Superpage) {
            Ok((_, given)) => given,
            // If it matters, asking for small pages fails in the same way.
            Err(RestoreError::Hypervisor(HypervisorError::Call { .. })) => 0,
            Err(error) => return Err(error),
        };
        let (given, refused) = whole.split_at_checked(given).unwrap_or((whole, &[]));
        for first in given {
            self.populated.insert_superpage(*first);
        }
        progress.superpages += given.len() as u64;
        progress.pages_populated += given.len() as u64 * SUPERPAGE_PAGES;
        Ok(refused)
    }

    /// Empties the shared pages that exist: parameters may name some that the guest does not have.
    fn empty_shared_pages(&self, target: &Target<'_>) -> Result<(), RestoreError> {
        let SharedPages { store, console, ioreq, bufioreq } = self.shared;
        let named = [store, console, ioreq, bufioreq].into_iter().flatten().map(Pfn);
        let pages: Vec<TypedPfn> = named
            .filter(|pfn| self.populated.contains(*pfn))
            .map(|pfn| TypedPfn { pfn, kind: PageType::Notab })
            .collect();
        let mapped = MappedPages::new(target, &pages, self.frames(&pages), Access::Write)?;
        (0..pages.len()).try_for_each(|index| mapped.copy_in(index, &ZEROES))
    }
}

impl RestoreOps for HvmRestore {
    fn pfn_limit(&self) -> Result<Pfn, &'static str> {
        Ok(PFN_LIMIT)
    }

    fn is_populated(&self, pfn: Pfn) -> bool {
        self.populated.contains(pfn)
    }

    fn frames(&self, pages: &[TypedPfn]) -> Result<Vec<Gfn>, Pfn> {
        Ok(pages.iter().map(|page| gfn(page.pfn)).collect())
    }

    fn settle(
        &mut self,
        batch: &[TypedPfn],
        fills: bool,
        target: &Target<'_>,
        progress: &mut RestoreProgress,
    ) -> Result<(), RestoreError> {
        self.vacate(batch, target, progress)?;
        if fills { self.populate(batch, target, progress) } else { Ok(()) }
    }

    fn apply(
        &mut self,
        record: Record,
        offset: u64,
        _static_data: &StaticData,
        target: &Target<'_>,
    ) -> Result<(), RestoreError> {
        match record {
            Record::HvmParams(params) => {
                for HvmParam { index, value } in params {
                    if index != PARAM_PAE_ENABLED {
                        self.shared.note(index, value);
                        set_param(target, index, value)?;
                    }
                }
                Ok(())
            }
            Record::HvmContext(context) => {
                self.context = Some(context);
                Ok(())
            }
            record => {
                let why = "it belongs to a PV guest, and the stream is of an HVM guest";
                RestoreError::misplaced(&record, offset, why)
            }
        }
    }

    fn finish(
        &mut self,
        target: &Target<'_>,
        _progress: &mut RestoreProgress,
    ) -> Result<SharedFrames, RestoreError> {
        if let Some(channels) = &self.channels {
            self.empty_shared_pages(target)?;
            set_param(target, STORE_EVTCHN, channels.store.evtchn.into())?;
            set_param(target, CONSOLE_EVTCHN, channels.console.evtchn.into())?;
        }
        let context = self.context.take().ok_or(RestoreError::Missing(RecordKind::HvmContext))?;
        target.call(|host, domid| host.set_hvm_context(domid, &context))?;
        let frames =
            SharedFrames { store: self.shared.store.map(Gfn), console: self.shared.console.map(Gfn) };
        if let Some(channels) = &self.channels {
            grants::grant(channels, target, frames)?;
        }
        Ok(frames)
    }
}

fn set_param(target: &Target<'_>, index: u32, value: u64) -> Result<(), RestoreError> {
    target.call(|host, domid| host.set_hvm_param(domid, index, value)).map_err(|error| match error {
        RestoreError::Hypervisor(error) => RestoreError::Param { index, value, error },
        error => error,
    })
}
