// SPDX-License-Identifier: GPL-3.0-or-later
//! Every call goes through [`call`]: it is counted, for the host and for the domain it is about, it fails if a fault
//! says so, and it is traced.

use std::sync::atomic::{AtomicU64, Ordering};

use xenmig_types::Domid;

use crate::{faults, kinds::Kind, trace::trace};

/// What a call returns: a number, or an errno.
pub(crate) type Answer = Result<i64, i32>;

/// How often each kind of call was made.
#[derive(Debug)]
pub(crate) struct Tally([AtomicU64; Kind::ALL.len()]);

/// Calls of the host, those about domains included.
pub(crate) static HOST: Tally = Tally::new();
/// How often a pointer in a hypercall led to memory that is not from `/dev/xen/hypercall`, and may be swapped or
/// moved under the hypervisor.
pub(crate) static UNSAFE_POINTERS: AtomicU64 = AtomicU64::new(0);

/// Whom a call is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope<'a> {
    /// No domain, or one that does not exist.
    Host,
    /// A domain.
    Domain {
        /// Its number.
        domid: Domid,
        /// Where its calls are counted.
        tally: &'a Tally,
    },
}

impl Scope<'_> {
    fn domid(self) -> Option<u16> {
        match self {
            Self::Host => None,
            Self::Domain { domid, .. } => Some(domid.get()),
        }
    }
}

impl Tally {
    /// Begins at zero.
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Kind::ALL.len()])
    }

    fn count(&self, kind: Kind) {
        if let Some(calls) = self.0.get(kind as usize) {
            calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how often a kind of call was made, failed calls included.
    pub(crate) fn get(&self, kind: Kind) -> u64 {
        self.0.get(kind as usize).map_or(0, |calls| calls.load(Ordering::Relaxed))
    }

    /// Begins at zero again.
    pub(crate) fn reset(&self) {
        self.0.iter().for_each(|calls| calls.store(0, Ordering::Relaxed));
    }
}

/// Counts a call, and makes it fail if a fault says so.
pub(crate) fn begin(kind: Kind, scope: Scope<'_>) -> Result<(), i32> {
    HOST.count(kind);
    if let Scope::Domain { tally, .. } = scope {
        tally.count(kind);
    }
    faults::errno(kind, scope.domid()).map_or(Ok(()), Err)
}

/// Makes a call.
pub(crate) fn call(kind: Kind, scope: Scope<'_>, body: impl FnOnce() -> Answer) -> Answer {
    let answer = begin(kind, scope).and_then(|()| body());
    trace!(
        "{}{} = {answer:?}",
        kind.name(),
        scope.domid().map_or(String::new(), |domid| format!(" d{domid}"))
    );
    answer
}

/// Answers what is not played here.
pub(crate) fn unknown(what: &str, number: u64) -> Answer {
    trace!("{what} {number} is not played here");
    call(Kind::Unknown, Scope::Host, || Err(libc::ENOSYS))
}
