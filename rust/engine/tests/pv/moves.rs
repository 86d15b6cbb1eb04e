// SPDX-License-Identifier: GPL-3.0-or-later
//! A guest that does not hold still: entries of page tables, page tables themselves, the balloon.

use proptest::{collection::vec, prelude::*, sample::select};
use xenmig_engine::{ConsultMode, Decision, SaveOptions};
use xenmig_sim::{Action, DomainConfig, PteChange, PvMap, Script, SimDomain, SimHost, When, Workload};
use xenmig_types::{PageType, Pfn, pv::GuestWidth};

use crate::{
    guests::{FORMS, WIDTHS, assert_same_guest, guest, odd, options, plain, pte, restored, saved},
    support::{account::nothing_left, cases, policies::Recorder, save_to_file, toolstack::Toolstack},
};

/// Makes a guest, and a script from what it looks like.
fn scripted(
    host: &SimHost,
    config: &DomainConfig,
    script: impl FnOnce(&SimDomain, &PvMap) -> Script,
) -> std::sync::Arc<SimDomain> {
    let domain = guest(host, config, Script::new());
    let map = domain.pv_map().unwrap();
    let script = script(&domain, &map);
    domain.set_workload(Workload::Scripted(script)).unwrap();
    domain
}

/// What a stream says of a pfn, word by word.
fn story(saved: &crate::support::Saved, pfn: Pfn) -> Vec<PageType> {
    let stream = saved.stream();
    let words = stream.batches().flat_map(|item| &item.words);
    words.filter(|word| word.pfn == pfn.0).map(|word| word.kind).collect()
}

#[test]
fn a_page_table_in_mid_update_is_a_hole_now_and_sent_in_the_end() {
    for (width, odd) in WIDTHS.into_iter().flat_map(|width| [(width, false), (width, true)]) {
        let config = plain(width, FORMS[0], 512);
        let host = SimHost::new();
        let _neighbour = host.create(config.clone()).unwrap();
        let mut table = Pfn(0);
        let domain = scripted(&host, &config, |domain, _| {
            let at = pte(domain, odd);
            table = at.table;
            // The tearing is a write, so it is in the first CLEAN as well; libxc's loop sends that round, too.
            Script::new()
                .with(When::BeforeTypes(0), Action::TearPte(at))
                .with(When::AtSuspend, Action::MendPtes)
        });
        let mut saved = saved(&host, &domain, true);
        assert_eq!(story(&saved, table), [PageType::Xtab, PageType::Xtab, PageType::L1]);
        // The other one maps the shared info page, which is Xen's.
        assert_eq!(saved.report().pages_deferred, 2);
        let (_host, copy, report) = restored(&config, &mut saved);
        assert_eq!(report.pages_depopulated, 0);
        assert_same_guest(&domain, &copy);
    }
}

/// It has been sent before, so the receiver has a page there, and other page tables lead to it.
#[test]
fn a_page_table_that_was_sent_before_keeps_its_frame_at_the_receiver() {
    let config = plain(GuestWidth::Bits64, FORMS[0], 512);
    let host = SimHost::new();
    let mut table = Pfn(0);
    let domain = scripted(&host, &config, |domain, map| {
        let at = domain.pte_of(map.data[9]).unwrap();
        table = at.table;
        let busy = map.data.iter().take(60).map(|page| (When::BeforeClean(0), Action::Write(*page)));
        busy.chain([(When::BeforeClean(0), Action::TearPte(at)), (When::AtSuspend, Action::MendPtes)])
            .collect()
    });
    let mut saved = saved(&host, &domain, true);
    assert_eq!(story(&saved, table), [PageType::L1, PageType::Xtab, PageType::L1]);
    let (_host, copy, _) = restored(&config, &mut saved);
    assert_same_guest(&domain, &copy);
}

#[test]
fn a_page_that_becomes_a_page_table_is_sent_as_one() {
    for width in WIDTHS {
        let config = plain(width, FORMS[2], 512);
        let host = SimHost::new();
        let mut page = Pfn(0);
        let domain = scripted(&host, &config, |_, map| {
            page = map.data[20];
            let busy =
                map.data.iter().skip(30).take(60).map(|page| (When::BeforeClean(0), Action::Write(*page)));
            busy.chain([(When::BeforeClean(0), Action::MakeTable(page))]).collect()
        });
        let mut saved = saved(&host, &domain, true);
        assert_eq!(story(&saved, page), [PageType::Notab, PageType::L1Pinned]);
        let (_host, copy, _) = restored(&config, &mut saved);
        assert_same_guest(&domain, &copy);
    }
}

/// Nothing logs that a pfn gets a frame, so those without one are looked at again in the end.
#[test]
fn a_page_that_the_balloon_brings_is_not_lost() {
    for width in WIDTHS {
        for form in FORMS {
            let config = odd(width, form);
            let host = SimHost::new();
            let domain = scripted(&host, &config, |_, map| {
                Script::new()
                    .with(When::BeforeClean(0), Action::BalloonOut(map.data[40]))
                    .with(When::BeforeTypes(0), Action::BalloonOut(map.data[41]))
                    .with(When::AtSuspend, Action::BalloonIn(map.data[41]))
                    .with(When::AtSuspend, Action::BalloonIn(Pfn(6)))
            });
            let mut saved = saved(&host, &domain, true);
            let (_host, copy, _) = restored(&config, &mut saved);
            assert!(copy.is_populated(Pfn(6)));
            assert_same_guest(&domain, &copy);
        }
    }
}

#[test]
fn a_page_that_the_balloon_takes_is_given_back_by_the_receiver() {
    let config = plain(GuestWidth::Bits64, FORMS[0], 512);
    let host = SimHost::new();
    let domain = scripted(&host, &config, |_, map| {
        Script::new().with(When::AtSuspend, Action::BalloonOut(map.data[40]))
    });
    let mut saved = saved(&host, &domain, true);
    let (_host, copy, report) = restored(&config, &mut saved);
    assert_eq!(report.pages_depopulated, 1);
    assert_eq!(copy.populated_pages(), domain.populated_pages());
    assert_same_guest(&domain, &copy);
}

/// What the kernel does, as a share of its data pages or page tables.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Write,
    Out,
    In,
    Map,
    Clear,
    Touch,
    Tear,
    Mend,
    MakeTable,
    UnmakeTable,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    when: When,
    deed: Deed,
    at: f64,
    other: f64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let when = prop_oneof![
        4 => (0_u64..5).prop_map(When::BeforeClean),
        4 => (0_u64..6).prop_map(When::BeforeTypes),
        2 => (0_u64..6).prop_map(When::BeforeMap),
        2 => (0_u64..6).prop_map(When::AfterMap),
        2 => Just(When::AtSuspend),
    ];
    let deed = select(vec![
        Deed::Write,
        Deed::Write,
        Deed::Out,
        Deed::In,
        Deed::Map,
        Deed::Clear,
        Deed::Touch,
        Deed::Tear,
        Deed::Mend,
        Deed::MakeTable,
        Deed::UnmakeTable,
    ]);
    let step = (when, deed, 0.0..1.0, 0.0..1.0);
    vec(step.prop_map(|(when, deed, at, other)| Step { when, deed, at, other }), 0..40)
}

/// Makes steps a script for this guest. In the end all entries are whole.
fn script(domain: &SimDomain, map: &PvMap, steps: &[Step]) -> Script {
    let pick = |share: f64| map.data[(share * map.data.len() as f64) as usize];
    let made: Vec<Pfn> =
        steps.iter().filter(|step| matches!(step.deed, Deed::MakeTable)).map(|step| pick(step.at)).collect();
    let mut script: Script = steps
        .iter()
        .filter_map(|step| {
            let page = pick(step.at);
            let pte = || domain.pte_of(page);
            let action = match step.deed {
                Deed::Write => Action::Write(page),
                Deed::Out => Action::BalloonOut(page),
                Deed::In => Action::BalloonIn(page),
                Deed::Map => Action::WritePte(pte()?, PteChange::Map(pick(step.other))),
                Deed::Clear => Action::WritePte(pte()?, PteChange::Clear),
                Deed::Touch => Action::WritePte(pte()?, PteChange::Touch),
                Deed::Tear => Action::TearPte(pte()?),
                Deed::Mend => Action::MendPtes,
                Deed::MakeTable => Action::MakeTable(page),
                Deed::UnmakeTable => {
                    Action::UnmakeTable(*made.get((step.other * made.len() as f64) as usize)?)
                }
            };
            Some((step.when, action))
        })
        .collect();
    script.push(When::AtSuspend, Action::MendPtes);
    script
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn what_wakes_up_is_what_fell_asleep(
        width in select(WIDTHS.to_vec()),
        form in select(FORMS.to_vec()),
        is_odd in any::<bool>(),
        steps in steps(),
        consult in select(vec![None, Some(ConsultMode::Round), Some(ConsultMode::Batch)]),
        skip_redirtied in any::<bool>(),
        stop_at in 0_usize..9,
    ) {
        let config = if is_odd { odd(width, form) } else { plain(width, form, 600) };
        let host = SimHost::new();
        let _neighbour = host.create(config.clone()).unwrap();
        let domain = scripted(&host, &config, |domain, map| script(domain, map, &steps));
        let skip_redirtied = skip_redirtied && consult == Some(ConsultMode::Batch);
        let options = SaveOptions {
            consult: consult.unwrap_or(ConsultMode::Round), skip_redirtied, ..options(true)
        };
        let mut policy = Recorder::new(|number, _| {
            if number >= stop_at { Decision::StopAndCopy } else { Decision::Continue }
        });
        let mut toolstack = Toolstack::new(&domain);
        let given = consult.is_some().then_some(&mut policy as _);
        let mut saved = save_to_file(&host, &domain, &options, given, &mut toolstack);
        saved.report();
        nothing_left(&domain, false);
        let (_host, copy, _) = restored(&config, &mut saved);
        prop_assert_eq!(copy.populated_pages(), domain.populated_pages());
        assert_same_guest(&domain, &copy);
    }
}
