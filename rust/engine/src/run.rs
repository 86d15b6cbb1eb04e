// SPDX-License-Identifier: GPL-3.0-or-later
//! A save under way: the domain, the stream, the people to ask, and the account of it all. The steps that every
//! phase needs are here; their order is in `save.rs` and `rounds.rs`.

use std::{
    fmt, io, thread,
    time::{Duration, Instant},
};

use xenmig_hypervisor::{CleanPass, DirtyBitmap, Hypervisor, HypervisorError, Piece, Sink};
use xenmig_types::{DomainInfo, Domid, Pfn};

use crate::{
    Caller, CallerError, Decision, Phase, Policy, SaveError, SaveOptions, Verdict,
    batch::{Batch, Of, Pass, Stopped},
    bitmap::{self, Cursor, Owed},
    guest::Guest,
    stats::{Ledger, Sent},
};

/// The caller is asked at least so often whether to go on.
const LISTEN_INTERVAL: Duration = Duration::from_millis(100);
/// So often a PEEK without a bitmap refreshes the dirty rate within a round.
const PEEK_INTERVAL: Duration = Duration::from_millis(50);
/// A CLEAN or PEEK that says EBUSY is made again so often, at this distance.
const BUSY_RETRIES: u32 = 1000;
const BUSY_WAIT: Duration = Duration::from_millis(1);

pub(crate) struct Run<'a> {
    pub(crate) host: &'a dyn Hypervisor,
    pub(crate) domid: Domid,
    pub(crate) guest: Guest,
    pub(crate) options: &'a SaveOptions,
    pub(crate) caller: &'a mut dyn Caller,
    pub(crate) ledger: Ledger,
    /// What the current round claims.
    pub(crate) bitmap: DirtyBitmap,
    /// What the final pass must send in any case.
    pub(crate) owed: Owed,
    pub(crate) batch: Batch,
    /// Nothing at or above this pfn was ever sent, so holes there need not be: a first round that was stopped midway.
    pub(crate) holes_below: Pfn,
    sink: &'a mut Sink,
    /// What the sink had written before this save.
    written_before: u64,
    policy: &'a mut dyn Policy,
    /// When the clock was last read. It is read twice a batch and no more: that is what a consult costs most.
    now: Instant,
    listened: Instant,
    told: Option<Instant>,
    peeked: Instant,
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("domid", &self.domid)
            .field("ledger", &self.ledger)
            .finish_non_exhaustive()
    }
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        host: &'a dyn Hypervisor,
        info: DomainInfo,
        sink: &'a mut Sink,
        options: &'a SaveOptions,
        policy: &'a mut dyn Policy,
        caller: &'a mut dyn Caller,
    ) -> Result<Self, SaveError> {
        let domid = info.domid;
        let guest = Guest::open(host, &info)?;
        let p2m_size = guest.p2m_size(host, domid)?;
        let bitmap = host.dirty_bitmap(domid, p2m_size)?;
        let owed = Owed::new(bitmap.words().len())?;
        let now = Instant::now();
        Ok(Self {
            host,
            domid,
            guest,
            options,
            caller,
            ledger: Ledger::new(p2m_size, info.total_pages),
            bitmap,
            owed,
            batch: Batch::new(),
            holes_below: Pfn(u64::MAX),
            written_before: sink.written(),
            sink,
            policy,
            now,
            listened: now,
            told: None,
            peeked: now,
        })
    }

    /// Asks the policy at a boundary of rounds.
    pub(crate) fn consult(&mut self, phase: Phase) -> Result<Verdict, SaveError> {
        self.now = Instant::now();
        self.ask(phase)
    }

    /// Asks the policy after a batch, which has just read the clock.
    pub(crate) fn consult_after_batch(&mut self) -> Result<Verdict, SaveError> {
        self.peek_count();
        self.ask(Phase::Batch)
    }

    /// Asks the policy, and turns an ABORT into the error that it is.
    fn ask(&mut self, phase: Phase) -> Result<Verdict, SaveError> {
        self.attend(phase)?;
        self.ledger.consults += 1;
        let verdict = self.policy.decide(self.ledger.at(phase, self.now)).map_err(SaveError::Policy)?;
        if verdict.decision == Decision::Abort {
            let stats = Box::new(self.ledger.now.clone());
            return Err(SaveError::PolicyAbort { stats, reason: verdict.reason });
        }
        Ok(verdict)
    }

    /// Sends the pages that are in `batch.pfns`, enters them into the account, and says whether anything was written.
    pub(crate) fn send_batch(&mut self, pass: Pass, skipped: u64) -> Result<bool, SaveError> {
        let began = Instant::now();
        let mut interrupt = None;
        let caller = &mut *self.caller;
        let keep_waiting = &mut |_| keep_waiting(caller, &mut interrupt);
        let of = Of { host: self.host, domid: self.domid, guest: &self.guest };
        let sent = self.batch.send(of, pass, &mut self.owed, self.sink, keep_waiting);
        let sent = sent.map_err(|stopped| match stopped {
            Stopped::Save(error) => error,
            Stopped::Sink(error) => self.torn(error, interrupt),
        })?;
        let sent = Sent { claimed: sent.claimed + skipped, skipped, ..sent };
        self.now = Instant::now();
        self.ledger.enter(&sent, self.now.duration_since(began));
        Ok(sent.bytes > 0)
    }

    /// Owes what the bitmap holds from the cursor on to the final pass.
    pub(crate) fn owe_rest(&mut self, cursor: Cursor) {
        self.ledger.defer(cursor.owe_rest(self.bitmap.words(), &mut self.owed));
    }

    /// Writes bytes that are no pages: headers and state records.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), SaveError> {
        let mut interrupt = None;
        let caller = &mut *self.caller;
        let written = self.sink.write(&[Piece::Bytes(bytes)], &mut |_| keep_waiting(caller, &mut interrupt));
        written.map_err(|error| self.torn(error, interrupt))?;
        self.ledger.now.bytes_sent += bytes.len() as u64;
        Ok(())
    }

    fn torn(&self, source: io::Error, interrupt: Option<CallerError>) -> SaveError {
        match interrupt {
            Some(error) => SaveError::Interrupted(error),
            None => SaveError::Transport { source, written: self.sink.written() - self.written_before },
        }
    }

    /// Fetches and clears the log-dirty bitmap, and returns how many pages it holds. The count is the bitmap's own:
    /// the hypercall's is 32 bits wide.
    pub(crate) fn clean(&mut self, pass: CleanPass) -> Result<u64, SaveError> {
        let mut tries = 0;
        loop {
            let at = Instant::now();
            match self.host.clean(self.domid, Some(&mut self.bitmap), pass) {
                Ok(_) => {
                    self.peeked = at;
                    let dirty = bitmap::count(self.bitmap.words());
                    self.ledger.cleaned(dirty, at);
                    return Ok(dirty);
                }
                Err(error) => self.wait_if_busy(error, &mut tries)?,
            }
        }
    }

    fn wait_if_busy(&mut self, error: HypervisorError, tries: &mut u32) -> Result<(), SaveError> {
        *tries += 1;
        if !error.is_transient() || *tries > BUSY_RETRIES {
            return Err(error.into());
        }
        self.wait(BUSY_WAIT)
    }

    /// Refreshes the count of pages that are dirty again, if the last one is old. Without a bitmap a PEEK costs next
    /// to nothing, but it does pause the guest, so it is paced. It is an estimate: an error leaves the old one.
    fn peek_count(&mut self) {
        if self.now.duration_since(self.peeked) >= PEEK_INTERVAL {
            if let Ok(counts) = self.host.peek(self.domid, None) {
                self.ledger.peeked(u64::from(counts.dirty_count));
            }
            self.peeked = self.now;
        }
    }

    /// Sleeps, but listens meanwhile.
    pub(crate) fn wait(&mut self, time: Duration) -> Result<(), SaveError> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LISTEN_INTERVAL));
            self.listen()?;
        }
    }

    /// Tells the caller how far the save is and asks it whether to go on, each if it is time.
    pub(crate) fn attend(&mut self, phase: Phase) -> Result<(), SaveError> {
        if self.now.duration_since(self.listened) >= LISTEN_INTERVAL {
            self.listen()?;
        }
        let interval = self.options.progress_interval;
        if self.told.is_none_or(|told| self.now.duration_since(told) >= interval) {
            self.told = Some(self.now);
            self.caller.progress(self.ledger.at(phase, self.now)).map_err(SaveError::Progress)?;
        }
        Ok(())
    }

    fn listen(&mut self) -> Result<(), SaveError> {
        self.listened = self.now;
        self.caller.interrupted().map_err(SaveError::Interrupted)
    }
}

/// Asks the caller whether a blocked write shall go on, and keeps its reason if not.
fn keep_waiting(caller: &mut dyn Caller, interrupt: &mut Option<CallerError>) -> bool {
    match caller.interrupted() {
        Ok(()) => true,
        Err(error) => {
            *interrupt = Some(error);
            false
        }
    }
}
