// SPDX-License-Identifier: GPL-3.0-or-later
//! What opening Xen says on a machine without it. The verbs are tested on fakexen and on a real Xen.

use std::path::Path;

use xenmig_hypervisor::{Errno, Hypervisor};
use xenmig_types::XenVersion;

use crate::{
    XenHost, XenOpenError,
    interface::{self, BUILT_FOR},
    libraries::{CALL_SONAME, CallFunctions, ControlFunctions, FOREIGN_SONAME},
};

const fn is_host<T: Hypervisor + Send + Sync + 'static>() {}
const _: () = is_host::<XenHost>();

fn minor(minor: u16) -> XenVersion {
    XenVersion { major: 4, minor }
}

#[test]
fn a_missing_library_is_named_first() {
    let missing = "libxencall.so.none";
    let error = XenHost::open_with(missing, FOREIGN_SONAME, interface::control_soname).unwrap_err();
    assert!(matches!(&error, XenOpenError::Library { soname, .. } if soname == missing), "{error:?}");
    assert!(error.to_string().contains(missing) && error.to_string().contains("install"), "{error}");
    assert_eq!(error.errno(), None);

    let missing = "libxenforeignmemory.so.none";
    if CallFunctions::load(CALL_SONAME).is_ok() {
        let error = XenHost::open_with(CALL_SONAME, missing, interface::control_soname).unwrap_err();
        assert!(matches!(&error, XenOpenError::Library { soname, .. } if soname == missing), "{error:?}");
    }
}

#[test]
fn another_xens_libxenctrl_is_not_taken() {
    let error = ControlFunctions::load(&interface::control_soname(minor(99))).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(&error, XenOpenError::Library { soname, .. } if soname == "libxenctrl.so.4.99"),
        "{error:?}"
    );
    assert!(text.contains(&format!("for Xen {BUILT_FOR}")) && text.contains("rebuild"), "{text}");
}

#[test]
fn a_library_without_the_functions_is_refused() {
    let error = CallFunctions::load("libc.so.6").unwrap_err();
    let expected = XenOpenError::Function { soname: "libc.so.6".to_owned(), function: "xencall_open" };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("libc.so.6 has no function xencall_open"), "{error}");
}

#[test]
fn without_the_device_it_says_so() {
    if Path::new("/dev/xen/privcmd").exists() || CallFunctions::load(CALL_SONAME).is_err() {
        eprintln!("not run: this machine has Xen, or has no libraries of it");
        return;
    }
    let error = XenHost::open().unwrap_err();
    assert_eq!(error, XenOpenError::NoDevice { errno: Errno(libc::ENOENT) });
    assert!(error.to_string().contains("/dev/xen/privcmd") && error.to_string().contains("control domain"));
}

#[test]
fn a_device_that_may_not_be_used_is_another_matter() {
    let error = XenOpenError::device(Errno(libc::EACCES));
    assert_eq!(error, XenOpenError::Device { errno: Errno(libc::EACCES) });
    assert!(error.to_string().contains("Run as root"), "{error}");
}

#[test]
fn the_built_version_fits_and_its_neighbours_do_not() {
    let fitting: Vec<u16> = (0..100).filter(|n| interface::fits(minor(*n))).collect();
    let words: Vec<String> = fitting.iter().map(|n| format!("4.{n}")).collect();
    assert_eq!(words.join(" or "), BUILT_FOR);
    assert!(fitting.iter().all(|n| !interface::fits(XenVersion { major: 5, minor: *n })));

    let text = XenOpenError::OtherVersion { running: minor(99) }.to_string();
    assert!(text.contains("is Xen 4.99") && text.contains(BUILT_FOR) && text.contains("rebuild"), "{text}");
}

#[test]
fn the_version_is_two_halves() {
    assert_eq!(interface::version(0x0004_0011), minor(17));
}
