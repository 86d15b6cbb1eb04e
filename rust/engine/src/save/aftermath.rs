// SPDX-License-Identifier: GPL-3.0-or-later
//! After a save that failed: what the guest is doing, and who lets it go on.

use xenmig_hypervisor::retry_while_busy;
use xenmig_types::DomainState;

use super::save_caller::Caller;
use super::save_error::GuestState;
use crate::guest::save_ops::Domain;

/// What has to be known when a save fails.
#[derive(Debug, Default)]
pub(crate) struct Aftermath {
    /// The guest ran when the caller was asked to suspend it. Only then is it resumed.
    pub(crate) suspending: bool,
    /// What went wrong besides.
    pub(crate) warnings: Vec<String>,
}

impl Aftermath {
    /// Finds out what the guest is doing, and has it resumed if it was suspended for this save.
    pub(crate) fn settle(&mut self, domain: Domain<'_>, caller: &mut dyn Caller) -> GuestState {
        let Domain { host, domid } = domain;
        let state = match retry_while_busy(host.clock(), || host.domain_info(domid)) {
            Ok(info) => info.state,
            Err(error) if error.is_gone() => {
                self.warnings.push("the domain is gone".to_owned());
                return GuestState::Unknown;
            }
            Err(error) => {
                self.warnings.push(format!("it is not known what the guest is doing: {error}"));
                return GuestState::Unknown;
            }
        };
        match state {
            DomainState::Running | DomainState::Paused => GuestState::Running,
            state if !state.is_suspended() => {
                self.warnings.push(format!("the guest is gone: {state:?}"));
                GuestState::Unknown
            }
            _ if !self.suspending => GuestState::Suspended,
            _ => self.resume(domain, caller),
        }
    }

    /// Has the guest resumed, and makes sure that it is.
    fn resume(&mut self, domain: Domain<'_>, caller: &mut dyn Caller) -> GuestState {
        let Domain { host, domid } = domain;
        match caller.resume() {
            Ok(false) => return GuestState::Suspended,
            Ok(true) => {}
            Err(error) => self.warnings.push(format!("the guest could not be resumed: {error}")),
        }
        match retry_while_busy(host.clock(), || host.domain_info(domid)) {
            Ok(info) if info.state.is_suspended() => {
                if self.warnings.is_empty() {
                    self.warnings
                        .push("the resume callback returned, but the guest is still suspended".to_owned());
                }
                GuestState::Suspended
            }
            Ok(_) => GuestState::Resumed,
            Err(error) => {
                self.warnings.push(format!("it is not known what the guest is doing: {error}"));
                GuestState::Unknown
            }
        }
    }
}
