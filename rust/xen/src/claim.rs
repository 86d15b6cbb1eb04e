// SPDX-License-Identifier: GPL-3.0-or-later
//! Claiming a domain on the real Xen: a locked file for each domain, which all processes of this machine see.
//!
//! The kernel drops the lock when its holder ends, however it ends, so a file that was left behind means nothing. libxl's
//! own save helper takes no lock; it is found by its command line. xenmig's helper is not looked for: it takes the lock.

use std::{
    env,
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _},
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
        },
    },
    path::{Path, PathBuf},
};

use xenmig_hypervisor::{ClaimError, Held, Holder, Process, SaveClaim};
use xenmig_types::Domid;

/// The environment variable that names another directory for the locks. Saves that use different directories do not see
/// each other.
pub const RUN_DIRECTORY_VARIABLE: &str = "XENMIG_RUN_DIR";
const RUN_DIRECTORY: &str = "/run/xenmig";
const STOCK_HELPER: &str = "libxl-save-helper";

/// Where the locks are.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    directory: PathBuf,
    processes: PathBuf,
}

impl Claims {
    /// Returns the directory that the environment names, or the usual one.
    pub(crate) fn from_environment() -> Self {
        let named = env::var_os(RUN_DIRECTORY_VARIABLE).filter(|name| !name.is_empty());
        Self { directory: directory(named.as_deref()), processes: PathBuf::from("/proc") }
    }

    /// Claims a domain.
    pub(crate) fn take(&self, domid: Domid) -> Result<SaveClaim, ClaimError> {
        let file = self.open(domid)?;
        // SAFETY: the descriptor is open for as long as `file` lives.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = io::Error::last_os_error();
            return Err(if error.kind() == io::ErrorKind::WouldBlock {
                ClaimError::Held { domid, holder: holder(&file) }
            } else {
                self.unlockable(domid, error.to_string())
            });
        }
        let lock = Lock { file, process: Process::current() };
        // The number is there for messages; a claim without it is as good.
        let _ = lock
            .file
            .set_len(0)
            .and_then(|()| lock.file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0));
        match self.stock_helper(domid) {
            None => Ok(SaveClaim::new(Claimed { claims: self.clone(), domid, _lock: lock })),
            holder => Err(ClaimError::Held { domid, holder }),
        }
    }

    /// Opens the domain's file, in a directory in which no other user can put anything else in its place.
    #[expect(clippy::disallowed_methods, reason = "a lock is a file, and this crate opens them")]
    fn open(&self, domid: Domid) -> Result<File, ClaimError> {
        let failed = |error: io::Error| self.unlockable(domid, error.to_string());
        if !self.directory.is_absolute() {
            return Err(self.unlockable(domid, format!("{RUN_DIRECTORY_VARIABLE} must be an absolute path")));
        }
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(&self.directory)
            .map_err(failed)?;
        let metadata = directory.metadata().map_err(failed)?;
        // SAFETY: it has no preconditions.
        let user = unsafe { libc::geteuid() };
        if ![0, user].contains(&metadata.uid()) {
            return Err(self.unlockable(domid, "it belongs to another user: remove it".to_owned()));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(
                self.unlockable(domid, "others than its owner can write to it: chmod 0700".to_owned())
            );
        }
        // By way of its descriptor, the directory is the one that was checked.
        let path = format!("/proc/self/fd/{}/save-{}.lock", directory.as_raw_fd(), domid.get());
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .map_err(failed)
    }

    /// Finds a helper of libxl's own that is saving the domain.
    fn stock_helper(&self, domid: Domid) -> Option<Holder> {
        let processes = fs::read_dir(&self.processes).ok()?;
        let mut pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.find(|pid: &u32| {
            let process = self.processes.join(pid.to_string());
            *pid != std::process::id()
                && start_of(&process.join("cmdline")).is_some_and(|line| saves(line.as_slice(), domid))
                && fs::read(process.join("environ")).map_or(true, |lines| self.is_shared_with(&lines))
        })
        .map(|pid| Holder { pid, program: STOCK_HELPER })
    }

    /// Says whether a process with this environment uses the same directory: whoever has another is on another host,
    /// as tests are that simulate several on one machine.
    fn is_shared_with(&self, environment: &[u8]) -> bool {
        let prefix = format!("{RUN_DIRECTORY_VARIABLE}=");
        let named = environment
            .split(|byte| *byte == 0)
            .find_map(|line| line.strip_prefix(prefix.as_bytes()))
            .filter(|name| !name.is_empty());
        directory(named.map(OsStr::from_bytes)) == self.directory
    }

    fn unlockable(&self, domid: Domid, why: String) -> ClaimError {
        ClaimError::Unlockable { domid, path: self.directory.clone(), why }
    }
}

/// Reads the start of a file of `/proc`, in one call: there may be thousands of processes, and a guest is waiting for none
/// of them.
#[expect(clippy::disallowed_methods, reason = "the kernel's list of processes is made of files")]
fn start_of(path: &Path) -> Option<Vec<u8>> {
    let mut start = vec![0; 512];
    let length = File::open(path).ok()?.read(&mut start).ok()?;
    start.truncate(length);
    Some(start)
}

fn directory(named: Option<&OsStr>) -> PathBuf {
    Path::new(named.unwrap_or(OsStr::new(RUN_DIRECTORY))).to_owned()
}

/// Says whether a command line, with a NUL after each argument, is that of libxl's own helper saving the domain:
/// `libxl-save-helper --save-domain io_fd recv_fd domid ...` (`libxl_save_callout.c`, `run_helper()`).
fn saves(command_line: &[u8], domid: Domid) -> bool {
    let mut arguments = command_line.split(|byte| *byte == 0);
    let program = arguments.next().and_then(|path| path.rsplit(|byte| *byte == b'/').next());
    program == Some(STOCK_HELPER.as_bytes())
        && arguments.next() == Some(b"--save-domain")
        && arguments.nth(2) == Some(domid.get().to_string().as_bytes())
}

/// Reads who holds a lock, unless that process has ended: a child of it has inherited the lock then.
fn holder(mut file: &File) -> Option<Holder> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    Path::new("/proc").join(pid.to_string()).exists().then_some(Holder { pid, program: "xenmig" })
}

/// A domain whose file is locked.
#[derive(Debug)]
struct Claimed {
    claims: Claims,
    domid: Domid,
    _lock: Lock,
}

impl Held for Claimed {
    fn check(&self) -> Result<(), ClaimError> {
        match self.claims.stock_helper(self.domid) {
            None => Ok(()),
            Some(holder) => Err(ClaimError::Bypassed { domid: self.domid, holder }),
        }
    }
}

/// A locked file. Children of a fork share the lock, so it is dropped for them, too, and only by the process that
/// took it.
#[derive(Debug)]
struct Lock {
    file: File,
    process: Process,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.process == Process::current() {
            // SAFETY: the descriptor is open for as long as `file` lives.
            unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_UN) };
        }
    }
}

#[cfg(test)]
mod tests;
