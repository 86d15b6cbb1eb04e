// SPDX-License-Identifier: GPL-3.0-or-later
//! Memory for when there is none left.
//!
//! A Rust program aborts when a small allocation fails, and with it every migration of a toolstack: log-dirty mode
//! stays on, suspended guests stay suspended. [`Reserve`] is the system's allocator with a block of its own, which is part of the
//! extension from the start. When the system has no memory, allocations come from the block, so that a run can
//! end in order; it looks at [`Reserve::is_in_use`] and does. What grows with the guest is allocated fallibly instead: it
//! may be larger than the block.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::UnsafeCell,
    fmt, ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Bytes that are allocated together, and the largest alignment.
const CHUNK: usize = 256;
/// 4 MiB. Its pages take no memory until they are used.
const CHUNKS: usize = 16 << 10;

#[repr(C, align(256))]
struct Block(UnsafeCell<[u8; CHUNK * CHUNKS]>);

// SAFETY: only addresses of the block are taken here; its bytes belong to whoever allocated them.
unsafe impl Sync for Block {}

/// A global allocator that survives exhaustion for as long as it takes to end a run.
pub struct Reserve {
    block: Block,
    taken: Mutex<[bool; CHUNKS]>,
    in_use: AtomicUsize,
}

impl fmt::Debug for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserve").field("chunks_in_use", &self.in_use).finish_non_exhaustive()
    }
}

impl Default for Reserve {
    fn default() -> Self {
        Self::new()
    }
}

impl Reserve {
    /// Makes an allocator whose block is unused. It must be a `static`: its block is part of it.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            block: Block(UnsafeCell::new([0; CHUNK * CHUNKS])),
            taken: Mutex::new([false; CHUNKS]),
            in_use: AtomicUsize::new(0),
        }
    }

    /// Says whether the system had no memory for something that is still allocated.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Relaxed) > 0
    }

    /// Allocates from the block; null if it is exhausted, too.
    fn take(&self, layout: Layout) -> *mut u8 {
        if layout.align() > CHUNK {
            return ptr::null_mut();
        }
        let count = layout.size().div_ceil(CHUNK);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(first) = first_free(&*taken, count) else { return ptr::null_mut() };
        if let Some(chunks) = taken.get_mut(first..first + count) {
            chunks.fill(true);
        }
        self.in_use.fetch_add(count, Ordering::Relaxed);
        self.block.0.get().cast::<u8>().wrapping_add(first * CHUNK)
    }

    /// Frees what [`Reserve::take`] gave for `layout`. Returns whether it is of the block at all.
    fn give_back(&self, address: *mut u8, layout: Layout) -> bool {
        let Some(first) = self.chunk_of(address) else { return false };
        let count = layout.size().div_ceil(CHUNK);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunks) = taken.get_mut(first..first + count) {
            chunks.fill(false);
        }
        self.in_use.fetch_sub(count, Ordering::Relaxed);
        true
    }

    /// Returns the chunk that starts at an address of the block.
    fn chunk_of(&self, address: *mut u8) -> Option<usize> {
        let offset = address.addr().checked_sub(self.block.0.get().addr())?;
        (offset < CHUNK * CHUNKS).then_some(offset / CHUNK)
    }
}

/// Finds the first run of `count` chunks that are not taken.
fn first_free(taken: &[bool], count: usize) -> Option<usize> {
    let mut first = 0;
    for (chunk, taken) in taken.iter().enumerate() {
        if *taken {
            first = chunk + 1;
        } else if chunk + 1 - first >= count {
            return Some(first);
        }
    }
    None
}

// SAFETY: what is handed out is either the system's or a run of chunks that is marked as taken until it is freed; both are as
// large and as aligned as the layout asks. Nothing here allocates or panics.
unsafe impl GlobalAlloc for Reserve {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout, unchanged.
        let address = unsafe { System.alloc(layout) };
        if address.is_null() { self.take(layout) } else { address }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout, unchanged.
        let address = unsafe { System.alloc_zeroed(layout) };
        if !address.is_null() {
            return address;
        }
        let address = self.take(layout);
        if !address.is_null() {
            // SAFETY: just allocated, with at least this size.
            unsafe { ptr::write_bytes(address, 0, layout.size()) };
        }
        address
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        if !self.give_back(address, layout) {
            // SAFETY: it is not of the block, so the system allocated it with this layout.
            unsafe { System.dealloc(address, layout) };
        }
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if self.chunk_of(address).is_none() {
            // SAFETY: it is not of the block, so the system allocated it; the rest is the caller's, unchanged.
            let moved = unsafe { System.realloc(address, layout, new_size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller vouches that `new_size` is not zero and does not overflow when it is rounded up.
        let wanted = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: that layout.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: two allocations, each of at least this size.
            unsafe { ptr::copy_nonoverlapping(address, moved, layout.size().min(new_size)) };
            // SAFETY: the caller gives `address` up.
            unsafe { self.dealloc(address, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static RESERVE: Reserve = Reserve::new();

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn the_block_hands_out_what_is_free_until_nothing_is() {
        let small = layout(CHUNK + 1, 8);
        let one = RESERVE.take(small);
        let other = RESERVE.take(layout(1, CHUNK));
        assert!(!one.is_null() && RESERVE.is_in_use());
        assert_eq!(other.addr() - one.addr(), 2 * CHUNK);
        let rest = layout((CHUNKS - 3) * CHUNK, 8);
        assert_eq!(RESERVE.take(rest).addr() - one.addr(), 3 * CHUNK);
        assert!(RESERVE.take(layout(1, 1)).is_null());
        assert!(RESERVE.give_back(one, small));
        assert!(RESERVE.take(layout(2 * CHUNK + 1, 1)).is_null());
        assert!(RESERVE.take(layout(1, 2 * CHUNK)).is_null());
        assert_eq!(RESERVE.take(small), one);
        for (address, layout) in [(one, small), (other, layout(1, CHUNK)), (other.wrapping_add(CHUNK), rest)]
        {
            assert!(RESERVE.give_back(address, layout));
        }
        assert!(!RESERVE.is_in_use());
        assert!(!RESERVE.give_back(ptr::dangling_mut(), small));
    }

    #[test]
    fn what_the_system_refuses_comes_from_the_block_or_not_at_all() {
        static RESERVE: Reserve = Reserve::new();
        let ordinary = layout(100, 8);
        // SAFETY: not of size zero.
        let address = unsafe { RESERVE.alloc_zeroed(ordinary) };
        // SAFETY: just allocated, with this layout. No system has so much memory.
        assert!(unsafe { RESERVE.realloc(address, ordinary, isize::MAX as usize - 7) }.is_null());
        // SAFETY: the failure left it allocated.
        let grown = unsafe { RESERVE.realloc(address, ordinary, 200) };
        // SAFETY: 200 bytes, of which the first are as they were.
        assert_eq!(unsafe { grown.read() }, 0);
        // SAFETY: its present layout.
        unsafe { RESERVE.dealloc(grown, layout(200, 8)) };
        let reserved = RESERVE.take(ordinary);
        // SAFETY: 100 bytes of our own.
        unsafe { reserved.write(7) };
        // SAFETY: of the block, with this layout.
        let moved = unsafe { RESERVE.realloc(reserved, ordinary, 300) };
        // SAFETY: as above.
        assert_eq!(unsafe { moved.read() }, 7);
        assert!(RESERVE.chunk_of(moved).is_none() && !RESERVE.is_in_use());
        // SAFETY: its present layout.
        unsafe { RESERVE.dealloc(moved, layout(300, 8)) };
    }
}
