// SPDX-License-Identifier: GPL-3.0-or-later
//! How a PV guest comes to have page tables, a p2m, a start info page and vCPUs: it is built as a domain builder and a
//! booting kernel leave it, in pages that lie anywhere in its memory.

use fastrand::Rng;
use xenmig_types::{
    Gfn, PAGE_SIZE_U64, PageType, Pfn,
    pv::{GuestWidth, Pte, shared_info, start_info},
};

use super::{
    P2mForm, PvConfig, PvGuest,
    kernel::{P2m, direct_map, direct_pages, note, shared_info_address},
    pv_vcpu::{BootState, PvVcpu},
    tables::{SLOTS, entry, flag, pinned, slot_of, type_of_level, xen_slots},
};
use crate::domain_config::DomainConfig;

/// Where the user's addresses begin, and how many pages are mapped there.
const USER: u64 = 0x40_0000;
const USER_PAGES: u64 = 24;
/// Pages that are tried at random before they are looked at in order.
const TRIES: u32 = 64;
/// `SIF_*` flags, and ports, as a domain builder leaves them.
const START_FLAGS: u64 = 0x10;
const STORE_PORT: u64 = 1;
const CONSOLE_PORT: u64 = 2;

/// What was found missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CannotBoot {
    /// The domain has too few pages for what the kernel needs itself.
    TooSmall,
    /// The machine has no more frames.
    NoFrames,
}

/// A guest that is being built.
struct Builder<'a> {
    guest: PvGuest<'a>,
    config: &'a PvConfig,
    rng: Rng,
    /// Entries of the p2m.
    pfns: u64,
    root: Pfn,
    gdts: Vec<Pfn>,
}

/// The upper levels of a p2m that is a tree.
struct Tree {
    top: Pfn,
    mid_missing: Pfn,
    mids: Vec<Pfn>,
}

impl PvGuest<'_> {
    /// Boots the guest in the pages that it has: it is awake afterwards.
    pub(crate) fn boot(&self, domain: &DomainConfig, config: &PvConfig) -> Result<(), CannotBoot> {
        self.pv.width_bytes.store(config.width.bytes(), std::sync::atomic::Ordering::Release);
        let mut end = 0;
        for pfn in self.guest.memory.runs(u64::MAX).flatten() {
            self.pv.give(Pfn(pfn)).ok_or(CannotBoot::NoFrames)?;
            end = pfn + 1;
        }
        let pfns = (end + config.spare_pfns).max(1);
        let rng = Rng::with_seed(domain.seed ^ 0x626f_6f74);
        let mut builder = Builder { guest: *self, config, rng, pfns, root: Pfn(0), gdts: Vec::new() };
        builder.build(domain).ok_or(CannotBoot::TooSmall)?;
        self.wake().map_err(|_| CannotBoot::TooSmall)?;
        self.guest.logdirty.forget(self.pv.capacity);
        Ok(())
    }
}

impl Builder<'_> {
    fn build(&mut self, domain: &DomainConfig) -> Option<()> {
        let width = self.config.width;
        self.root = self.table(width.levels())?;
        if width == GuestWidth::Bits32 {
            for gib in 0..4 {
                self.table_for(gib << 30, 2)?;
            }
        }
        let start_info = self.own()?;
        let (store, console) = (self.own()?, self.own()?);
        let runs: Vec<u64> = self.guest.guest.memory.runs(u64::MAX).flatten().collect();
        for pfn in runs.into_iter().take_while(|pfn| *pfn < direct_pages(width)) {
            self.map(direct_map(width) + pfn * PAGE_SIZE_U64, self.frame(Pfn(pfn))?, flag::KERNEL)?;
        }
        self.map(shared_info_address(width), self.guest.pv.shared_info, flag::KERNEL)?;
        let (missing, tree) = self.p2m()?;
        let user_root = self.user()?;
        let vcpus = self.vcpus(domain, start_info, user_root)?;
        self.protect();
        self.xens_mappings(user_root);
        for root in [Some(self.root), user_root].into_iter().flatten() {
            self.guest.pv.set_page_type(root, pinned(type_of_level(width.levels())));
        }
        self.shared_info(domain.vcpus);
        self.start_info(start_info, store, console);
        self.notes(start_info, missing, &tree)?;
        self.guest.set_vcpus(vcpus);
        Some(())
    }

    /// Takes a page of data, anywhere; it holds zeros.
    fn page(&mut self) -> Option<Pfn> {
        let pages = self.guest.guest.layout.ram_pages;
        let random = (0..TRIES).map(|_| Pfn(self.rng.u64(..pages))).find(|pfn| self.guest.is_plain(*pfn));
        random.or_else(|| (0..pages).map(Pfn).find(|pfn| self.guest.is_plain(*pfn)))
    }

    /// Takes a page that the kernel uses itself.
    fn own(&mut self) -> Option<Pfn> {
        let page = self.page()?;
        self.guest.pv.reserved.set(page.0);
        Some(page)
    }

    /// Takes a page as a page table.
    fn table(&mut self, level: u8) -> Option<Pfn> {
        let page = self.page()?;
        self.guest.pv.set_page_type(page, type_of_level(level));
        Some(page)
    }

    fn frame(&self, page: Pfn) -> Option<Gfn> {
        self.guest.pv.frame(page)
    }

    /// Returns the table of a level that an address is looked up in; makes those that are missing.
    fn table_for(&mut self, address: u64, level: u8) -> Option<Pfn> {
        let width = self.config.width;
        let mut table = self.root;
        for above in (level + 1..=width.levels()).rev() {
            let slot = slot_of(address, above);
            table = match self.guest.table_of(self.root, address, above - 1) {
                Some(below) => below,
                None => {
                    let below = self.table(above - 1)?;
                    // The entries of a PAE guest's L3 table have no rights.
                    let narrow = width == GuestWidth::Bits32 && above == 3;
                    let flags = if narrow { flag::PRESENT } else { flag::KERNEL | flag::USER };
                    self.guest.store(table, slot, entry(self.frame(below)?, flags));
                    below
                }
            };
        }
        Some(table)
    }

    /// Maps a frame at an address.
    fn map(&mut self, address: u64, frame: Gfn, flags: u64) -> Option<()> {
        let table = self.table_for(address, 1)?;
        self.guest.store(table, slot_of(address, 1), entry(frame, flags));
        Some(())
    }

    /// Builds the p2m: its leaves, the list, and the pages of the tree. Returns the missing leaf, and the tree's root,
    /// its missing page and its other pages.
    fn p2m(&mut self) -> Option<(Pfn, Tree)> {
        let per_page = self.config.width.frames_per_page();
        let invalid = u64::MAX;
        let missing = self.own()?;
        self.guest.fill(missing, invalid);
        let mut leaves = Vec::new();
        for first in (0..self.pfns).step_by(usize::try_from(per_page).ok()?) {
            let pages = first..self.pfns.min(first + per_page);
            if pages.clone().all(|pfn| self.frame(Pfn(pfn)).is_none()) {
                leaves.push(missing);
                continue;
            }
            let leaf = self.own()?;
            self.guest.fill(leaf, invalid);
            for pfn in pages {
                if let Some(frame) = self.frame(Pfn(pfn)) {
                    self.guest.set_frame_entry(leaf, pfn % per_page, frame.0);
                }
            }
            leaves.push(leaf);
        }
        self.list(missing, &leaves)?;
        let tree = self.tree(missing, &leaves)?;
        Some((missing, tree))
    }

    /// Maps the leaves as a list; what follows them on the last page table is missing.
    fn list(&mut self, missing: Pfn, leaves: &[Pfn]) -> Option<()> {
        let first_slot = if let P2mForm::List { first_slot } = self.config.p2m { first_slot } else { 0 };
        let address = P2m::address(self.config.width, first_slot);
        let missing_frame = self.frame(missing)?;
        let mut missing_table = None;
        for (address, chunk) in (address..).step_by(1 << 21).zip(leaves.chunks(usize::try_from(SLOTS).ok()?))
        {
            if chunk.iter().all(|leaf| *leaf == missing) {
                let table = match missing_table {
                    Some(table) => table,
                    None => self.table(1)?,
                };
                missing_table = Some(table);
                self.guest.fill(table, entry(missing_frame, flag::PRESENT | flag::ACCESSED));
                let above = self.table_for(address, 2)?;
                let value = entry(self.frame(table)?, flag::KERNEL | flag::USER);
                self.guest.store(above, slot_of(address, 2), value);
                continue;
            }
            for slot in 0..SLOTS {
                let leaf =
                    usize::try_from(slot).ok().and_then(|slot| chunk.get(slot)).copied().unwrap_or(missing);
                let flags = if leaf == missing { flag::PRESENT | flag::ACCESSED } else { flag::KERNEL };
                self.map(address + slot * PAGE_SIZE_U64, self.frame(leaf)?, flags)?;
            }
        }
        Some(())
    }

    /// Takes the pages of the tree. What they hold is written when the guest says where its p2m is.
    fn tree(&mut self, missing: Pfn, leaves: &[Pfn]) -> Option<Tree> {
        if self.config.p2m != P2mForm::Tree {
            return Some(Tree { top: missing, mid_missing: missing, mids: Vec::new() });
        }
        let (top, mid_missing) = (self.own()?, self.own()?);
        let per_page = usize::try_from(self.config.width.frames_per_page()).ok()?;
        let mut mids = Vec::new();
        for chunk in leaves.chunks(per_page) {
            mids.push(if chunk.iter().all(|leaf| *leaf == missing) { mid_missing } else { self.own()? });
        }
        Some(Tree { top, mid_missing, mids })
    }

    /// Maps a few pages of data for user mode, by an L1 table that is pinned. A 64-bit guest has a root for user mode,
    /// which shares them.
    fn user(&mut self) -> Option<Option<Pfn>> {
        let levels = self.config.width.levels();
        let root = if levels == 4 { Some(self.table(4)?) } else { None };
        let table = self.table_for(USER, 1)?;
        for page in 0..USER_PAGES {
            let at = Pfn(self.rng.u64(..self.guest.guest.layout.ram_pages));
            if let Some(frame) = self.frame(at).filter(|_| self.guest.is_plain(at)) {
                let dirty = if page % 2 == 0 { flag::WRITABLE | flag::DIRTY } else { flag::NO_EXECUTE };
                let flags = flag::PRESENT | flag::USER | flag::ACCESSED | dirty;
                self.guest.store(table, slot_of(USER, 1) + page * 3, entry(frame, flags));
            }
        }
        self.guest.pv.set_page_type(table, PageType::L1Pinned);
        if let Some(root) = root {
            self.guest.store(root, 0, self.guest.load(self.root, 0));
        }
        Some(root)
    }

    /// Makes the vCPUs, each with a GDT of one to three pages.
    fn vcpus(
        &mut self,
        domain: &DomainConfig,
        start_info: Pfn,
        user_root: Option<Pfn>,
    ) -> Option<Vec<PvVcpu>> {
        let mut vcpus = Vec::new();
        for number in 0..domain.vcpus {
            if self.config.offline_vcpus.contains(&number) {
                vcpus.push(PvVcpu::default());
                continue;
            }
            let mut gdt = Vec::new();
            for _ in 0..=number % 3 {
                let page = self.own()?;
                gdt.push(self.frame(page)?);
                self.gdts.push(page);
            }
            let boot = BootState {
                root: self.frame(self.root)?,
                // A vCPU in the kernel may have no page tables for user mode.
                user_root: if number % 4 == 3 { None } else { user_root.and_then(|root| self.frame(root)) },
                start_info: self.frame(start_info)?,
                gdt,
            };
            vcpus.push(PvVcpu::boot(self.config.width, number, &boot, self.config, &mut self.rng)?);
        }
        Some(vcpus)
    }

    /// Takes the right to write away where a page table or a page of a GDT is mapped.
    fn protect(&self) {
        for table in self.guest.tables_of_level(1) {
            for slot in 0..SLOTS {
                let value = self.guest.load(table, slot);
                let page = self.guest.page_behind(Pte(value));
                if page.is_some_and(|page| {
                    self.gdts.contains(&page) || self.guest.pv.page_type(page).is_page_table()
                }) {
                    self.guest.store(table, slot, value & !flag::WRITABLE);
                }
            }
        }
    }

    /// Puts Xen's mappings where Xen has some. After the four entries of a PAE guest's L3 table may be anything.
    fn xens_mappings(&self, user_root: Option<Pfn>) {
        let guest = self.guest;
        for root in [Some(self.root), user_root].into_iter().flatten() {
            guest.fill_xen_slots(root, 4, false);
        }
        if self.config.width == GuestWidth::Bits32 {
            if let Some(table) = guest.table_of(self.root, 3 << 30, 2) {
                guest.fill_xen_slots(table, 2, true);
            }
            for slot in xen_slots(GuestWidth::Bits32, 3) {
                guest.store(self.root, slot, entry(guest.pv.machine.xen_frame(slot), flag::KERNEL));
            }
        }
    }

    fn shared_info(&mut self, vcpus: u32) {
        let page = self.guest.shared_info();
        let width = self.config.width;
        let infos = vcpus as usize * shared_info::VCPU_INFO_BYTES;
        let words = |bytes: std::ops::Range<usize>| (bytes.start / 8..bytes.end / 8).map(|word| word as u64);
        let infos = words(0..infos.min(shared_info::VCPU_INFO.end));
        for word in infos.chain(words(shared_info::pending(width))).chain(words(shared_info::mask(width))) {
            self.guest.store(page, word, self.rng.u64(..));
        }
        self.guest.set_field(page, shared_info::MAX_PFN, self.pfns);
        self.guest.set_field(page, shared_info::P2M_GENERATION, 0);
    }

    fn start_info(&self, page: Pfn, store: Pfn, console: Pfn) {
        let magic: &[u8; 16] = match self.config.width {
            GuestWidth::Bits64 => b"xen-3.0-x86_64\0\0",
            GuestWidth::Bits32 => b"xen-3.0-x86_32p\0",
        };
        for (word, bytes) in (0..).zip(magic.as_chunks::<8>().0) {
            self.guest.store(page, word, u64::from_le_bytes(*bytes));
        }
        let frame = |page| self.frame(page).map_or(0, |frame| frame.0);
        for (field, value) in [
            (start_info::NR_PAGES, self.guest.guest.layout.ram_pages),
            (start_info::SHARED_INFO, self.guest.pv.shared_info.0 * PAGE_SIZE_U64),
            (start_info::FLAGS, START_FLAGS),
            (start_info::STORE_MFN, frame(store)),
            (start_info::STORE_EVTCHN, STORE_PORT),
            (start_info::CONSOLE_MFN, frame(console)),
            (start_info::CONSOLE_EVTCHN, CONSOLE_PORT),
        ] {
            self.guest.set_field(page, field, value);
        }
    }

    /// Writes down what the kernel cannot find through its page tables.
    fn notes(&self, start_info: Pfn, missing: Pfn, tree: &Tree) -> Option<()> {
        let user_table = self.guest.table_of(self.root, USER, 2)?;
        let first_slot = if let P2mForm::List { first_slot } = self.config.p2m { first_slot } else { 0 };
        for (place, value) in [
            (note::MAGIC, note::IS_NOTES),
            (note::IS_TREE, u64::from(self.config.p2m == P2mForm::Tree)),
            (note::FIRST_SLOT, first_slot.into()),
            (note::MISSING, missing.0),
            (note::TOP, tree.top.0),
            (note::MID_MISSING, tree.mid_missing.0),
            (note::USER_TABLE, user_table.0),
            (note::MIDS, tree.mids.len() as u64),
        ] {
            self.guest.store(start_info, place, value);
        }
        for (place, mid) in (note::FIRST_MID..).zip(&tree.mids) {
            self.guest.store(start_info, place, mid.0);
        }
        Some(())
    }
}
