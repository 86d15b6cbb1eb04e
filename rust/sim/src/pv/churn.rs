// SPDX-License-Identifier: GPL-3.0-or-later
//! What the kernel of a PV guest does in the background: random steps, as they fall due or where a script wants them.
//! Each step that falls due takes the control lock, so a CLEAN or a suspension comes between two of them. An entry that
//! was torn stays so until a later step mends it, or the guest suspends itself.

use std::{sync::Mutex, time::Duration};

use xenmig_types::{DomainState, Pfn, pv::Pte};

use super::{Churn, PteAt, PteChange, PvGuest, kernel::Kernel, tables::SLOTS};
use crate::{gate::lock, guest::Guest, life::Life, vcpu::LAG};

/// The shortest sleep between two looks at what is due.
const SLICE: Duration = Duration::from_millis(1);
/// The longest.
const LONGEST_SLEEP: Duration = Duration::from_millis(20);
/// How often a page of a kind is looked for at random.
const TRIES: u32 = 32;
/// The most page tables that the user has at a time.
const MOST_TABLES: usize = 24;

/// A kind of step.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Pte,
    Table,
    Balloon,
}

const KINDS: [Kind; 3] = [Kind::Pte, Kind::Table, Kind::Balloon];

impl PvGuest<'_> {
    /// Does `steps` random steps of all kinds, and says whether any of them was possible.
    pub(super) fn churn(&self, kernel: &mut Kernel, steps: u32) -> bool {
        (0..steps).fold(false, |any, _| {
            // Page tables change far more often than the memory's size.
            let kind = match kernel.rng.u8(..8) {
                0 => Kind::Balloon,
                1 | 2 => Kind::Table,
                _ => Kind::Pte,
            };
            self.churn_once(kernel, kind) || any
        })
    }

    fn churn_once(&self, kernel: &mut Kernel, kind: Kind) -> bool {
        match kind {
            Kind::Pte => self.churn_pte(kernel),
            Kind::Table => {
                let tables = self.user_tables(kernel);
                let more = tables.len() < 2 || (tables.len() < MOST_TABLES && kernel.rng.bool());
                match more {
                    true => self.random_data(kernel).is_some_and(|page| self.make_table(kernel, page)),
                    false => kernel.choose(&tables).is_some_and(|table| self.unmake_table(kernel, table)),
                }
            }
            Kind::Balloon => {
                let most = self.guest.layout.ram_pages / 8;
                let out = kernel.out.clone();
                if out.is_empty() || ((out.len() as u64) < most && kernel.rng.bool()) {
                    self.random_data(kernel).is_some_and(|page| self.balloon_out(kernel, page))
                } else {
                    kernel.choose(&out).is_some_and(|page| self.balloon_in(kernel, page))
                }
            }
        }
    }

    fn churn_pte(&self, kernel: &mut Kernel) -> bool {
        if kernel.torn.iter().any(|torn| torn.by_churn) && kernel.rng.bool() {
            return self.mend(kernel, true);
        }
        let Some(page) = self.random_data(kernel) else { return false };
        if kernel.rng.bool() {
            // Where the kernel has its memory, a page is mapped or not, never another.
            let Some(at) = self.direct_pte_in(kernel.root, page) else { return false };
            return match kernel.rng.u8(..8) {
                0 if self.pte(at).is_present() => self.write_pte(kernel, at, PteChange::Clear),
                0 | 1 => self.write_pte(kernel, at, PteChange::Map(page)),
                2 => self.tear(kernel, at, true),
                _ => self.write_pte(kernel, at, PteChange::Touch),
            };
        }
        let tables = self.user_tables(kernel);
        let slot = kernel.rng.u64(..SLOTS);
        let Some(at) = kernel.choose(&tables).map(|table| PteAt::new(table, slot)) else { return false };
        match kernel.rng.u8(..4) {
            0 => self.write_pte(kernel, at, PteChange::Clear),
            1 => self.tear(kernel, at, true),
            2 if self.pte(at).is_present() => self.write_pte(kernel, at, PteChange::Touch),
            _ => self.write_pte(kernel, at, PteChange::Map(page)),
        }
    }

    fn random_data(&self, kernel: &mut Kernel) -> Option<Pfn> {
        let end = self.pv.end().max(1);
        (0..TRIES).map(|_| Pfn(kernel.rng.u64(..end))).find(|page| self.is_plain(*page))
    }

    /// Returns the L1 tables of the user's addresses.
    fn user_tables(&self, kernel: &Kernel) -> Vec<Pfn> {
        let entries = (0..SLOTS).map(|slot| Pte(self.load(kernel.user_table, slot)));
        entries.filter_map(|pte| self.page_behind(pte)).collect()
    }
}

/// The steps of a [`Churn`] as they fall due.
#[derive(Debug)]
pub(crate) struct ChurnPace {
    rates: [f64; KINDS.len()],
    due: [f64; KINDS.len()],
}

impl ChurnPace {
    /// Begins with nothing due.
    pub(crate) fn new(churn: Churn) -> Self {
        let rates = [churn.ptes_per_s, churn.tables_per_s, churn.balloons_per_s];
        Self { rates, due: [0.0; KINDS.len()] }
    }

    /// Does the steps that fall due in this time, at most [`LAG`], until `quit` says so or the domain stops running.
    pub(crate) fn run_for(
        &mut self,
        guest: &Guest,
        life: &Mutex<Life>,
        time: Duration,
        quit: impl Fn() -> bool,
    ) {
        for ((kind, rate), due) in KINDS.into_iter().zip(self.rates).zip(&mut self.due) {
            *due = (*due + rate * time.as_secs_f64()).min((rate * LAG.as_secs_f64()).max(1.0));
            while *due >= 1.0 && !quit() {
                *due -= 1.0;
                let life = lock(life);
                if life.state() != DomainState::Running {
                    break;
                }
                let _possible =
                    guest.pv().is_some_and(|pv| pv.step(|pv, kernel| pv.churn_once(kernel, kind)));
                drop(life);
            }
        }
    }

    /// Returns how long to sleep before the next step falls due.
    pub(crate) fn idle_time(&self) -> Duration {
        let mut sleep = LONGEST_SLEEP;
        for (rate, due) in self.rates.into_iter().zip(self.due).filter(|(rate, _)| *rate > 0.0) {
            let next_s = ((1.0 - due) / rate).clamp(0.0, LONGEST_SLEEP.as_secs_f64());
            sleep = sleep.min(Duration::from_secs_f64(next_s));
        }
        sleep.max(SLICE)
    }
}
