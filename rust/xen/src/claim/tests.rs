// SPDX-License-Identifier: GPL-3.0-or-later
//! Claims in a directory of the test's own.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use tempfile::TempDir;
use xenmig_hypervisor::{ClaimError, Holder};
use xenmig_types::Domid;

use super::{Claims, STOCK_HELPER, saves};

fn domid(number: i64) -> Domid {
    Domid::new(number).unwrap()
}

/// Claims in `run` of the directory, where no process but those under `proc` is seen.
fn claims(scratch: &TempDir) -> Claims {
    Claims { directory: scratch.path().join("run"), processes: scratch.path().join("proc") }
}

fn why_not(claims: &Claims) -> String {
    match claims.take(domid(7)).unwrap_err() {
        ClaimError::Unlockable { why, .. } => why,
        error => panic!("{error}"),
    }
}

#[test]
fn a_domain_is_claimed_once_at_a_time() {
    let scratch = tempfile::tempdir().unwrap();
    let (first, second) = (claims(&scratch), claims(&scratch));
    let claim = first.take(domid(7)).unwrap();
    for claims in [&first, &second] {
        let error = claims.take(domid(7)).unwrap_err();
        let ClaimError::Held { holder: Some(holder), .. } = &error else { panic!("{error:?}") };
        assert_eq!(holder.pid, std::process::id());
        assert!(error.to_string().contains("is already being saved in this process: wait"), "{error}");
    }
    let other = second.take(domid(8)).unwrap();
    drop(claim);
    // The file is still there, and so is the number in it.
    let _claim = second.take(domid(7)).unwrap();
    drop(other);
    let mode = fs::metadata(scratch.path().join("run")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_file_that_was_left_behind_means_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("run")).unwrap();
    fs::write(scratch.path().join("run/save-7.lock"), "123456789 and more\n").unwrap();
    let claim = claims(&scratch).take(domid(7)).unwrap();
    let text = fs::read_to_string(scratch.path().join("run/save-7.lock")).unwrap();
    assert_eq!(text, format!("{}\n", std::process::id()));
    drop(claim);
}

/// No file of this name is followed to where an attacker wants it, and none can be put in its place.
#[test]
fn a_hostile_place_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (run, elsewhere) = (scratch.path().join("run"), scratch.path().join("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();

    symlink(&elsewhere, &run).unwrap();
    why_not(&claims(&scratch));
    fs::remove_file(&run).unwrap();

    fs::write(&run, "").unwrap();
    why_not(&claims(&scratch));
    fs::remove_file(&run).unwrap();

    fs::create_dir(&run).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(why_not(&claims(&scratch)).contains("chmod 0700"));
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();

    symlink(elsewhere.join("victim"), run.join("save-7.lock")).unwrap();
    why_not(&claims(&scratch));
    assert!(!elsewhere.join("victim").exists());

    let relative = Claims { directory: Path::new("run").to_owned(), ..claims(&scratch) };
    assert!(why_not(&relative).contains("absolute"));
}

#[test]
fn a_living_helper_of_libxl_holds_its_domain() {
    let scratch = tempfile::tempdir().unwrap();
    let claims = claims(&scratch);
    let process = scratch.path().join("proc/4711");
    fs::create_dir_all(&process).unwrap();
    fs::create_dir(scratch.path().join("proc/self")).unwrap();
    fs::write(
        process.join("cmdline"),
        "/usr/lib/xen-4.17/bin/libxl-save-helper\0--save-domain\x0012\0-1\x007\x001\0",
    )
    .unwrap();
    // It has another directory, so it belongs to another host.
    fs::write(process.join("environ"), "PATH=/bin\0").unwrap();
    drop(claims.take(domid(7)).unwrap());

    let mine = format!("PATH=/bin\0XENMIG_RUN_DIR={}\0", claims.directory.display());
    fs::write(process.join("environ"), mine).unwrap();
    drop(claims.take(domid(8)).unwrap());
    let error = claims.take(domid(7)).unwrap_err();
    let found = Holder { pid: 4711, program: STOCK_HELPER };
    assert!(matches!(&error, ClaimError::Held { holder: Some(holder), .. } if *holder == found), "{error:?}");
    assert!(error.to_string().contains("by libxl-save-helper, process 4711"), "{error}");

    // It is gone, and the refused save has not kept the lock.
    let later = scratch.path().join("later");
    fs::rename(&process, &later).unwrap();
    let claim = claims.take(domid(7)).unwrap();
    claim.check().unwrap();

    // It begins when the domain is claimed already.
    fs::rename(&later, &process).unwrap();
    let error = claim.check().unwrap_err();
    assert!(matches!(&error, ClaimError::Bypassed { holder, .. } if *holder == found), "{error:?}");
    assert!(
        error.to_string().contains("was also saved by libxl-save-helper, process 4711: neither"),
        "{error}"
    );
}

#[test]
fn other_command_lines_are_not_taken_for_a_save() {
    assert!(saves(b"libxl-save-helper\0--save-domain\x003\x004\x007\x001\x00136\x000\0", domid(7)));
    for line in [
        &b""[..],
        b"libxl-save-helper\0",
        b"libxl-save-helper\0--save-domain\x003\x004\x0077\x001\x00136\x000\0",
        b"libxl-save-helper\0--save-domain\x007\x007\x008\x007\x00136\x000\0",
        b"libxl-save-helper\0--restore-domain\x003\x004\x007\x001\x00136\x000\0",
        b"vi\0libxl-save-helper\0--save-domain\x003\x004\x007\0",
        b"/usr/bin/python3\0/usr/bin/xenmig-save-helper\0--save-domain\x003\x004\x007\0",
    ] {
        assert!(!saves(line, domid(7)), "{:?}", String::from_utf8_lossy(line));
    }
}
