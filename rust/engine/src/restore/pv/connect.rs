// SPDX-License-Identifier: GPL-3.0-or-later
//! The two pages by which a PV guest and its host know each other: shared info, which is Xen's own and is the new
//! domain's, and start info, a page of the guest's memory, which names the pages that it shares with xenstore and its
//! console.
//!
//! Those two pages are not emptied, as an HVM guest's are: both sides find in them how far they had come.

use xenmig_hypervisor::{Access, HypervisorError};
use xenmig_stream::RecordKind;
use xenmig_types::{
    Gfn, PAGE_SIZE_U64, Pfn,
    pv::{GuestWidth, shared_info, start_info},
};

use super::{
    super::{
        NamedPage, Restore, RestoreError,
        pages::{EFAULT, ZEROES},
    },
    Pv, field, put,
};

impl Restore<'_, '_, Pv> {
    /// Puts what the guest had in its shared info page into that of the new domain: its vCPUs' and the architecture's
    /// part. Its event channels are gone, and so is the tree of its p2m, which it makes anew. What else there is, the
    /// clock among it, is the new domain's.
    pub(super) fn connect_shared_info(&mut self, width: GuestWidth) -> Result<(), RestoreError> {
        let from = self.guest.shared_info.take().ok_or(RestoreError::Missing(RecordKind::SharedInfo))?;
        let frame = self.guest.shared_info_frame;
        let mapped = self.reader.source_mut().retry(|| self.host.map(self.domid, &[frame], Access::Write))?;
        let mut page = ZEROES;
        let unmapped = || {
            HypervisorError::call(
                "mapping the shared info page",
                self.domid,
                mapped.error(0).unwrap_or(EFAULT).0,
            )
        };
        if !mapped.copy_out(0, &mut page) {
            return Err(unmapped().into());
        }
        for part in [shared_info::VCPU_INFO, shared_info::arch(width)] {
            if let (Some(to), Some(from)) = (page.get_mut(part.clone()), from.get(part)) {
                to.copy_from_slice(from);
            }
        }
        put(shared_info::FRAME_LIST_LIST, width, &mut page, 0)?;
        for vcpu in 0..shared_info::VCPUS {
            let words = shared_info::VCPU_INFO_BYTES / usize::from(width.bytes());
            put(shared_info::PENDING_SELECTOR.at(vcpu * words), width, &mut page, 0)?;
        }
        for (channels, byte) in [(shared_info::pending(width), 0), (shared_info::mask(width), 0xff)] {
            if let Some(channels) = page.get_mut(channels) {
                channels.fill(byte);
            }
        }
        if mapped.copy_in(0, &page) { Ok(()) } else { Err(unmapped().into()) }
    }

    /// Rewrites the start info page, which is at `pfn`, and returns its frame.
    pub(super) fn connect_start_info(&mut self, width: GuestWidth, pfn: Pfn) -> Result<Gfn, RestoreError> {
        let entry = self.plain(NamedPage::StartInfo, pfn)?;
        let Some(mapped) = self.map(&[entry.page()], Access::Write)? else { return Err(self.unmapped(pfn)) };
        let mut page = ZEROES;
        if !mapped.copy_out(0, &mut page) {
            return Err(self.unmapped(pfn));
        }
        let store = self.named(NamedPage::Store, Pfn(field(start_info::STORE_MFN, width, &page)?))?.frame;
        let console =
            self.named(NamedPage::Console, Pfn(field(start_info::CONSOLE_MFN, width, &page)?))?.frame;
        let frame = self.guest.shared_info_frame;
        let shared_info = frame.0.checked_mul(PAGE_SIZE_U64).ok_or(RestoreError::FrameTooHigh { frame })?;
        let pages = self.guest.frames.highest().map_or(0, |highest| highest.0 + 1);
        for (field, value) in [
            (start_info::STORE_MFN, store.0),
            (start_info::CONSOLE_MFN, console.0),
            (start_info::NR_PAGES, pages),
            (start_info::SHARED_INFO, shared_info),
            (start_info::FLAGS, 0),
        ] {
            put(field, width, &mut page, value)?;
        }
        if let Some(channels) = &self.options.channels {
            put(start_info::STORE_EVTCHN, width, &mut page, channels.store.evtchn.into())?;
            put(start_info::CONSOLE_EVTCHN, width, &mut page, channels.console.evtchn.into())?;
        }
        self.copy_in(&mapped, 0, pfn, &page)?;
        self.report.store_gfn = Some(store);
        self.report.console_gfn = Some(console);
        Ok(entry.frame)
    }
}
