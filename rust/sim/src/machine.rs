// SPDX-License-Identifier: GPL-3.0-or-later
//! The host's machine memory, as PV guests see it: which mfns are in use, and the machine-to-phys table. The
//! contents of a guest's pages stay in the memory of its domain; here they get numbers.
//!
//! ```text
//! 0 .. 512   never given        M2P_FIRST ..   the m2p, in chunks of 512 frames; then one chunk, the first frame of
//!                                              which heads the table of 32-bit guests; then Xen's own frames
//! the rest   guests' pages and their shared info pages, handed out in random order
//! ```
//!
//! Frames that no guest has as a page of its p2m say [`INVALID_ENTRY`] in the table, as Xen's do.

use std::{
    io::{self, Write as _},
    ops::Range,
    os::fd::AsFd,
    sync::{Arc, Mutex},
};

use fastrand::Rng;
use xenmig_hypervisor::M2p;
use xenmig_types::{Gfn, Pfn};

use crate::{
    bits::Bits,
    gate::lock,
    memory::new_file,
    region::{Region, index},
};

/// Frames of a machine unless it is told otherwise: 5 GiB, so that some mfns need more than 20 bits, which a 32-bit
/// guest's cr3 holds elsewhere.
pub(super) const DEFAULT_FRAMES: u64 = 0x14_0000;
/// The fewest frames that make sense: Xen's own, and a small guest.
pub(super) const MIN_FRAMES: u64 = 4096;
/// The most frames: 1 TiB.
pub(super) const MAX_FRAMES: u64 = 1 << 28;
/// Frames of the m2p that follow each other: 2 MiB (`XENMEM_machphys_mfn_list`).
pub(super) const M2P_CHUNK_FRAMES: u64 = 512;
/// 4 GiB, in frames.
const FOUR_GIB: u64 = 1 << 20;
/// Entries of the m2p in such a chunk.
const M2P_CHUNK_ENTRIES: u64 = M2P_CHUNK_FRAMES * 512;
/// Bytes of such a chunk.
const CHUNK_BYTES: usize = 2 << 20;
/// Frames from which a frame is chosen at random, before others are: so that the entries of a small guest are on few pages
/// of the table.
const WINDOW_FRAMES: u64 = 4096;
/// How many windows are tried before any frame does.
const TRIES: u32 = 16;
/// The first frame of the m2p.
const M2P_FIRST: u64 = 512;
/// Xen's own frames, after its tables.
const XEN_FRAMES: u64 = 128;
/// What the m2p says of a frame that is no guest's (`INVALID_M2P_ENTRY`).
pub(super) const INVALID_ENTRY: u64 = u64::MAX;

/// The machine memory of one host.
#[derive(Debug)]
pub(super) struct Machine {
    frames: u64,
    #[cfg(feature = "raw-domains")]
    file: std::fs::File,
    m2p: Region,
    used: Bits,
    /// Frames in use; held by whoever takes frames or gives them back.
    allocator: Mutex<Allocator>,
}

#[derive(Debug)]
struct Allocator {
    free: u64,
    /// Where frames are taken from at the moment, and how many more.
    window: Range<u64>,
    left: u64,
    rng: Rng,
}

impl Machine {
    /// Makes a machine of this many frames, [`MIN_FRAMES`] to [`MAX_FRAMES`], none of them a guest's.
    pub(super) fn new(frames: u64) -> io::Result<Self> {
        let frames = frames.clamp(MIN_FRAMES, MAX_FRAMES);
        let bytes = index(frames.next_multiple_of(M2P_CHUNK_ENTRIES) * 8);
        let mut file = new_file(c"xenmig-sim-m2p", bytes as u64)?;
        // Written, not stored: that takes no page fault for each page.
        let invalid = vec![0xff; CHUNK_BYTES];
        (0..bytes / CHUNK_BYTES).try_for_each(|_| file.write_all(&invalid))?;
        let m2p = Region::shared(file.as_fd(), bytes)?;
        let used = Bits::new(frames)?;
        let machine = Self {
            frames,
            #[cfg(feature = "raw-domains")]
            file,
            m2p,
            used,
            allocator: Mutex::new(Allocator::new()),
        };
        let xen = machine.xen_first() + XEN_FRAMES;
        machine.used.assign(0..xen, true);
        lock(&machine.allocator).free = frames.saturating_sub(xen);
        Ok(machine)
    }

    /// Returns the number of frames: one more than the highest mfn.
    pub(super) const fn frames(&self) -> u64 {
        self.frames
    }

    /// Returns the first frame of each chunk of the m2p.
    #[cfg(any(test, feature = "raw-domains"))]
    pub(super) fn m2p_chunks(&self) -> impl Iterator<Item = Gfn> + use<> {
        let chunks = self.frames.div_ceil(M2P_CHUNK_ENTRIES);
        (0..chunks).map(|chunk| Gfn(M2P_FIRST + chunk * M2P_CHUNK_FRAMES))
    }

    /// Returns the file that holds the m2p, chunk after chunk.
    #[cfg(feature = "raw-domains")]
    pub(super) fn m2p_file(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Returns the first frame of the m2p that 32-bit guests see.
    pub(super) const fn compat_m2p(&self) -> Gfn {
        Gfn(M2P_FIRST + self.frames.div_ceil(M2P_CHUNK_ENTRIES) * M2P_CHUNK_FRAMES)
    }

    const fn xen_first(&self) -> u64 {
        self.compat_m2p().0 + M2P_CHUNK_FRAMES
    }

    /// Returns one of the frames that Xen uses for itself: the same for the same `which`.
    pub(super) const fn xen_frame(&self, which: u64) -> Gfn {
        Gfn(self.xen_first() + which % XEN_FRAMES)
    }

    /// Makes what is handed out from now on depend on a number, too.
    pub(super) fn stir(&self, number: u64) {
        let mut allocator = lock(&self.allocator);
        let seed = allocator.rng.u64(..) ^ number;
        allocator.rng.seed(seed);
    }

    /// Gives a frame that is to be the page of a guest at `pfn`; `None` if the machine has no more.
    pub(super) fn give(&self, pfn: Pfn) -> Option<Gfn> {
        let frame = self.give_below(self.frames)?;
        self.set_entry(frame, pfn.0);
        Some(frame)
    }

    /// Gives a frame below 4 GiB that is no page of a p2m: shared info pages are there, so that every guest has a word for
    /// their address.
    pub(super) fn give_low(&self) -> Option<Gfn> {
        self.give_below(self.frames.min(FOUR_GIB))
    }

    fn give_below(&self, end: u64) -> Option<Gfn> {
        let mut allocator = lock(&self.allocator);
        if allocator.free == 0 {
            return None;
        }
        let free = |window: Range<u64>, from: u64| {
            let after = self.used.find(from, window.end, false);
            after.or_else(|| self.used.find(window.start, from, false))
        };
        let mut frame = None;
        for _ in 0..TRIES {
            if allocator.left == 0 || allocator.window.end > end {
                allocator.turn(end);
            }
            allocator.left -= 1;
            let window = allocator.window.clone();
            let from = allocator.rng.u64(window.clone());
            frame = free(window, from);
            if frame.is_some() {
                break;
            }
            allocator.left = 0;
        }
        let frame = frame.or_else(|| free(0..end, allocator.rng.u64(..end)))?;
        self.used.set(frame);
        allocator.free -= 1;
        Some(Gfn(frame))
    }

    /// Takes a frame back.
    pub(super) fn take(&self, frame: Gfn) {
        let mut allocator = lock(&self.allocator);
        self.set_entry(frame, INVALID_ENTRY);
        if self.used.clear(frame.0) {
            allocator.free += 1;
        }
    }

    /// Returns what the m2p says of a frame; `None` if the machine has no such frame.
    pub(super) fn entry(&self, frame: Gfn) -> Option<u64> {
        let place = self.place(frame)?;
        // SAFETY: the place is aligned and mapped; others may write there meanwhile, so the read is volatile.
        Some(unsafe { place.read_volatile() })
    }

    fn set_entry(&self, frame: Gfn, entry: u64) {
        let Some(place) = self.place(frame) else { return };
        // SAFETY: the place is aligned and mapped for writing; others may read it, so the write is volatile.
        unsafe { place.write_volatile(entry) };
    }

    fn place(&self, frame: Gfn) -> Option<std::ptr::NonNull<u64>> {
        if frame.0 >= self.frames {
            return None;
        }
        // SAFETY: the region has a word for each frame.
        Some(unsafe { self.m2p.base().cast::<u64>().add(index(frame.0)) })
    }

    /// Maps the m2p; `ended` is dropped when the mapping is.
    pub(super) fn map_m2p(self: &Arc<Self>, ended: Box<dyn Send>) -> M2p {
        let mapping = Box::new((Arc::clone(self), ended));
        // SAFETY: the region has an aligned word for each frame and stays mapped while `mapping` holds the machine.
        // It is only ever accessed by address, never through a reference.
        unsafe { M2p::new(self.m2p.base().cast(), self.frames, mapping) }
    }
}

impl Allocator {
    fn new() -> Self {
        Self { free: 0, window: 0..0, left: 0, rng: Rng::with_seed(0x6d66_6e73) }
    }

    /// Chooses another window below `end`; half of its frames will be taken.
    fn turn(&mut self, end: u64) {
        let windows = (end / WINDOW_FRAMES).max(1);
        let start = self.rng.u64(..windows) * WINDOW_FRAMES;
        self.window = start..(start + WINDOW_FRAMES).min(end);
        self.left = WINDOW_FRAMES / 2;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn frames_are_scattered_and_each_has_one_owner() {
        let machine = Machine::new(MIN_FRAMES).unwrap();
        let given: Vec<u64> = (0..).map_while(|pfn| machine.give(Pfn(pfn))).map(|frame| frame.0).collect();
        let first = machine.xen_first() + XEN_FRAMES;
        assert_eq!(given.len() as u64, MIN_FRAMES - first);
        assert_eq!(given.iter().copied().collect::<BTreeSet<_>>(), (first..MIN_FRAMES).collect());
        let neighbours = given.iter().zip(given.iter().skip(1)).filter(|(a, b)| **a + 1 == **b).count();
        assert!(neighbours < given.len() / 2, "{neighbours} of {}", given.len());
        for (pfn, frame) in given.iter().enumerate() {
            assert_eq!(machine.entry(Gfn(*frame)), Some(pfn as u64));
        }
        machine.take(Gfn(given[3]));
        assert_eq!(machine.entry(Gfn(given[3])), Some(INVALID_ENTRY));
        assert_eq!(machine.give(Pfn(1 << 20)), Some(Gfn(given[3])));
        assert_eq!(machine.give(Pfn(0)), None);
    }

    #[test]
    fn the_mapped_table_is_the_machines_and_xens_frames_are_nobodys() {
        let machine = Arc::new(Machine::new(DEFAULT_FRAMES).unwrap());
        let m2p = machine.map_m2p(Box::new(()));
        let frame = machine.give(Pfn(77)).unwrap();
        assert_eq!((m2p.frames(), m2p.entry(frame)), (DEFAULT_FRAMES, Some(Pfn(77))));
        for frame in
            [Gfn(0), machine.compat_m2p(), machine.xen_frame(500)].into_iter().chain(machine.m2p_chunks())
        {
            assert_eq!(m2p.entry(frame), Some(Pfn(INVALID_ENTRY)));
        }
        assert_eq!(m2p.entry(Gfn(DEFAULT_FRAMES)), None);
        assert_eq!(machine.m2p_chunks().count(), 5);
    }
}
