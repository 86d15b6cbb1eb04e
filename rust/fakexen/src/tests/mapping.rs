// SPDX-License-Identifier: GPL-3.0-or-later
//! Foreign mappings.

use super::{PAGE, close, create, ioctl, map_at, mmap, munmap, open, word};
use crate::{
    areas::existing,
    caller_memory::Memory,
    faults::{self, Fault},
    host::Domain,
    layout::{self, GrantEntry, MmapBatch, MmapResource, mem},
};
use xenmig_types::Pfn;

fn first_word(domain: &Domain, pfn: u64) -> u64 {
    let mut page = [0; PAGE];
    domain.sim.read_page(Pfn(pfn), &mut page).unwrap();
    u64::from_le_bytes(*page.first_chunk().unwrap())
}

#[test]
fn pages_are_shown_where_they_were_asked_for() {
    let domain = create(r#"{"memory_pages": 64, "holes": [9], "seed": 3}"#);
    let domid = domain.domid.get();
    let fd = open(c"/dev/xen/privcmd").unwrap();
    let gfns = [4, 5, 6, 63, 9, 1, 64, 0, u64::MAX, 2];
    let area = mmap(fd, gfns.len()).unwrap();
    assert_eq!(word(area), Err(libc::EFAULT), "nothing is there yet");
    let errors = map_at(fd, area, domid, &gfns).unwrap();
    for (place, (gfn, errno)) in gfns.into_iter().zip(errors).enumerate() {
        let shown = word(area + (place * PAGE) as u64);
        if [9, 64, u64::MAX].contains(&gfn) {
            assert_eq!((errno, shown), (-libc::EINVAL, Err(libc::EFAULT)), "gfn {gfn:#x}");
        } else {
            assert_eq!((errno, shown), (0, Ok(first_word(&domain, gfn))), "gfn {gfn:#x}");
        }
    }
    Memory::User.write(area, &0x1234_u64).unwrap();
    assert_eq!(first_word(&domain, 4), 0x1234, "the page is the domain's own");
    assert_eq!(map_at(fd, area, domid, &[1]).err(), Some(libc::EINVAL), "pages are there already");
    munmap(area, gfns.len());
    assert_eq!(map_at(fd, area, domid, &gfns).err(), Some(libc::EINVAL), "the area is gone");
    close(fd);
}

#[test]
fn more_pages_than_a_chunk_are_mapped_at_once() {
    let domain = create(r#"{"memory_pages": 3000, "seed": 5}"#);
    let fd = open(c"/dev/xen/privcmd").unwrap();
    let gfns: Vec<u64> = (0..3000).rev().collect();
    let area = mmap(fd, 3000).unwrap();
    assert_eq!(map_at(fd, area, domain.domid.get(), &gfns).unwrap(), vec![0; 3000]);
    for place in [0, 1023, 1024, 2047, 2048, 2999] {
        assert_eq!(word(area + place * PAGE as u64), Ok(first_word(&domain, 2999 - place)));
    }
    munmap(area, 3000);
    close(fd);
}

#[test]
fn the_area_must_be_whole_and_from_privcmd() {
    let domid = create("{}").domid.get();
    let fd = open(c"/dev/xen/privcmd").unwrap();
    let buffers = open(c"/dev/xen/hypercall").unwrap();
    let (area, buffer) = (mmap(fd, 2).unwrap(), mmap(buffers, 1).unwrap());
    let ordinary = vec![0_u8; 2 * PAGE];
    assert_eq!(map_at(fd, area, domid, &[1]).err(), Some(libc::EINVAL), "a part of it");
    assert_eq!(map_at(fd, area, domid, &[1, 2, 3]).err(), Some(libc::EINVAL), "more than it");
    assert_eq!(map_at(fd, area, domid, &[]).err(), Some(libc::EINVAL), "nothing");
    assert_eq!(map_at(fd, buffer, domid, &[1]).err(), Some(libc::EINVAL), "a hypercall buffer");
    assert_eq!(
        map_at(fd, ordinary.as_ptr() as u64, domid, &[1]).err(),
        Some(libc::EINVAL),
        "ordinary memory"
    );
    assert_eq!(map_at(fd, area, 0x7fee, &[1, 2]).unwrap(), [-libc::ESRCH; 2], "no such domain");
    munmap(area, 2);
    munmap(buffer, 1);
    close(buffers);
    close(fd);
}

#[test]
fn a_page_that_is_paged_out_is_mapped_at_the_next_attempt() {
    let domain = create(r#"{"seed": 8}"#);
    let domid = domain.domid.get();
    faults::add(&Fault::Page { domid, pfn: 11, errno: libc::ENOENT, times: Some(2) });
    faults::add(&Fault::Page { domid, pfn: 12, errno: libc::EPERM, times: None });
    let fd = open(c"/dev/xen/privcmd").unwrap();
    let area = mmap(fd, 3).unwrap();
    let at = area + PAGE as u64;
    assert_eq!(map_at(fd, area, domid, &[10, 11, 12]).err(), Some(libc::ENOENT));
    assert_eq!((word(area), word(at)), (Ok(first_word(&domain, 10)), Err(libc::EFAULT)));
    assert_eq!(map_at(fd, at, domid, &[11]).err(), Some(libc::ENOENT));
    assert_eq!(map_at(fd, at, domid, &[11]), Ok(vec![0]));
    assert_eq!(word(at), Ok(first_word(&domain, 11)));
    assert_eq!(map_at(fd, at, domid, &[11]).err(), Some(libc::EINVAL), "it is there now");
    assert_eq!(map_at(fd, at + PAGE as u64, domid, &[12]), Ok(vec![-libc::EPERM]));
    assert_eq!(existing(Some(domid)).pages_mapped_now, 2);
    munmap(area, 3);
    close(fd);
}

#[test]
fn the_older_ioctl_marks_errors_in_the_frame_numbers() {
    let domid = create(r#"{"holes": [2]}"#).domid.get();
    faults::add(&Fault::Page { domid, pfn: 3, errno: libc::ENOENT, times: None });
    let fd = open(c"/dev/xen/privcmd").unwrap();
    let area = mmap(fd, 3).unwrap();
    let mut frames = [1_u64, 2, 3];
    let batch =
        MmapBatch { num: 3, dom: domid, addr: area, arr: frames.as_mut_ptr() as u64, ..MmapBatch::default() };
    assert_eq!(ioctl(fd, layout::ioctl::MMAPBATCH, &raw const batch as u64), Err(libc::ENOENT));
    let mut left = [0_u64; 3];
    Memory::User.read_all(batch.arr, &mut left).unwrap();
    assert_eq!(left, [1, 0xf000_0002, 0x8000_0003]);
    munmap(area, 3);
    close(fd);
}

#[test]
fn the_grant_table_has_one_frame() {
    let domain = create("{}");
    let dom = domain.domid.get();
    let fd = open(c"/dev/xen/privcmd").unwrap();
    let call = |resource: MmapResource| {
        ioctl(fd, layout::ioctl::MMAP_RESOURCE, &raw const resource as u64)?;
        Memory::User.read::<MmapResource>(&raw const resource as u64)
    };
    let size = MmapResource { dom, kind: mem::RESOURCE_GRANT_TABLE, ..MmapResource::default() };
    assert_eq!(call(size).unwrap().num, 1);
    let addr = mmap(fd, 1).unwrap();
    let frame = MmapResource { num: 1, addr, ..size };
    assert_eq!(call(MmapResource { idx: 1, ..frame }).err(), Some(libc::EINVAL));
    assert_eq!(call(MmapResource { kind: 0, ..frame }).err(), Some(libc::EOPNOTSUPP));
    assert_eq!(call(MmapResource { dom: 0x7fee, ..frame }).err(), Some(libc::ESRCH));
    call(frame).unwrap();
    Memory::User.write(addr + 8, &GrantEntry { flags: 1, domid: 2, frame: 3 }).unwrap();
    let [console, store]: [GrantEntry; 2] = domain.grants.entries();
    assert_eq!((console.frame, store.flags, store.domid, store.frame), (0, 1, 2, 3));
    munmap(addr, 1);
    close(fd);
}
