// SPDX-License-Identifier: GPL-3.0-or-later
//! The events of a restore: its stages in order, and the report as their sum.

use std::time::Duration;

use xenmig_engine::{
    CallerError, Interrupt,
    restore::{MissingPolicies, RestoreCaller, RestoreError, RestoreEvent, RestoreOptions, RestoreStage},
};
use xenmig_stream::encode;
use xenmig_types::Gfn;

use super::build::{Stream, restore_with, target};

#[derive(Default)]
struct Observer {
    events: Vec<RestoreEvent>,
    fail_at: Option<&'static str>,
}

impl Interrupt for Observer {}

impl RestoreCaller for Observer {
    fn observe(&mut self, event: &RestoreEvent) -> Result<(), CallerError> {
        self.events.push(event.clone());
        match event {
            RestoreEvent::Stage(stage, _) if self.fail_at == Some(stage.name()) => Err("enough".into()),
            _ => Ok(()),
        }
    }

    fn static_data_done(&mut self, missing: MissingPolicies) -> Result<(), CallerError> {
        let seen = self.stages().last().copied();
        assert_eq!(seen, Some(RestoreStage::StaticData(missing)), "the observer hears of it first");
        Ok(())
    }
}

impl Observer {
    fn stages(&self) -> Vec<RestoreStage> {
        let stage = |event: &RestoreEvent| match event {
            RestoreEvent::Stage(stage, _) => Some(*stage),
            RestoreEvent::Progress(_) => None,
        };
        self.events.iter().filter_map(stage).collect()
    }
}

#[test]
fn stages_come_in_order_and_make_up_the_report() {
    let bytes = Stream::new()
        .batch(&[(1, xenmig_types::PageType::Xtab, 0)])
        .pages([2, 3])
        .pages([2])
        .with(encode::verify)
        .pages([2, 3])
        .params(&[(1, 2)])
        .context()
        .end();
    let (host, domain) = target();
    let mut observer = Observer::default();
    let options = RestoreOptions { progress_interval: Duration::ZERO, ..RestoreOptions::default() };
    let report = restore_with(&host, &domain, &bytes, &options, &mut observer).unwrap();
    let missing = MissingPolicies { cpuid: true, msrs: true };
    assert_eq!(
        observer.stages(),
        [
            RestoreStage::Headers { stream_version: 3, xen_major: 4, xen_minor: 16 },
            RestoreStage::StaticData(missing),
            RestoreStage::Memory,
            RestoreStage::Verify,
            RestoreStage::End,
            RestoreStage::Complete { store_gfn: Some(Gfn(2)), console_gfn: None },
        ]
    );
    let progress: Vec<_> = observer.events.iter().map(RestoreEvent::progress).collect();
    assert!(progress.is_sorted_by_key(|p| (p.bytes_received, p.records, p.pages_received, p.elapsed)));
    let last = progress[progress.len() - 1];
    assert_eq!(
        (last.records, last.bytes_received, last.pages_received, last.pages_verified, last.elapsed),
        (report.records, report.bytes_received, report.pages_received, report.pages_verified, report.elapsed)
    );
    assert_eq!((report.pages_received, report.pages_verified, report.store_gfn), (5, 2, Some(Gfn(2))));
}

#[test]
fn an_observer_can_end_the_restore_at_each_stage() {
    for stage in ["headers", "static_data", "memory", "end", "complete"] {
        let (host, domain) = target();
        let mut observer = Observer { fail_at: Some(stage), ..Observer::default() };
        let options = RestoreOptions::default();
        let failure = restore_with(&host, &domain, &Stream::typical(), &options, &mut observer).unwrap_err();
        assert!(matches!(failure.error, RestoreError::Observer(_)), "{stage}: {failure}");
        assert_eq!(observer.stages().last().map(RestoreStage::name), Some(stage));
    }
}
