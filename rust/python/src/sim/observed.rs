// SPDX-License-Identifier: GPL-3.0-or-later
//! A simulated domain's state and counters under the names that Python knows them by.

use xenmig_sim::Counters;
use xenmig_types::DomainState;

use super::fault::VERBS;

/// Returns the name of a state.
pub(super) const fn state(state: DomainState) -> &'static str {
    match state {
        DomainState::Running => "running",
        DomainState::Paused => "paused",
        DomainState::Dying => "dying",
        state if state.is_suspended() => "suspended",
        DomainState::Shutdown { .. } => "shutdown",
    }
}

/// Returns every counter with its name; a verb's is how often it was called.
pub(super) fn named(counters: &Counters) -> Vec<(&'static str, u64)> {
    let calls = VERBS.iter().map(|(name, verb)| (*name, counters.calls(*verb)));
    let sums = [
        ("maps", counters.maps),
        ("unmaps", counters.unmaps),
        ("mappings_now", counters.mappings_now),
        ("mapped_pages", counters.pages_mapped),
        ("mapped_pages_now", counters.pages_mapped_now),
        ("populated_pages", counters.pages_populated),
        ("populated_superpages", counters.superpages_populated),
        ("logdirty_pause_ns", counters.logdirty_pause_ns),
        ("clean_ns", counters.clean_time_ns),
    ];
    calls.chain(sums).collect()
}
