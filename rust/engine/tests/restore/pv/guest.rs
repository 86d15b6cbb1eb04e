// SPDX-License-Identifier: GPL-3.0-or-later
//! A PV guest of either width that fits on a page, its stream, and the check that a restored one is the same.

use std::collections::BTreeMap;

use xenmig_engine::restore::{Channel, Channels, RestoreFailure, RestoreOptions, RestoreReport};
use xenmig_hypervisor::PageBuffer;
use xenmig_stream::encode;
use xenmig_types::{
    Domid, GuestKind, PAGE_SIZE, PageType, Pfn, VcpuPart,
    pv::{Field, GuestWidth, Pte, shared_info, start_info, vcpu_context},
};

use super::{
    super::build::{Quiet, Stream, TSC, policy, restore_on},
    host::{PvHost, SHARED_INFO_FILL, SHARED_INFO_FRAME},
};

/// Where the guest has what. The p2m is on P2M, P2M_NEXT, and for 64 bits P2M_LAST.
pub(crate) const P2M: u64 = 0;
pub(crate) const START_INFO: u64 = 1;
pub(crate) const STORE: u64 = 2;
pub(crate) const CONSOLE: u64 = 3;
pub(crate) const GDT: u64 = 4;
pub(crate) const L1: u64 = 5;
pub(crate) const L2: u64 = 6;
pub(crate) const L3: u64 = 7;
pub(crate) const L4: u64 = 8;
pub(crate) const USER_L4: u64 = 9;
pub(crate) const DATA: std::ops::Range<u64> = 10..20;
pub(crate) const P2M_NEXT: u64 = 20;
pub(crate) const P2M_LAST: u64 = 21;
pub(crate) const HIGHEST: u64 = 1030;
/// What the rest of the last page of the p2m is filled with.
pub(crate) const P2M_FILL: u8 = 0x21;

/// Entries of the flags that the guest uses: writable, and read-only.
const READ_WRITE: u64 = 0x8000_0000_0000_0067;
const READ_ONLY: u64 = 0x65;

/// A guest: what its pages hold as the stream has them, and its vCPUs.
#[derive(Clone, Debug)]
pub(crate) struct PvGuest {
    pub(crate) width: GuestWidth,
    pub(crate) pages: BTreeMap<u64, (PageType, PageBuffer)>,
    pub(crate) vcpus: Vec<(u32, VcpuPart, Vec<u8>)>,
}

/// A page of entries, at these places.
pub(crate) fn table(entries: impl IntoIterator<Item = (usize, u64, u64)>) -> PageBuffer {
    let mut page = [0; PAGE_SIZE];
    // An entry that is not present may say anything.
    page[4080..4088].copy_from_slice(&0x0123_4567_89ab_cdee_u64.to_le_bytes());
    for (index, pfn, flags) in entries {
        let pte = Pte(flags).with_frame(pfn).unwrap();
        page[index * 8..][..8].copy_from_slice(&pte.0.to_le_bytes());
    }
    page
}

pub(crate) fn set(page: &mut [u8], width: GuestWidth, field: Field, value: u64) {
    field.set(width, page, value).unwrap();
}

pub(crate) fn get(page: &[u8], width: GuestWidth, field: Field) -> u64 {
    field.get(width, page).unwrap()
}

/// Both widths.
pub(crate) const WIDTHS: [GuestWidth; 2] = [GuestWidth::Bits32, GuestWidth::Bits64];

impl PvGuest {
    pub(crate) fn new(width: GuestWidth) -> Self {
        let mut guest = Self { width, pages: BTreeMap::new(), vcpus: Vec::new() };
        let is_wide = width == GuestWidth::Bits64;
        for pfn in DATA.chain([GDT, HIGHEST]) {
            guest.plain(pfn, [pfn as u8; PAGE_SIZE]);
        }
        guest.plain(STORE, [0x55; PAGE_SIZE]);
        guest.plain(CONSOLE, [0x66; PAGE_SIZE]);
        for pfn in [P2M, P2M_NEXT, P2M_LAST] {
            guest.plain(pfn, [P2M_FILL; PAGE_SIZE]);
        }

        let mut start = [0x11; PAGE_SIZE];
        set(&mut start, width, start_info::STORE_MFN, STORE);
        set(&mut start, width, start_info::CONSOLE_MFN, CONSOLE);
        guest.plain(START_INFO, start);

        let data = DATA.chain([P2M, START_INFO, HIGHEST]).map(|pfn| (pfn as usize % 500, pfn, READ_WRITE));
        let tables = [L1, L2, L3].map(|pfn| (300 + pfn as usize, pfn, READ_ONLY));
        let twice = [(400, DATA.start, READ_ONLY)];
        guest.pages.insert(L1, (PageType::L1, table(data.chain(tables).chain(twice))));
        guest.pages.insert(L2, (PageType::L2, table([(0, L1, 0x67), (511, L1, 0x67)])));
        let l3 = table([(0, L2, if is_wide { 0x67 } else { 1 })]);
        guest.pages.insert(L3, (if is_wide { PageType::L3 } else { PageType::L3Pinned }, l3));
        if is_wide {
            guest.pages.insert(L4, (PageType::L4Pinned, table([(0, L3, 0x67), (272, L3, 0x67)])));
            guest.pages.insert(USER_L4, (PageType::L4Pinned, table([(3, L3, 0x67)])));
        }
        for vcpu in [0, 2] {
            guest.vcpus.push((vcpu, VcpuPart::Basic, guest.context(vcpu)));
            guest.vcpus.push((vcpu, VcpuPart::Extended, vec![vcpu as u8; 128]));
            guest.vcpus.push((vcpu, VcpuPart::Xsave, vec![vcpu as u8; 832]));
            guest.vcpus.push((vcpu, VcpuPart::Msrs, vec![vcpu as u8; 32]));
        }
        guest
    }

    pub(crate) fn plain(&mut self, pfn: u64, contents: PageBuffer) {
        self.pages.insert(pfn, (PageType::Notab, contents));
    }

    fn context(&self, vcpu: u32) -> Vec<u8> {
        let width = self.width;
        let mut context = vec![0; width.context_bytes()];
        let top = if width == GuestWidth::Bits64 { L4 } else { L3 };
        set(&mut context, width, vcpu_context::RAX, 0);
        set(&mut context, width, vcpu_context::RDX, if vcpu == 0 { START_INFO } else { 0x1234 });
        set(&mut context, width, vcpu_context::FLAGS, 4);
        set(&mut context, width, vcpu_context::GDT_ENTRIES, 513);
        set(&mut context, width, vcpu_context::GDT_FRAMES, GDT);
        set(&mut context, width, vcpu_context::GDT_FRAMES.at(1), DATA.start);
        // Not part of the GDT, so it is ignored.
        set(&mut context, width, vcpu_context::GDT_FRAMES.at(2), 0x999);
        set(&mut context, width, vcpu_context::CR3, width.cr3_of_frame(top).unwrap());
        match width {
            // It has no meaning in such a guest.
            GuestWidth::Bits32 => {
                set(&mut context, width, vcpu_context::CR1, 0x9999_9001 - u64::from(vcpu) / 2)
            }
            GuestWidth::Bits64 if vcpu == 0 => set(&mut context, width, vcpu_context::CR1, USER_L4 << 12 | 1),
            GuestWidth::Bits64 => {}
        }
        context
    }

    /// Changes a field of a vCPU's registers.
    pub(crate) fn set_register(&mut self, vcpu: u32, field: Field, value: u64) {
        let (width, is) = (self.width, |at: u32, part| at == vcpu && part == VcpuPart::Basic);
        let (.., context) = self.vcpus.iter_mut().find(|(at, part, _)| is(*at, *part)).unwrap();
        set(context, width, field, value);
    }

    /// Returns the pages that the guest's p2m is on.
    pub(crate) fn p2m_pages(&self) -> Vec<Pfn> {
        [P2M, P2M_NEXT, P2M_LAST]
            .into_iter()
            .map(Pfn)
            .take((HIGHEST / self.width.frames_per_page() + 1) as usize)
            .collect()
    }

    /// Headers and everything before the pages.
    pub(crate) fn start(&self) -> Stream {
        Stream::headers(GuestKind::Pv)
            .with(|out| encode::pv_info(out, self.width.bytes(), self.width.levels()))
            .with(|out| encode::cpu_policy(out, &policy()).unwrap())
            .with(encode::static_data_end)
            .with(|out| encode::pv_p2m_frames(out, 0, HIGHEST as u32, &self.p2m_pages()).unwrap())
    }

    /// All pages, in this order of pfns.
    pub(crate) fn all(&self, stream: Stream, backwards: bool) -> Stream {
        let mut pages: Vec<_> = self.pages.iter().map(|(pfn, (kind, page))| (*pfn, *kind, *page)).collect();
        if backwards {
            pages.reverse();
        }
        pages.chunks(7).fold(stream, |stream, batch| stream.contents(batch))
    }

    /// Everything after the pages except END.
    pub(crate) fn state(&self, stream: Stream) -> Stream {
        let stream = stream
            .with(|out| encode::tsc_info(out, &TSC))
            .with(|out| encode::shared_info(out, &self.shared_info()));
        self.vcpus.iter().fold(stream, |stream, (vcpu, part, state)| {
            stream.with(|out| encode::pv_vcpu(out, *part, *vcpu, state).unwrap())
        })
    }

    /// The shared info page as the sender has it.
    pub(crate) fn shared_info(&self) -> PageBuffer {
        let mut page = [0x33; PAGE_SIZE];
        set(&mut page, self.width, shared_info::MAX_PFN, HIGHEST + 1);
        page
    }

    /// The whole stream.
    pub(crate) fn stream(&self) -> Vec<u8> {
        self.state(self.all(self.start(), false)).end()
    }

    /// Checks that the domain on this host is this guest, in its own frames.
    pub(crate) fn check(&self, host: &PvHost) {
        assert_eq!(host.width(), self.width);
        assert_eq!(host.pfns(), self.pages.keys().copied().collect());
        let special: Vec<u64> = self.p2m_pages().iter().map(|pfn| pfn.0).chain([START_INFO]).collect();
        for (pfn, (kind, sent)) in &self.pages {
            if special.contains(pfn) {
                continue;
            }
            let mut here = host.page(host.frame(*pfn).unwrap());
            if kind.is_page_table() {
                for word in here.as_chunks_mut().0 {
                    let pte = Pte(u64::from_le_bytes(*word));
                    if pte.is_present() {
                        *word = pte.with_frame(host.pfn(pte.frame()).unwrap()).unwrap().0.to_le_bytes();
                    }
                }
            }
            assert!(here == *sent, "pfn {pfn:#x}, {kind:?}");
        }
        self.check_p2m(host);
        self.check_start_info(host);
        self.check_vcpus(host);
        let is_pinned = |kind: &PageType| kind.is_page_table() && kind.number() > 8;
        let pinned = self.pages.iter().filter(|(_, (kind, _))| is_pinned(kind)).map(|(pfn, _)| *pfn);
        assert_eq!(host.pinned(), pinned.collect());
    }

    /// Returns an entry of the p2m as the restored guest has it.
    pub(crate) fn p2m_entry(&self, host: &PvHost, pfn: u64) -> u64 {
        let (per_page, bytes) = (self.width.frames_per_page(), usize::from(self.width.bytes()));
        let page = host.page(host.frame(self.p2m_pages()[(pfn / per_page) as usize].0).unwrap());
        let mut entry = [0; 8];
        entry[..bytes].copy_from_slice(&page[(pfn % per_page) as usize * bytes..][..bytes]);
        u64::from_le_bytes(entry)
    }

    fn check_p2m(&self, host: &PvHost) {
        for pfn in 0..=HIGHEST {
            let expected = host.frame(pfn).unwrap_or(self.width.invalid_frame());
            assert_eq!(self.p2m_entry(host, pfn), expected, "pfn {pfn:#x}");
        }
        let fill = u64::from_le_bytes([P2M_FILL; 8]) & self.width.invalid_frame();
        assert_eq!(self.p2m_entry(host, HIGHEST + 1), fill, "what follows the p2m is left alone");
    }

    fn check_start_info(&self, host: &PvHost) {
        let here = host.page(host.frame(START_INFO).unwrap());
        let mut expected = self.pages[&START_INFO].1;
        for (field, value) in [
            (start_info::STORE_MFN, host.frame(STORE).unwrap()),
            (start_info::CONSOLE_MFN, host.frame(CONSOLE).unwrap()),
            (start_info::STORE_EVTCHN, 21),
            (start_info::CONSOLE_EVTCHN, 22),
            (start_info::NR_PAGES, HIGHEST + 1),
            (start_info::SHARED_INFO, SHARED_INFO_FRAME << 12),
            (start_info::FLAGS, 0),
        ] {
            set(&mut expected, self.width, field, value);
        }
        assert!(here == expected);
    }

    fn check_vcpus(&self, host: &PvHost) {
        let width = self.width;
        for (vcpu, part, sent) in &self.vcpus {
            let mut here = host.vcpu(*vcpu, *part).unwrap();
            if *part == VcpuPart::Basic {
                let pfn = |frame| host.pfn(frame).unwrap();
                let gdt = [0, 1].map(|index| vcpu_context::GDT_FRAMES.at(index));
                for field in gdt.into_iter().chain((*vcpu == 0).then_some(vcpu_context::RDX)) {
                    let frame = get(&here, width, field);
                    set(&mut here, width, field, pfn(frame));
                }
                let cr3 = width.frame_of_cr3(get(&here, width, vcpu_context::CR3)).unwrap();
                set(&mut here, width, vcpu_context::CR3, width.cr3_of_frame(pfn(cr3.0)).unwrap());
                let cr1 = get(&here, width, vcpu_context::CR1);
                if width == GuestWidth::Bits64 && cr1 != 0 {
                    set(&mut here, width, vcpu_context::CR1, pfn(cr1 >> 12) << 12 | 1);
                }
                let flags = get(&here, width, vcpu_context::FLAGS);
                assert_eq!(flags, 4 | vcpu_context::ONLINE);
                set(&mut here, width, vcpu_context::FLAGS, 4);
            }
            assert!(here == *sent, "vCPU {vcpu}, {part:?}");
        }
        assert!(host.vcpu(1, VcpuPart::Basic).is_none());
    }

    /// Checks the shared info page.
    pub(crate) fn check_shared_info(&self, host: &PvHost) {
        let mut expected = [SHARED_INFO_FILL; PAGE_SIZE];
        let sent = self.shared_info();
        let width = self.width;
        for part in [0..2048, shared_info::arch(width)] {
            expected[part.clone()].copy_from_slice(&sent[part]);
        }
        for vcpu in 0..32 {
            let (at, bytes) = (vcpu * 64 + usize::from(width.bytes()), usize::from(width.bytes()));
            expected[at..at + bytes].fill(0);
        }
        set(&mut expected, width, shared_info::FRAME_LIST_LIST, 0);
        expected[shared_info::pending(width)].fill(0);
        expected[shared_info::mask(width)].fill(0xff);
        assert!(host.page(SHARED_INFO_FRAME) == expected);
    }
}

/// Event channels to domain 0.
pub(crate) fn connected() -> RestoreOptions {
    let domid = Domid::new(0).unwrap();
    let channels = Channels { store: Channel { evtchn: 21, domid }, console: Channel { evtchn: 22, domid } };
    RestoreOptions { channels: Some(channels), ..RestoreOptions::default() }
}

/// Restores with event channels.
pub(crate) fn restore_pv(host: &PvHost, bytes: &[u8]) -> Result<RestoreReport, RestoreFailure> {
    restore_on(host, &host.machine, bytes, &connected(), &mut Quiet)
}
