// SPDX-License-Identifier: GPL-3.0-or-later
//! The start info page, a page of the guest's memory. It names the pages that the guest shares with xenstore and its
//! console. These two are not emptied, as an HVM guest's are: both sides find in them how far they had come.

use xenmig_hypervisor::Access;
use xenmig_types::{
    Gfn, PAGE_SIZE_U64, Pfn,
    pv::{GuestWidth, start_info},
};

use super::{
    super::{
        channels::Channels,
        error::RestoreError,
        mapped_pages::{MappedPages, ZEROES},
        named_page::NamedPage,
        ops::SharedFrames,
        target::Target,
    },
    fields::{get, put},
    frame_map::FrameMap,
};

/// What the page is rewritten with.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartInfo {
    /// Where the guest has it.
    pub(super) pfn: Pfn,
    /// The new domain's shared info page.
    pub(super) shared_info: Gfn,
    /// How many pages the guest can have.
    pub(super) pages: u64,
    pub(super) channels: Option<Channels>,
}

impl StartInfo {
    /// Rewrites the page and returns its frame, and those of the pages that it names.
    pub(super) fn load(
        &self,
        target: &Target<'_>,
        width: GuestWidth,
        frames: &FrameMap,
    ) -> Result<(Gfn, SharedFrames), RestoreError> {
        let entry = frames.ordinary(NamedPage::StartInfo, self.pfn)?;
        let pages = [entry.page()];
        let mapped = MappedPages::new(target, &pages, Ok(vec![entry.frame]), Access::Write)?;
        let mut page = ZEROES;
        mapped.copy_out(0, &mut page)?;
        let store = frames.named(NamedPage::Store, Pfn(get(start_info::STORE_MFN, width, &page)?))?.frame;
        let console =
            frames.named(NamedPage::Console, Pfn(get(start_info::CONSOLE_MFN, width, &page)?))?.frame;
        let frame = self.shared_info;
        let shared_info = frame.0.checked_mul(PAGE_SIZE_U64).ok_or(RestoreError::FrameTooHigh { frame })?;
        for (field, value) in [
            (start_info::STORE_MFN, store.0),
            (start_info::CONSOLE_MFN, console.0),
            (start_info::NR_PAGES, self.pages),
            (start_info::SHARED_INFO, shared_info),
            (start_info::FLAGS, 0),
        ] {
            put(field, width, &mut page, value)?;
        }
        if let Some(channels) = &self.channels {
            put(start_info::STORE_EVTCHN, width, &mut page, channels.store.evtchn.into())?;
            put(start_info::CONSOLE_EVTCHN, width, &mut page, channels.console.evtchn.into())?;
        }
        mapped.copy_in(0, &page)?;
        Ok((entry.frame, SharedFrames { store: Some(store), console: Some(console) }))
    }
}
