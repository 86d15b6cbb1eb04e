// SPDX-License-Identifier: GPL-3.0-or-later
//! The checks that every save must pass: nothing is lost, the report adds up, nothing is left behind.

use std::time::Duration;

use xenmig_engine::{Decision, GuestState, Phase, RoundStats, SaveOptions};
use xenmig_hypervisor::Hypervisor;
use xenmig_sim::{SimDomain, SimHost};
use xenmig_stream::{HvmParam, Record};
use xenmig_types::{DomainState, PAGE_SIZE, PageType, Pfn};

use super::{
    Saved,
    stream::{Item, Last, Stream, outcome},
};

/// The parameters that libxc saves, in its order.
const PARAMS: [u32; 16] = [1, 5, 6, 27, 28, 29, 37, 17, 19, 9, 12, 34, 32, 33, 36, 38];

/// Checks that a receiver of this stream has the suspended domain: each page as it is, no page where there is none,
/// and its state.
pub(crate) fn nothing_lost(host: &SimHost, domain: &SimDomain, saved: &Saved) {
    let stream = saved.stream();
    assert!(stream.ended && stream.length == saved.bytes.len(), "no END, or something behind it");
    let (kept, compared) = stream.split();
    let p2m_size = host.nr_gpfns(domain.domid()).unwrap();
    assert_same_memory(domain, &saved.bytes, &outcome(kept), p2m_size);
    if !compared.is_empty() {
        let verified = outcome(compared);
        assert_same_memory(domain, &saved.bytes, &verified, p2m_size);
        let named: Vec<u64> = compared.iter().flat_map(|item| &item.words).map(|word| word.pfn).collect();
        assert!(named.iter().copied().eq(0..p2m_size), "a verify pass sends each pfn once, in order");
    }
    assert_same_state(host, domain, &stream);
}

fn assert_same_memory(domain: &SimDomain, bytes: &[u8], last: &[Last], p2m_size: u64) {
    assert!(last.len() as u64 <= p2m_size, "pfn {:#x} is beyond the p2m of {p2m_size:#x}", last.len() - 1);
    let mut page = [0; PAGE_SIZE];
    for pfn in 0..p2m_size {
        let heard = last.get(pfn as usize).copied().unwrap_or_default();
        if domain.is_populated(Pfn(pfn)) {
            let Last::Page(at) = heard else { panic!("pfn {pfn:#x} has a page, the stream says {heard:?}") };
            domain.read_page(Pfn(pfn), &mut page).unwrap();
            assert!(bytes[at..at + PAGE_SIZE] == page, "pfn {pfn:#x} was sent with other contents");
        } else {
            assert!(!matches!(heard, Last::Page(_)), "pfn {pfn:#x} is a hole, and was last sent as a page");
        }
    }
}

fn assert_same_state(host: &SimHost, domain: &SimDomain, stream: &Stream) {
    let domid = domain.domid();
    let records = |want: fn(&Record) -> bool| -> Vec<&Record> {
        stream.items.iter().map(|item| &item.record).filter(|record| want(record)).collect()
    };
    let policy = host.cpu_policy(domid).unwrap();
    let state = [
        Record::TscInfo(host.tsc_info(domid).unwrap()),
        Record::HvmContext(host.hvm_context(domid).unwrap()),
    ];
    let value = |index: u32| HvmParam { index, value: host.hvm_param(domid, index).unwrap() };
    let params: Vec<_> = PARAMS.into_iter().map(value).filter(|param| param.value != 0).collect();
    assert!(records(|record| matches!(record, Record::TscInfo(_))).into_iter().eq([&state[0]]));
    assert!(records(|record| matches!(record, Record::HvmContext(_))).into_iter().eq([&state[1]]));
    let sent = records(|record| matches!(record, Record::HvmParams(_)));
    assert!(sent.into_iter().eq(&(!params.is_empty()).then_some(Record::HvmParams(params))));
    let sent = records(|record| matches!(record, Record::CpuidPolicy(_)));
    assert!(sent.into_iter().eq(&(!policy.cpuid.is_empty()).then_some(Record::CpuidPolicy(policy.cpuid))));
    let sent = records(|record| matches!(record, Record::MsrPolicy(_)));
    assert!(sent.into_iter().eq(&(!policy.msrs.is_empty()).then_some(Record::MsrPolicy(policy.msrs))));
}

/// Checks that the report of a save says what is in the stream, and that its parts add up.
pub(crate) fn report_adds_up(domain: &SimDomain, saved: &Saved, options: &SaveOptions, consults: usize) {
    let report = saved.report();
    let stream = saved.stream();
    let of_passes = |count: fn(&RoundStats) -> u64| -> u64 { report.passes.iter().map(count).sum() };
    let data = |items: &[Item]| -> u64 {
        items.iter().flat_map(|item| &item.words).filter(|word| word.contents.is_some()).count() as u64
    };

    assert_eq!(report.bytes_sent, saved.bytes.len() as u64);
    assert_eq!(report.bytes_sent, saved.written);
    assert_eq!(report.consults, consults as u64);
    assert_eq!(report.warnings, Vec::<String>::new());
    assert_eq!(report.pages_sent, data(&stream.items));
    let page_bytes: usize = stream.batches().map(|item| 16 + item.words.len() * 8).sum();
    assert_eq!(of_passes(|pass| pass.bytes_sent), page_bytes as u64 + 4096 * report.pages_sent);

    assert_eq!(report.pages_claimed, of_passes(|pass| pass.pages_claimed));
    assert_eq!(report.pages_sent, of_passes(|pass| pass.pages_sent));
    assert_eq!(report.pages_skipped, of_passes(|pass| pass.pages_skipped));
    assert!(report.pages_deferred >= of_passes(|pass| pass.pages_deferred));
    for pass in &report.passes {
        assert!(pass.pages_claimed >= pass.pages_sent + pass.pages_skipped, "{pass:?}");
        assert!(pass.pages_claimed <= pass.dirty_count, "{pass:?}");
        match pass.phase {
            Phase::BeforeRound => assert!(pass.pages_claimed + report.pages_deferred >= pass.dirty_count),
            Phase::StopAndCopy | Phase::Verify => assert_eq!(pass.pages_claimed, pass.dirty_count),
            Phase::Batch | Phase::AfterRound | Phase::Waiting => panic!("no pass is called {:?}", pass.phase),
        }
    }
    let live = |pass: &&RoundStats| pass.phase == Phase::BeforeRound;
    assert_eq!(report.rounds as usize, report.passes.iter().filter(live).count());
    let ends: Vec<_> = report.passes.iter().skip(report.rounds as usize).map(|pass| pass.phase).collect();
    let want =
        if options.verify { vec![Phase::StopAndCopy, Phase::Verify] } else { vec![Phase::StopAndCopy] };
    assert_eq!(ends, want);
    let (_, compared) = stream.split();
    if options.verify {
        let verify = report.passes.last().unwrap();
        assert_eq!((verify.pages_claimed, verify.pages_sent), (report.p2m_size, domain.populated_pages()));
        assert_eq!(data(compared), domain.populated_pages());
    }

    let verdict = report.verdict.as_ref().map(|verdict| verdict.decision);
    assert_eq!(verdict, options.live.then_some(Decision::StopAndCopy));
    let downtime = &report.downtime;
    let parts: Duration = [downtime.suspend, downtime.clean, downtime.pages, downtime.state].iter().sum();
    assert!(parts <= downtime.total && downtime.total <= report.elapsed, "{report:?}");
    assert!(report.passes.iter().map(|pass| pass.elapsed).sum::<Duration>() <= report.elapsed);
}

/// Checks the shape of a whole stream: the records in libxc's order, batches of ascending pfns, each at most 1024.
pub(crate) fn well_formed(stream: &Stream, verify: bool) {
    let front = ["X86_CPUID_POLICY", "X86_MSR_POLICY", "STATIC_DATA_END", "PAGE_DATA"];
    let middle = if verify { &["VERIFY", "PAGE_DATA"][..] } else { &[] };
    let back = ["X86_TSC_INFO", "HVM_CONTEXT", "HVM_PARAMS"];
    let mut want = [&front, middle, &back].concat();
    let (kept, _) = stream.split();
    if kept.iter().all(|item| item.words.is_empty()) {
        // A domain without a page, saved without its holes.
        want.remove(front.len() - 1);
    }
    assert_eq!(stream.outline(), want);
    for item in stream.batches() {
        assert!(item.words.len() <= 1024);
        assert!(item.words.is_sorted_by(|a, b| a.pfn < b.pfn));
        assert!(item.words.iter().all(|word| matches!(word.kind, PageType::Notab | PageType::Xtab)));
    }
}

/// Checks that nothing of a save is left: no mapping, and log-dirty mode as it should be.
pub(crate) fn nothing_left(domain: &SimDomain, logdirty_on: bool) {
    let counters = domain.counters();
    assert_eq!((counters.mappings_now, counters.pages_mapped_now), (0, 0));
    assert_eq!(counters.maps, counters.unmaps);
    assert_eq!(counters.logdirty_on, logdirty_on, "log-dirty mode");
}

/// Checks a save that failed: nothing is left, no END was written, and the guest is as the failure says.
pub(crate) fn failed_cleanly(domain: &SimDomain, saved: &Saved) {
    let failure = saved.failure();
    nothing_left(domain, false);
    let stream = saved.stream();
    assert!(!stream.ended, "END after {failure}");
    let state = domain.state();
    match failure.guest {
        GuestState::Running | GuestState::Resumed => assert_eq!(state, DomainState::Running, "{failure}"),
        GuestState::Suspended => assert!(state.is_suspended(), "{failure}"),
        GuestState::Unknown => {}
    }
}
