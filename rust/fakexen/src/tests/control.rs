// SPDX-License-Identifier: GPL-3.0-or-later
//! The control interface, called as a test in C would, and what descriptions of domains mean.

use std::ffi::{CStr, CString, c_int};

use serde_json::Value;

use super::{create, domctl, map_at, mmap, munmap, open, page_types};
use crate::{control, layout::DomainCpuPolicy, layout::ctl, report};

/// Calls a function of the control interface with a buffer of this size.
fn called(size: usize, call: impl FnOnce(*mut i8, usize) -> i64) -> (i64, String) {
    let mut text = vec![0x55_u8; size];
    let number = call(text.as_mut_ptr().cast(), size);
    let text = if size == 0 { c"" } else { CStr::from_bytes_until_nul(&text).unwrap() };
    (number, text.to_str().unwrap().to_owned())
}

fn create_raw(json: &str, size: usize) -> (i64, String) {
    let json = CString::new(json).unwrap();
    // SAFETY: a C string, and the buffer of `called`.
    called(size, |text, size| unsafe { control::fakexen_create(json.as_ptr(), text, size) })
}

fn state(domid: c_int) -> Value {
    // SAFETY: the buffer of `called`.
    let (_, text) = called(1 << 16, |text, size| unsafe { control::fakexen_state(domid, text, size) });
    serde_json::from_str(&text).unwrap()
}

#[test]
fn text_is_cut_to_the_buffer_and_its_length_is_told() {
    assert_eq!(create_raw("{", 0).0, -i64::from(libc::EINVAL));
    assert_eq!(create_raw("{", 4), (-i64::from(libc::EINVAL), "EOF".to_owned()));
    let (domid, said) = create_raw("{}", 100);
    assert!(domid > 0 && said.is_empty());
    let domid = c_int::try_from(domid).unwrap();
    // SAFETY: the buffer of `called`.
    let counters = |size| called(size, |text, size| unsafe { control::fakexen_counters(domid, text, size) });
    let (length, whole) = counters(10_000);
    assert_eq!((length, usize::try_from(length)), (whole.len().try_into().unwrap(), Ok(whole.len())));
    assert_eq!(counters(5), (length, whole[..4].to_owned()));
}

#[test]
fn a_domain_that_is_not_there_is_told_by_its_number() {
    for domid in [-1, 0x7fee, 70_000] {
        // SAFETY: the buffer of `called`.
        let (number, said) = called(99, |text, size| unsafe { control::fakexen_suspend(domid, text, size) });
        assert_eq!((number, said), (-i64::from(libc::ESRCH), format!("there is no domain {domid}")));
    }
}

#[test]
fn resuming_a_restored_domain_settles_its_cpu_policy() {
    let domid = create(r#"{"populated": false}"#).domid.get();
    let nothing = DomainCpuPolicy::default();
    assert!(domctl(ctl::SET_CPU_POLICY, domid, nothing).is_ok());
    // SAFETY: the buffer of `called`.
    let (number, _) = called(9, |text, size| unsafe { control::fakexen_resume(domid.into(), text, size) });
    assert_eq!((number, state(domid.into())["state"].as_str()), (0, Some("running")));
    assert_eq!(domctl(ctl::SET_CPU_POLICY, domid, nothing).err(), Some(libc::EEXIST));
}

#[test]
fn a_script_acts_where_it_says() {
    let domain = create(
        r#"{"memory_pages": 8, "holes": [7], "workload": {"kind": "scripted", "steps": [
            {"when": "before_types", "n": 1, "balloon_out": [[1, 3]], "balloon_in": [7]},
            {"when": "before_map", "n": 1, "balloon_out": [4]},
            {"when": "after_map", "n": 1, "write": [0], "balloon_out": [5]}
        ]}}"#,
    );
    let domid = domain.domid.get();
    let types = || page_types(domid, &[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
    assert_eq!(types(), [0, 0, 0, 0, 0, 0, 0, 15]);
    assert_eq!(types(), [0, 15, 15, 0, 0, 0, 0, 0]);
    let fd = open(c"/dev/xen/privcmd").unwrap();
    for (errors, writes) in [([0, 0], 0), ([-libc::EINVAL, 0], 1)] {
        let area = mmap(fd, 2).unwrap();
        assert_eq!(map_at(fd, area, domid, &[4, 5]).unwrap(), errors);
        assert_eq!(domain.sim.writes(), writes);
        munmap(area, 2);
    }
    assert_eq!(types(), [0, 15, 15, 0, 15, 15, 0, 0]);
    super::close(fd);
}

#[test]
fn the_digest_of_memory_knows_where_pages_are() {
    let digest = |json| report::state(&create(json)).unwrap()["memory"].clone();
    let one = digest(r#"{"memory_pages": 8, "holes": [1], "fill": false}"#);
    assert_eq!(one, digest(r#"{"memory_pages": 8, "holes": [1], "fill": false, "warm": true}"#));
    assert_ne!(one, digest(r#"{"memory_pages": 8, "holes": [2], "fill": false}"#));
    assert_ne!(one, digest(r#"{"memory_pages": 8, "holes": [1], "fill": true}"#));
}
