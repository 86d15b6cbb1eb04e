// SPDX-License-Identifier: GPL-3.0-or-later
//! What connects a guest to its toolstack: the pages that it shares with xenstore, its console and its device model,
//! the event channels of the first two, and the grants by which those map their pages.
//!
//! An HVM guest's pages are its memory, and the stream says where they are (HVM_PARAMS). What is in them concerns the
//! sender's host. So they are emptied, when everything of the stream is read: a page may come behind the parameters.
//! The event channels are the new domain's own, and the toolstack's to name. Without them the domain is restored as it
//! was saved, to the last byte of memory. A PV guest has its pages in start info (pv/connect.rs), and they are granted
//! in the same way. Source: `public/hvm/params.h`.

use xenmig_hypervisor::{Access, ReservedEntry, ReservedGrant};
use xenmig_types::{Domid, Gfn, PageType, Pfn};

use super::{
    Guest, Restore, RestoreError,
    hvm::Hvm,
    pages::{Page, ZEROES},
};

/// `HVM_PARAM_STORE_PFN`, `HVM_PARAM_IOREQ_PFN`, `HVM_PARAM_BUFIOREQ_PFN`, `HVM_PARAM_CONSOLE_PFN`.
const STORE_PFN: u32 = 1;
const IOREQ_PFN: u32 = 5;
const BUFIOREQ_PFN: u32 = 6;
const CONSOLE_PFN: u32 = 17;
/// `HVM_PARAM_STORE_EVTCHN`, `HVM_PARAM_CONSOLE_EVTCHN`.
const STORE_EVTCHN: u32 = 2;
const CONSOLE_EVTCHN: u32 = 18;

/// An event channel of the new domain, which the toolstack has allocated in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its port in the new domain.
    pub evtchn: u32,
    /// The domain at the other end, which may map the page that belongs to the channel.
    pub domid: Domid,
}

/// The event channels of a new domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// To xenstore.
    pub store: Channel,
    /// To the console.
    pub console: Channel,
}

/// The pages that the stream's parameters name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SharedPages {
    pub(super) store: Option<u64>,
    pub(super) console: Option<u64>,
    ioreq: Option<u64>,
    bufioreq: Option<u64>,
}

impl SharedPages {
    /// Takes note of a parameter; the last one of a kind holds.
    pub(super) const fn note(&mut self, index: u32, value: u64) {
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

impl Restore<'_, '_, Hvm> {
    /// Empties the pages that the guest shares, as far as there are such pages: the parameters may name some that no
    /// guest of this kind has.
    pub(super) fn empty_shared_pages(&mut self) -> Result<(), RestoreError> {
        let SharedPages { store, console, ioreq, bufioreq } = self.guest.shared;
        let named = [store, console, ioreq, bufioreq].into_iter().flatten().map(Pfn);
        let pages: Vec<Page> = named
            .filter(|pfn| self.guest.contains(*pfn))
            .map(|pfn| Page { pfn, kind: PageType::Notab })
            .collect();
        let Some(mapped) = self.map(&pages, Access::Write)? else { return Ok(()) };
        pages.iter().enumerate().try_for_each(|(index, page)| self.copy_in(&mapped, index, page.pfn, &ZEROES))
    }

    /// Tells the guest its event channels.
    pub(super) fn set_event_channels(&mut self, channels: &Channels) -> Result<(), RestoreError> {
        self.set_param(STORE_EVTCHN, channels.store.evtchn.into())?;
        self.set_param(CONSOLE_EVTCHN, channels.console.evtchn.into())
    }
}

impl<G: Guest> Restore<'_, '_, G> {
    /// Grants the pages that the report names to the domains at the other ends of their channels, if there are channels.
    /// A domain needs no grant for its own.
    pub(super) fn grant_shared_pages(&mut self) -> Result<(), RestoreError> {
        let Some(Channels { store, console }) = self.options.channels else { return Ok(()) };
        let grant = |entry, gfn: Option<Gfn>, channel: Channel| {
            let grant = ReservedGrant { entry, backend: channel.domid, gfn: gfn? };
            (channel.domid != self.domid).then_some(grant)
        };
        let console = grant(ReservedEntry::Console, self.report.console_gfn, console);
        let store = grant(ReservedEntry::Xenstore, self.report.store_gfn, store);
        let grants: Vec<_> = console.into_iter().chain(store).collect();
        if let Some(grant) = grants.iter().find(|grant| u32::try_from(grant.gfn.0).is_err()) {
            return Err(RestoreError::NoGrant { domid: self.domid, gfn: grant.gfn });
        }
        if grants.is_empty() {
            return Ok(());
        }
        self.reader.source_mut().retry(|| self.host.seed_grants(self.domid, &grants))
    }
}
