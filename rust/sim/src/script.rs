// SPDX-License-Identifier: GPL-3.0-or-later
//! Scripted workloads: what the guest does, and at exactly which call of the engine it does it. The thread that
//! makes the call plays the guest, so a test is the same every time.

use std::collections::BTreeMap;

use xenmig_types::Pfn;

use crate::{
    counters::Verb,
    pv::{PteAt, PteChange},
};

/// When the guest acts. Calls are counted from 0, from the domain's creation, failed ones included. What falls into
/// a time when the domain does not run does not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum When {
    /// Before the n-th CLEAN takes effect.
    BeforeClean(u64),
    /// Before the n-th PEEK takes effect.
    BeforePeek(u64),
    /// Before the n-th type query is answered, that is before batch n.
    BeforeTypes(u64),
    /// Before the n-th mapping is made, that is between the type query and the mapping of a batch.
    BeforeMap(u64),
    /// After the n-th mapping was made, and before its pages are read.
    AfterMap(u64),
    /// When the guest is asked to suspend: its last deeds.
    AtSuspend,
}

impl When {
    /// Returns the moment before call `n` of a verb, if scripts know it.
    pub(super) const fn before(verb: Verb, n: u64) -> Option<Self> {
        match verb {
            Verb::Clean => Some(Self::BeforeClean(n)),
            Verb::Peek => Some(Self::BeforePeek(n)),
            Verb::PageTypes => Some(Self::BeforeTypes(n)),
            Verb::Map => Some(Self::BeforeMap(n)),
            Verb::Suspend => Some(Self::AtSuspend),
            _ => None,
        }
    }
}

/// What the guest does. An action that is not possible (a write to a hole, a page ballooned out twice) does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It writes a page: one word of it gets a value that this domain never wrote before.
    Write(Pfn),
    /// It gives the page back to Xen.
    BalloonOut(Pfn),
    /// It gets a page from Xen at a pfn that has none, with other contents than before.
    BalloonIn(Pfn),
    /// A PV guest writes an entry of an L1 page table.
    WritePte(PteAt, PteChange),
    /// A PV guest is caught in the middle of an update: an entry that is present leads to a frame that its p2m does not
    /// have, until [`Action::MendPtes`].
    TearPte(PteAt),
    /// A PV guest completes all updates that it was caught in.
    MendPtes,
    /// A PV guest makes a page of data an L1 page table, pinned, and uses it.
    MakeTable(Pfn),
    /// A PV guest makes such a page table a page of data again.
    UnmakeTable(Pfn),
    /// A PV guest says that the pages of its p2m have changed.
    BumpGeneration,
    /// A PV guest's p2m gets this many entries more, all without a page.
    GrowP2m(u64),
    /// A PV guest does this many random steps of the kinds of [`Churn`](super::Churn), the same ones for the same seed. What
    /// they leave torn is mended when it suspends itself.
    Churn(u32),
}

/// A list of moments and actions, in any order; actions of one moment happen in the order they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script(BTreeMap<When, Vec<Action>>);

impl Script {
    /// Returns an empty script.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an action, for chaining.
    #[must_use]
    pub fn with(mut self, when: When, action: Action) -> Self {
        self.push(when, action);
        self
    }

    /// Adds an action.
    pub fn push(&mut self, when: When, action: Action) {
        self.0.entry(when).or_default().push(action);
    }

    /// Returns the actions of a moment.
    pub(super) fn actions(&self, when: When) -> &[Action] {
        self.0.get(&when).map_or(&[], Vec::as_slice)
    }
}

impl FromIterator<(When, Action)> for Script {
    fn from_iter<I: IntoIterator<Item = (When, Action)>>(steps: I) -> Self {
        let mut script = Self::new();
        for (when, action) in steps {
            script.push(when, action);
        }
        script
    }
}
