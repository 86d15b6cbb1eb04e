// SPDX-License-Identifier: GPL-3.0-or-later
//! Log-dirty mode as Xen's paging code has it.

use super::{close, create, domctl, mmap, mmap_fixed, munmap, open};
use crate::{
    caller_memory::Memory,
    host::Domain,
    layout::{ShadowOp, ctl, shadow},
};
use xenmig_types::Pfn;

fn call(domain: &Domain, op: u32) -> Result<ShadowOp, i32> {
    domctl(ctl::SHADOW_OP, domain.domid.get(), ShadowOp { op, ..ShadowOp::default() })
}

/// Fetches the bitmap into ordinary memory.
fn fetch(domain: &Domain, op: u32, mode: u32, pages: u64) -> Result<(ShadowOp, Vec<u64>), i32> {
    let mut words = vec![u64::MAX; 64];
    let dirty_bitmap = words.as_mut_ptr() as u64;
    let asked = ShadowOp { op, mode, pages, dirty_bitmap, ..ShadowOp::default() };
    let answer = domctl(ctl::SHADOW_OP, domain.domid.get(), asked)?;
    Ok((answer, words))
}

fn write(domain: &Domain, pfns: &[u64]) {
    for pfn in pfns {
        domain.sim.write_page(Pfn(*pfn), &[7; 4096]).unwrap();
    }
}

#[test]
fn it_is_turned_on_once_and_off_always() {
    let domain = create("{}");
    assert!(call(&domain, shadow::OFF).is_ok(), "it is off");
    assert!(call(&domain, shadow::ENABLE_LOGDIRTY).is_ok());
    assert_eq!(call(&domain, shadow::ENABLE_LOGDIRTY).err(), Some(libc::EINVAL));
    assert!(call(&domain, shadow::OFF).is_ok());
    assert!(call(&domain, shadow::ENABLE_LOGDIRTY).is_ok());
}

#[test]
fn clean_takes_what_peek_leaves() {
    let domain = create("{}");
    call(&domain, shadow::ENABLE_LOGDIRTY).unwrap();
    write(&domain, &[0, 65, 1023]);
    for op in [shadow::PEEK, shadow::CLEAN] {
        let (answer, words) = fetch(&domain, op, 0, 1024).unwrap();
        assert_eq!((answer.pages, answer.dirty_count), (1024, 3));
        assert_eq!((words[0], words[1], words[15]), (1, 2, 1 << 63));
        assert!(words[2..15].iter().all(|word| *word == 0), "clean parts are cleared");
        assert!(words[16..].iter().all(|word| *word == u64::MAX), "nothing after the bitmap is touched");
    }
    let (answer, words) = fetch(&domain, shadow::CLEAN, 0, 1024).unwrap();
    assert_eq!((answer.dirty_count, words[0]), (0, 0));
}

#[test]
fn a_part_of_a_byte_is_fetched_whole_and_no_more() {
    let domain = create("{}");
    call(&domain, shadow::ENABLE_LOGDIRTY).unwrap();
    write(&domain, &[0, 66]);
    let (_, words) = fetch(&domain, shadow::CLEAN, 0, 67).unwrap();
    assert_eq!((words[0], words[1]), (1, 0xffff_ffff_ffff_ff00 | 4));
}

#[test]
fn counts_come_without_a_bitmap() {
    let domain = create("{}");
    call(&domain, shadow::ENABLE_LOGDIRTY).unwrap();
    write(&domain, &[1, 2]);
    assert_eq!(call(&domain, shadow::PEEK).unwrap().dirty_count, 2);
    // With no pages CLEAN resets the count, and the bits stay: Xen walks as many pages as it is told.
    assert_eq!(call(&domain, shadow::CLEAN).unwrap().dirty_count, 2);
    let (answer, words) = fetch(&domain, shadow::PEEK, 0, 1024).unwrap();
    assert_eq!((answer.dirty_count, words[0]), (0, 6));
}

#[test]
fn with_it_off_nothing_is_dirty() {
    let domain = create("{}");
    call(&domain, shadow::ENABLE_LOGDIRTY).unwrap();
    write(&domain, &[1]);
    call(&domain, shadow::OFF).unwrap();
    let (answer, words) = fetch(&domain, shadow::CLEAN, 0, 1024).unwrap();
    assert_eq!((answer.dirty_count, words[0]), (0, 0));
}

#[test]
fn the_final_pass_reports_what_xen_keeps_mapped() {
    let domain = create(r#"{"xen_mapped_pages": 3}"#);
    call(&domain, shadow::ENABLE_LOGDIRTY).unwrap();
    let (answer, words) = fetch(&domain, shadow::CLEAN, shadow::LOGDIRTY_FINAL, 1024).unwrap();
    assert_eq!((answer.dirty_count, words[15]), (3, 7 << 61));
    assert_eq!(fetch(&domain, shadow::CLEAN, 2, 1024).err(), Some(libc::EINVAL), "an unknown mode");
}

#[test]
fn a_hypercall_buffer_is_written_directly_and_to_its_end_only() {
    let domain = create("{}");
    call(&domain, shadow::ENABLE_LOGDIRTY).unwrap();
    write(&domain, &[9]);
    // A page of a buffer, and after it an area where nothing is.
    let (privcmd, buffers) = (open(c"/dev/xen/privcmd").unwrap(), open(c"/dev/xen/hypercall").unwrap());
    let buffer = mmap(privcmd, 3).unwrap();
    assert_eq!(mmap_fixed(buffers, buffer, 1), Ok(buffer));
    let clean = |dirty_bitmap, pages| {
        let asked = ShadowOp { op: shadow::PEEK, pages, dirty_bitmap, ..ShadowOp::default() };
        domctl(ctl::SHADOW_OP, domain.domid.get(), asked)
    };
    assert_eq!(clean(buffer, 2 * 4096 * 8).err(), Some(libc::EFAULT));
    assert_eq!(clean(buffer + 4096 - 8, 4096 * 8).err(), Some(libc::EFAULT));
    assert_eq!(clean(buffer, 4096 * 8).unwrap().dirty_count, 1);
    assert_eq!(Memory::User.read::<u64>(buffer), Ok(1 << 9));
    munmap(buffer, 3);
    close(buffers);
    close(privcmd);
}
