// SPDX-License-Identifier: GPL-3.0-or-later
//! Whether two domains are the same: a fingerprint to be compared between processes, and a list of the pages that
//! differ between two domains of one process.

use std::fmt;

use xenmig_hypervisor::{Access, PageBuffer};
use xenmig_types::{PAGE_SIZE, Pfn};
use xxhash_rust::xxh3::Xxh3;

use crate::{domain::SimDomain, gate::lock};

/// Pages that are looked at together.
const CHUNK_PAGES: u64 = 256;

/// 128 bits of a domain's memory and state, written as 32 hexadecimal digits.
///
/// It covers the pfn and the contents of every page, in pfn order, so also which pfns have none; the HVM context,
/// the HVM parameters, the CPU policy; and the TSC settings without the incarnation, which Xen counts up when they
/// are restored. It does not cover domid, state, workload, log-dirty mode.
///
/// Of a PV guest it covers pfns, types and contents of every page, with pfns in place of the guest's mfns, and without
/// what Xen, the toolstack, or the guest itself puts there anew after a restore; the vCPUs, the same way; what the shared
/// info page has for the guest; CPU policy and TSC. So the guest must be suspended, or restored and not yet resumed, to
/// be comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u128);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl SimDomain {
    /// Returns the fingerprint, taken with the vCPUs stopped.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let _life = lock(&self.life);
        let _stopped = self.guest.gate.stop();
        let mut hash = Xxh3::new();
        let mut page: PageBuffer = [0; PAGE_SIZE];
        let normaliser = self.guest.pv().map(|guest| guest.normaliser());
        for run in self.guest.memory.runs(CHUNK_PAGES) {
            let pages = self.guest.memory.map_own(run.clone(), Access::Read);
            for (at, pfn) in run.enumerate() {
                pages.copy_out(at, &mut page);
                hash.update(&pfn.to_le_bytes());
                if let Some(normaliser) = &normaliser {
                    hash.update(&[normaliser.normalise(Pfn(pfn), &mut page)]);
                }
                hash.update(&page);
            }
        }
        hash.update(&u64::MAX.to_le_bytes());
        let (blobs, writes) = (lock(&self.blobs), self.guest.writes());
        match &normaliser {
            Some(normaliser) => {
                normaliser.digest(|bytes| hash.update(bytes));
                blobs.digest_common(writes, |bytes| hash.update(bytes));
            }
            None => blobs.digest(writes, |bytes| hash.update(bytes)),
        }
        Fingerprint(hash.digest128())
    }

    /// Returns the first pfns, at most `limit`, where this domain and `other` differ: one of them has no page, or
    /// the contents are not the same, or, of PV guests, the types are not; contents as for [`Fingerprint`]. Taken with
    /// the vCPUs of both stopped.
    #[must_use]
    pub fn differing_pages(&self, other: &Self, limit: usize) -> Vec<Pfn> {
        let _stopped = (self.guest.gate.stop(), other.guest.gate.stop());
        let end = self.guest.memory.p2m_pages().max(other.guest.memory.p2m_pages());
        let mut contents: [PageBuffer; 2] = [[0; PAGE_SIZE]; 2];
        let [mine, theirs] = &mut contents;
        let mut differing = Vec::new();
        let normalisers = [self, other].map(|domain| domain.guest.pv().map(|guest| guest.normaliser()));
        for first in (0..end).step_by(256) {
            let run = first..end.min(first + CHUNK_PAGES);
            let my_pages = self.guest.memory.map_own(run.clone(), Access::Read);
            let their_pages = other.guest.memory.map_own(run.clone(), Access::Read);
            for (at, pfn) in run.enumerate() {
                let exist = (my_pages.copy_out(at, mine), their_pages.copy_out(at, theirs));
                let mut types = [0; 2];
                for ((normaliser, page), kind) in
                    normalisers.iter().zip([&mut *mine, &mut *theirs]).zip(&mut types)
                {
                    if let Some(normaliser) = normaliser.as_ref().filter(|_| exist == (true, true)) {
                        *kind = normaliser.normalise(Pfn(pfn), page);
                    }
                }
                if exist.0 != exist.1 || (exist.0 && (mine != theirs || types[0] != types[1])) {
                    differing.push(Pfn(pfn));
                }
                if differing.len() >= limit {
                    return differing;
                }
            }
        }
        differing
    }
}
