// SPDX-License-Identifier: GPL-3.0-or-later
//! The one rule for what is tried again: a call that says that it may succeed later, for about a second.

use std::time::Duration;

use crate::{Clock, HypervisorError};

/// A call that the hypervisor is too busy for is made again this many times,
pub const BUSY_RETRIES: u32 = 1000;
/// this far apart.
pub const BUSY_WAIT: Duration = Duration::from_millis(1);

/// An error that may be one of a moment.
pub trait Transient {
    /// Says whether the call may succeed when it is made again.
    fn is_transient(&self) -> bool;
}

impl Transient for HypervisorError {
    fn is_transient(&self) -> bool {
        Self::is_transient(self)
    }
}

/// Makes a call again while the hypervisor is busy, without anyone to interrupt that: suspending and resuming a guest, and
/// what is undone after a failure.
///
/// # Errors
///
/// The last error of the call.
pub fn retry_while_busy<T, E: Transient>(
    clock: &dyn Clock,
    mut call: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let mut tries = 0;
    loop {
        match call() {
            Err(error) if error.is_transient() && tries < BUSY_RETRIES => tries += 1,
            result => return result,
        }
        clock.sleep_until(clock.now() + BUSY_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use xenmig_types::Domid;

    use super::*;
    use crate::ManualClock;

    #[test]
    fn a_busy_call_is_made_again_for_a_second_and_any_other_error_ends_it() {
        let domid = Domid::new(1).unwrap();
        for (errno, calls) in [(libc::EBUSY, BUSY_RETRIES + 1), (libc::EPERM, 1)] {
            let clock = ManualClock::default();
            let mut made = 0;
            let result: Result<(), _> = retry_while_busy(&clock, || {
                made += 1;
                Err(HypervisorError::call("resume", domid, errno))
            });
            assert_eq!((made, result.unwrap_err().errno().map(|errno| errno.0)), (calls, Some(errno)));
            assert_eq!(clock.now().since(crate::Moment::default()), (calls - 1) * BUSY_WAIT);
        }
    }
}
