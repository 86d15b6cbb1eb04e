// SPDX-License-Identifier: GPL-3.0-or-later
//! The guest and its toolstack fail: it cannot be suspended, says it is suspended and is not, crashes, goes away. A
//! failure always says what the guest is doing, and that is what it is doing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::single_range_in_vec_init,
    reason = "a test that meets the unexpected panics"
)]

mod support;

use std::{sync::Arc, time::Duration};

use support::{
    Mine, Saved,
    account::{failed_cleanly, nothing_left, nothing_lost},
    domains::{Shape, libc_errno::*, writes},
    save_to_file,
    tap::{Story, Tap},
    toolstack::{Asked, Resumes, Suspends, Toolstack},
};
use xenmig_engine::{
    Caller, CallerError, Decision, Event, GuestState, Interrupt, Phase, Policy, PrecopyStats, SaveError,
    SaveOptions, Stage, Verdict,
};
use xenmig_hypervisor::{Errno, Hypervisor, Sink};
use xenmig_sim::{Action, Fault, Script, SimDomain, SimHost, Verb, When};
use xenmig_types::{DomainInfo, DomainState, Pfn};

fn domain(host: &SimHost) -> Arc<SimDomain> {
    Shape::plain(100).build(host, writes([(When::BeforeClean(0), (0..60).collect())]))
}

fn options(live: bool) -> SaveOptions {
    SaveOptions { live, min_round: Duration::ZERO, ..SaveOptions::default() }
}

fn save(host: &dyn Hypervisor, domain: &SimDomain, live: bool, toolstack: &mut Toolstack<'_>) -> Saved {
    save_to_file(host, domain, &options(live), None, toolstack)
}

/// Every way in which a suspension goes wrong, and every way in which the guest is brought back after it.
#[test]
fn a_suspension_that_goes_wrong() {
    for live in [true, false] {
        for suspends in [Suspends::Refuses, Suspends::Pretends, Suspends::WorksThenFails] {
            for resumes in [Resumes::Works, Resumes::Cannot, Resumes::Fails] {
                let host = SimHost::new();
                let domain = domain(&host);
                let mut toolstack = Toolstack { suspends, resumes, ..Toolstack::new(&domain) };
                let saved = save(&host, &domain, live, &mut toolstack);
                let failure = saved.failure();
                failed_cleanly(&domain, &saved);
                match &failure.error {
                    SaveError::NotSuspended { domid, state } => {
                        assert_eq!(suspends, Suspends::Pretends);
                        assert_eq!((*domid, *state), (domain.domid(), DomainState::Running));
                    }
                    SaveError::Suspend(error) => {
                        assert_ne!(suspends, Suspends::Pretends);
                        assert_eq!(error.downcast_ref(), Some(&Mine("suspend")));
                    }
                    other => panic!("{other}"),
                }
                let want = match (suspends, resumes) {
                    (Suspends::Refuses | Suspends::Pretends, _) => GuestState::Running,
                    (_, Resumes::Works) => GuestState::Resumed,
                    (_, Resumes::Cannot) => GuestState::Suspended,
                    (_, Resumes::Fails) => GuestState::Suspended,
                };
                assert_eq!(failure.guest, want);
                assert_eq!(toolstack.asked.contains(&Asked::Resume), suspends == Suspends::WorksThenFails);
                let resume_failed = suspends == Suspends::WorksThenFails && resumes == Resumes::Fails;
                assert_eq!(failure.warnings.len(), usize::from(resume_failed));
                assert!(
                    failure.warnings.iter().all(|warning| warning.contains("the test's own error: resume"))
                );
                if domain.state().is_suspended() {
                    domain.resume().unwrap();
                }
                let saved = save(&host, &domain, live, &mut Toolstack::new(&domain));
                nothing_lost(&host, &domain, &saved);
            }
        }
    }
}

/// Fails when it hears that the stream is complete.
#[derive(Debug)]
struct LateFailure<'a>(Toolstack<'a>);

impl Interrupt for LateFailure<'_> {}

impl Caller for LateFailure<'_> {
    fn suspend(&mut self) -> Result<(), CallerError> {
        self.0.suspend()
    }

    fn resume(&mut self) -> Result<bool, CallerError> {
        self.0.resume()
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), CallerError> {
        let complete = matches!(event, Event::Stage { stage: Stage::Complete, .. });
        if complete { Err(Mine("observer").into()) } else { Ok(()) }
    }
}

/// A receiver may have started the guest: this side must not let it go on as well.
#[test]
fn an_observer_that_fails_after_end_does_not_bring_the_guest_back() {
    for live in [true, false] {
        let host = SimHost::new();
        let domain = domain(&host);
        let mut caller = LateFailure(Toolstack::new(&domain));
        let mut file = tempfile::tempfile().unwrap();
        let mut sink = Sink::new(std::os::fd::AsRawFd::as_raw_fd(&file)).unwrap();
        let result = xenmig_engine::save(&host, domain.domid(), &mut sink, &options(live), None, &mut caller);
        let report = result.unwrap();
        assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
        assert!(report.warnings[0].contains("the test's own error: observer"), "{:?}", report.warnings);
        assert!(domain.state().is_suspended() && !caller.0.asked.contains(&Asked::Resume));
        let mut bytes = Vec::new();
        std::io::Seek::rewind(&mut file).unwrap();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        assert!(support::stream::Stream::decode(&bytes).unwrap().ended);
    }
}

/// The hypervisor does not even say what the guest is doing.
#[test]
fn a_host_that_does_not_answer() {
    let host = SimHost::new();
    let domain = domain(&host);
    // It says that the guest is suspended, and then nothing more.
    let breaks =
        [(Verb::TscInfo, 0), (Verb::DomainInfo, 1)].map(|(verb, nth)| Fault::Errno { verb, nth, errno: EIO });
    let mut toolstack = Toolstack { breaks: breaks.to_vec(), ..Toolstack::new(&domain) };
    let saved = save(&host, &domain, true, &mut toolstack);
    assert_eq!(saved.failure().guest, GuestState::Unknown);
    failed_cleanly(&domain, &saved);
    assert!(!toolstack.asked.contains(&Asked::Resume), "what is unknown is not resumed");
}

#[test]
fn a_domain_that_is_not_there() {
    let host = SimHost::new();
    let domain = domain(&host);
    host.destroy(domain.domid()).unwrap();
    let mut toolstack = Toolstack::new(&domain);
    let saved = save(&host, &domain, true, &mut toolstack);
    let SaveError::Hypervisor(error) = &saved.failure().error else { panic!("{}", saved.failure()) };
    assert_eq!(error.errno(), Some(Errno(3)), "ESRCH");
    assert_eq!(saved.failure().guest, GuestState::Unknown);
    assert_eq!((saved.written, toolstack.asked.len()), (0, 0));
}

/// Destroys the domain when it is asked.
#[derive(Debug)]
struct Destroyer<'a> {
    host: &'a SimHost,
    domain: &'a SimDomain,
}

impl Policy for Destroyer<'_> {
    fn decide(&mut self, stats: &PrecopyStats) -> Result<Verdict, CallerError> {
        if stats.phase == Phase::AfterRound {
            self.host.destroy(self.domain.domid()).unwrap();
        }
        Ok(Decision::Continue.into())
    }
}

/// There is nothing to switch off any more, and one sentence says why.
#[test]
fn a_domain_that_is_destroyed_in_mid_precopy() {
    let host = SimHost::new();
    let domain = domain(&host);
    let mut policy = Destroyer { host: &host, domain: &domain };
    let mut toolstack = Toolstack::new(&domain);
    let saved = save_to_file(&host, &domain, &options(true), Some(&mut policy), &mut toolstack);
    let failure = saved.failure();
    let SaveError::Hypervisor(error) = &failure.error else { panic!("{failure}") };
    assert!(error.is_gone(), "{error}");
    assert_eq!(failure.guest, GuestState::Unknown);
    assert_eq!(failure.warnings, ["the domain is gone"]);
    assert!(!toolstack.asked.contains(&Asked::Resume));
}

/// Saves a domain about which another story is told.
fn save_with_story(story: Story, live: bool) -> (Saved, Vec<Asked>, Vec<&'static str>) {
    let host = SimHost::new();
    let domain = domain(&host);
    let tap = Tap::with_story(&host, story);
    let mut toolstack = Toolstack::new(&domain);
    let saved = save(&tap, &domain, live, &mut toolstack);
    (saved, toolstack.asked, tap.verbs())
}

/// What cannot be saved is refused before anything is touched.
#[test]
fn what_cannot_be_saved_is_refused() {
    let stories: [fn(DomainInfo) -> DomainInfo; 3] = [
        |info| DomainInfo { state: DomainState::Dying, ..info },
        |info| DomainInfo { state: DomainState::Shutdown { reason: 0 }, ..info },
        |info| DomainInfo { state: DomainState::Shutdown { reason: 3 }, ..info },
    ];
    for story in stories {
        for live in [true, false] {
            let (saved, asked, verbs) = save_with_story(Box::new(move |_, info| story(info)), live);
            assert!(matches!(saved.failure().error, SaveError::Refused { .. }), "{}", saved.failure());
            assert_eq!((saved.written, asked.len()), (0, 0));
            assert!(verbs.iter().all(|verb| *verb == "info"), "{verbs:?}");
        }
    }
    let host = SimHost::new();
    let domain = domain(&host);
    let verify = SaveOptions { verify: true, ..options(false) };
    let saved = save_to_file(&host, &domain, &verify, None, &mut Toolstack::new(&domain));
    assert!(matches!(saved.failure().error, SaveError::Refused { .. }), "verify needs a live save");
}

/// A guest that crashes or is destroyed instead of suspending is not running.
#[test]
fn a_guest_that_is_gone_is_not_called_running() {
    for state in
        [DomainState::Shutdown { reason: 3 }, DomainState::Shutdown { reason: 0 }, DomainState::Dying]
    {
        // The first answer is the one at the start.
        let story = move |number, info| if number == 0 { info } else { DomainInfo { state, ..info } };
        let (saved, ..) = save_with_story(Box::new(story), true);
        let failure = saved.failure();
        assert!(matches!(failure.error, SaveError::NotSuspended { state: found, .. } if found == state));
        assert_ne!(failure.guest, GuestState::Running, "{state:?}");
    }
}

/// The same when it is refused at once.
#[test]
fn a_guest_that_was_gone_before_is_not_called_running() {
    for state in [DomainState::Shutdown { reason: 3 }, DomainState::Dying] {
        let (saved, ..) = save_with_story(Box::new(move |_, info| DomainInfo { state, ..info }), true);
        assert_ne!(saved.failure().guest, GuestState::Running, "{state:?}");
    }
}

/// A toolstack that finds its guest suspended, and leaves it so.
#[test]
fn a_guest_that_was_suspended_by_somebody_else_stays_suspended() {
    let host = SimHost::new();
    let domain = domain(&host);
    domain.suspend().unwrap();
    domain.inject(Fault::Errno { verb: Verb::TscInfo, nth: 0, errno: EIO });
    let mut toolstack = Toolstack { suspends: Suspends::Pretends, ..Toolstack::new(&domain) };
    let saved = save(&host, &domain, false, &mut toolstack);
    assert_eq!(saved.failure().guest, GuestState::Suspended);
    assert!(domain.state().is_suspended(), "it was not suspended for this save");
    assert!(!toolstack.asked.contains(&Asked::Resume));

    domain.clear_faults();
    let mut toolstack = Toolstack { suspends: Suspends::Pretends, ..Toolstack::new(&domain) };
    let saved = save(&host, &domain, true, &mut toolstack);
    saved.report();
    nothing_lost(&host, &domain, &saved);
}

/// A page that comes to be behind the end of the p2m while the save is under way is not lost without a word.
#[test]
fn a_p2m_that_grows_is_noticed() {
    for (live, when) in [(true, When::BeforeClean(0)), (true, When::AtSuspend), (false, When::AtSuspend)] {
        let host = SimHost::new();
        let script = Script::new()
            .with(when, Action::BalloonOut(Pfn(3)))
            .with(when, Action::BalloonIn(Pfn(150)))
            .with(when, Action::Write(Pfn(150)));
        let domain = Shape::plain(100).build(&host, script);
        let saved = save(&Tap::new(&host), &domain, live, &mut Toolstack::new(&domain));
        assert!(domain.is_populated(Pfn(150)) || saved.result.is_err());
        match &saved.result {
            Ok(_) => nothing_lost(&host, &domain, &saved),
            Err(_) => failed_cleanly(&domain, &saved),
        }
    }
}

#[test]
fn a_device_model_that_refuses() {
    for refuses in [true, false] {
        let host = SimHost::new();
        let domain = domain(&host);
        let mut toolstack = Toolstack { device_model_refuses: Some(refuses), ..Toolstack::new(&domain) };
        let saved = save(&host, &domain, true, &mut toolstack);
        if refuses {
            let SaveError::DeviceModel(error) = &saved.failure().error else { panic!("{}", saved.failure()) };
            assert_eq!(error.downcast_ref(), Some(&Mine("device model")));
            assert_eq!((saved.failure().guest, saved.written), (GuestState::Running, 0));
            failed_cleanly(&domain, &saved);
        } else {
            // It is on for ever, but everything was sent.
            assert!(saved.report().warnings[0].contains("device model"), "{:?}", saved.report().warnings);
            nothing_lost(&host, &domain, &saved);
            nothing_left(&domain, false);
        }
    }
}

/// What is done in which order: the guest is not suspended before the policy is done, nothing is sent of it before
/// the final CLEAN, its state is fetched last, and log-dirty is off before anybody resumes it.
#[test]
fn the_order_of_things() {
    let host = SimHost::new();
    let domain = domain(&host);
    let tap = Tap::new(&host);
    let mut toolstack = Toolstack::new(&domain);
    save(&tap, &domain, true, &mut toolstack).report();
    let mut verbs = tap.verbs();
    verbs.dedup();
    let from = verbs.iter().position(|verb| *verb == "enable").unwrap();
    assert!(
        verbs[..from].iter().all(|verb| ["info", "nr_gpfns", "bitmap", "version", "policy"].contains(verb))
    );
    // 60 pages are dirty in the second round, then none: libxc's rule stops in front of the third.
    let live = ["enable", "types", "map", "clean", "types", "map", "clean"];
    // The last look is whether the guest has stayed suspended.
    let last = ["info", "nr_gpfns", "clean final", "tsc", "context", "param", "info", "off"];
    assert_eq!(verbs[from..], [&live[..], &last].concat());
    assert_eq!(domain.state(), DomainState::Shutdown { reason: DomainState::SHUTDOWN_SUSPEND });
}
