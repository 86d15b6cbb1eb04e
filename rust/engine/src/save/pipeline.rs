// SPDX-License-Identifier: GPL-3.0-or-later
//! The way of a page through a save: claimed, prepared, written, entered into the account.

use xenmig_hypervisor::{CleanPass, SaveClaim, Sink};
use xenmig_types::{DomainInfo, Pfn};

use super::{
    claims::Claims,
    decide::Decide,
    prepare::{Pass, Prepare, Prepared},
    save_error::SaveError,
    save_options::SaveOptions,
    write::Write,
};
use crate::{
    bitmap::{self, MAX_BATCH_PAGES},
    guest::{
        self,
        save_ops::{Domain, SaveWatch},
    },
    policy::{
        Policy,
        ledger::{BatchCounts, Ledger},
    },
};

/// The parts of a save that is under way.
#[derive(Debug)]
pub(crate) struct Pipeline<'a> {
    pub(crate) domain: Domain<'a>,
    pub(crate) options: &'a SaveOptions,
    /// Pages of memory that the domain had when the save began.
    pub(crate) ram_pages: u64,
    pub(crate) claims: Claims,
    pub(crate) prepare: Prepare<'a>,
    pub(crate) write: Write<'a>,
    pub(crate) decide: Decide<'a>,
    /// The pages of the current batch, ascending.
    pub(crate) pfns: Vec<Pfn>,
    /// The buffers of a batch, which serve every batch.
    batch: Prepared,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(
        domain: Domain<'a>,
        info: &DomainInfo,
        claim: &'a SaveClaim,
        sink: &'a mut Sink,
        options: &'a SaveOptions,
        policy: &'a mut dyn Policy,
        mut watch: SaveWatch<'a>,
    ) -> Result<Self, SaveError> {
        let Domain { host, domid } = domain;
        let ram_pages = info.total_pages;
        let guest = guest::open(domain, info, &mut watch)?;
        let p2m_size = guest.p2m_size(domain, &mut watch)?;
        let bitmap = watch.retry(|| host.dirty_bitmap(domid, p2m_size))?;
        let ledger = Ledger::new(p2m_size, ram_pages, watch.tick());
        Ok(Self {
            domain,
            options,
            ram_pages,
            claims: Claims::new(bitmap)?,
            prepare: Prepare::new(domain, guest),
            write: Write::new(sink),
            decide: Decide::new(domain, claim, watch, policy, options, ledger),
            pfns: Vec::with_capacity(MAX_BATCH_PAGES),
            batch: Prepared::new(),
        })
    }

    /// Asks the hypervisor about the domain.
    pub(crate) fn info(&mut self) -> Result<DomainInfo, SaveError> {
        let Domain { host, domid } = self.domain;
        Ok(self.decide.watch.retry(|| host.domain_info(domid))?)
    }

    /// Sends the pages that are in `pfns`, enters them into the account, and says whether anything was written. `skipped`
    /// pages of the batch were left out before.
    pub(crate) fn send_batch(&mut self, pass: Pass, skipped: u64) -> Result<bool, SaveError> {
        let began = self.decide.watch.tick();
        self.prepare.batch(&self.pfns, pass, &mut self.batch, &mut self.decide.watch)?;
        let bytes = self.write.batch(&self.batch, &mut self.decide)?;
        let claims = &mut self.claims;
        let counts = BatchCounts {
            claimed: self.pfns.len() as u64 + skipped,
            sent: self.batch.sent,
            skipped,
            deferred: self.batch.deferred.iter().map(|pfn| u64::from(claims.owe(*pfn))).sum(),
            bytes,
        };
        self.batch.clear();
        let time = self.decide.watch.tick().since(began);
        self.decide.ledger.enter(&counts, time);
        Ok(bytes > 0)
    }

    /// Fetches and clears the log-dirty bitmap, and returns how many pages it holds. The count is the bitmap's own: the
    /// hypercall's is 32 bits wide.
    pub(crate) fn clean(&mut self, pass: CleanPass) -> Result<u64, SaveError> {
        let Domain { host, domid } = self.domain;
        self.decide.watch.tick();
        let bitmap = &mut self.claims.bitmap;
        self.decide.watch.retry(|| host.clean(domid, Some(bitmap), pass))?;
        let dirty = bitmap::count(bitmap.words());
        self.decide.cleaned(dirty);
        Ok(dirty)
    }
}
