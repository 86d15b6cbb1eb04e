// SPDX-License-Identifier: GPL-3.0-or-later
//! What is counted as mapped.

use super::{PAGE, close, create, map_at, mmap, munmap, open};
use crate::areas::existing;

#[test]
fn mapped_pages_are_counted_to_the_page() {
    let domid = create(r#"{"holes": [13]}"#).domid.get();
    let now = || {
        let existing = existing(Some(domid));
        (existing.areas_now, existing.mappings_now, existing.pages_mapped_now)
    };
    let fd = open(c"/dev/xen/privcmd").unwrap();
    let area = mmap(fd, 8).unwrap();
    let page = |number: usize| area + (number * PAGE) as u64;
    assert_eq!(now(), (0, 0, 0), "an empty area has no owner");
    map_at(fd, area, domid, &[10, 11, 12, 13, 14, 15, 16, 17]).unwrap();
    assert_eq!(now(), (1, 1, 7), "13 is a hole");
    munmap(page(2), 2);
    assert_eq!(now(), (2, 2, 6), "12 went, and the hole");
    munmap(page(7), 1);
    assert_eq!(now(), (2, 2, 5), "17 went");
    munmap(area, 5);
    assert_eq!(now(), (1, 1, 2), "10, 11 and 14 went; 15 and 16 stay");
    munmap(page(5), 2);
    assert_eq!(now(), (0, 0, 0));
    close(fd);
}

#[test]
fn one_munmap_may_remove_several_areas() {
    let domid = create("{}").domid.get();
    let fd = open(c"/dev/xen/privcmd").unwrap();
    let area = mmap(fd, 3).unwrap();
    map_at(fd, area, domid, &[1, 2, 3]).unwrap();
    munmap(area + PAGE as u64, 1);
    assert_eq!(existing(Some(domid)).areas_now, 2);
    munmap(area, 3);
    assert_eq!(existing(Some(domid)).areas_now, 0);
    close(fd);
}
