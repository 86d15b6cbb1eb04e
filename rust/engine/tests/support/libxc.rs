// SPDX-License-Identifier: GPL-3.0-or-later
//! A second writing of the save loop of C libxc, page by page and without cleverness, together with the guest and
//! the log-dirty mode that it runs against. It shares no code with the engine: what both do must be the same, call
//! for call. Source: `send_memory_live()` and its callees in `xg_sr_save.c`, as facts.

use std::collections::{BTreeMap, BTreeSet};

use xenmig_engine::Decision;
use xenmig_sim::{Action, When};
use xenmig_types::PageType;

/// What an observer of the save sees, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The policy is asked: `struct precopy_stats`, a dirty count of -1 being `None`.
    Consult { iteration: u32, total_written: u64, dirty_count: Option<u64> },
    /// A PAGE_DATA record.
    Batch(Vec<(u64, PageType)>),
    /// The guest is suspended.
    Suspend,
    /// The VERIFY record.
    Verify,
    /// It ended without a stream.
    Aborted,
}

/// A domain, and what its guest will do.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    populated: Vec<bool>,
    max_pages: usize,
    xen_mapped: Vec<u64>,
    script: BTreeMap<When, Vec<Action>>,
    running: bool,
    dirty: BTreeSet<u64>,
    cleans: u64,
    type_queries: u64,
    mappings: u64,
    events: Vec<Event>,
}

impl Model {
    pub(crate) fn new(
        populated: Vec<bool>,
        max_pages: u64,
        xen_mapped: Vec<u64>,
        steps: impl IntoIterator<Item = (When, Action)>,
    ) -> Self {
        let mut script: BTreeMap<When, Vec<Action>> = BTreeMap::new();
        for (when, action) in steps {
            script.entry(when).or_default().push(action);
        }
        Self {
            populated,
            max_pages: max_pages as usize,
            xen_mapped,
            script,
            running: true,
            dirty: BTreeSet::new(),
            cleans: 0,
            type_queries: 0,
            mappings: 0,
            events: Vec::new(),
        }
    }

    /// Saves while the guest runs; `policy` is given the number of the consult, from 0.
    pub(crate) fn save_live(
        mut self,
        verify: bool,
        mut policy: impl FnMut(usize, u32, Option<u64>) -> Decision,
    ) -> Vec<Event> {
        let everything: Vec<u64> = (0..self.populated.len() as u64).collect();
        let mut bitmap = everything.clone();
        let (mut iteration, mut total_written) = (0, 0);
        let mut dirty_count = Some(bitmap.len() as u64);
        let mut round = 0;
        let mut consults = 0;
        let mut ask = |events: &mut Vec<Event>, iteration, total_written, dirty_count| {
            events.push(Event::Consult { iteration, total_written, dirty_count });
            consults += 1;
            policy(consults - 1, iteration, dirty_count)
        };
        let decision = loop {
            let decision = ask(&mut self.events, iteration, total_written, dirty_count);
            round += 1;
            if !bitmap.is_empty() && decision != Decision::Abort {
                self.send(&bitmap);
            }
            if decision != Decision::Continue {
                break decision;
            }
            iteration = round;
            total_written += dirty_count.unwrap();
            dirty_count = None;
            let decision = ask(&mut self.events, iteration, total_written, dirty_count);
            if decision != Decision::Continue {
                break decision;
            }
            bitmap = self.clean();
            dirty_count = Some(bitmap.len() as u64);
        };
        if decision == Decision::Abort {
            self.events.push(Event::Aborted);
            return self.events;
        }
        self.suspend();
        self.dirty.extend(&self.xen_mapped);
        let last = self.clean();
        self.send(&last);
        if verify {
            self.events.push(Event::Verify);
            self.send(&everything);
        }
        self.events
    }

    /// Suspends the guest first.
    pub(crate) fn save_nonlive(mut self) -> Vec<Event> {
        self.suspend();
        let everything: Vec<u64> = (0..self.populated.len() as u64).collect();
        self.send(&everything);
        self.events
    }

    fn suspend(&mut self) {
        self.act(When::AtSuspend);
        self.running = false;
        self.events.push(Event::Suspend);
        let populated = &self.populated;
        self.xen_mapped.retain(|pfn| populated[*pfn as usize]);
    }

    fn clean(&mut self) -> Vec<u64> {
        self.act(When::BeforeClean(self.cleans));
        self.cleans += 1;
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    fn send(&mut self, bitmap: &[u64]) {
        let mut batch = Vec::new();
        for pfn in bitmap {
            if batch.len() == 1024 {
                self.write_batch(std::mem::take(&mut batch));
            }
            batch.push(*pfn);
        }
        if !batch.is_empty() {
            self.write_batch(batch);
        }
    }

    fn write_batch(&mut self, pfns: Vec<u64>) {
        self.act(When::BeforeTypes(self.type_queries));
        self.type_queries += 1;
        let mut words = Vec::new();
        for pfn in pfns {
            let kind = if self.populated[pfn as usize] { PageType::Notab } else { PageType::Xtab };
            words.push((pfn, kind));
        }
        if words.iter().any(|(_, kind)| *kind == PageType::Notab) {
            self.act(When::BeforeMap(self.mappings));
            self.act(When::AfterMap(self.mappings));
            self.mappings += 1;
        }
        self.events.push(Event::Batch(words));
    }

    fn act(&mut self, when: When) {
        for action in self.script.get(&when).cloned().unwrap_or_default() {
            let (pfn, there) = match action {
                Action::Write(pfn) => (pfn.0, true),
                Action::BalloonOut(pfn) => (pfn.0, false),
                Action::BalloonIn(pfn) => (pfn.0, true),
                other => panic!("{other:?} is a PV guest's"),
            };
            let pages = self.populated.iter().filter(|populated| **populated).count();
            let populated = &mut self.populated[pfn as usize];
            let possible = match action {
                Action::Write(_) | Action::BalloonOut(_) => *populated,
                Action::BalloonIn(_) => !*populated && pages < self.max_pages,
                _ => false,
            };
            if self.running && possible {
                *populated = there;
                self.dirty.insert(pfn);
            }
        }
    }
}
