// SPDX-License-Identifier: GPL-3.0-or-later
//! `XEN_DOMCTL_getdomaininfo`: what a domain is and what it is doing.

use std::sync::Arc;

use xenctrl_sys as sys;
use xenmig_hypervisor::Errno;
use xenmig_types::{DomainInfo, DomainState, Domid, GuestKind};

use crate::{
    call::CallHandle,
    domctl::{domctl, perform},
    error::CallResult,
};

/// Asks for a domain's state.
pub(super) fn domain_info(call: &Arc<CallHandle>, domid: Domid) -> CallResult<DomainInfo> {
    let mut query = domctl(sys::XEN_DOMCTL_getdomaininfo, domid);
    // SAFETY: it holds no guest handle.
    unsafe { perform(call, &mut query) }?;
    // SAFETY: the whole union is initialised, and any bytes are a valid getdomaininfo.
    let answer = unsafe { query.u.getdomaininfo };
    translate(domid, &answer).ok_or(Errno(libc::ESRCH))
}

/// Returns `None` if the answer is about another domain: until 4.17 Xen answers for the next domain that exists when
/// the one asked for does not.
fn translate(domid: Domid, answer: &sys::xen_domctl_getdomaininfo) -> Option<DomainInfo> {
    let flag = |flag| answer.flags & flag != 0;
    let reason = (answer.flags >> sys::XEN_DOMINF_shutdownshift) & sys::XEN_DOMINF_shutdownmask;
    let state = if flag(sys::XEN_DOMINF_dying) {
        DomainState::Dying
    } else if flag(sys::XEN_DOMINF_shutdown) {
        DomainState::Shutdown { reason: reason as u8 }
    } else if flag(sys::XEN_DOMINF_paused) {
        DomainState::Paused
    } else {
        DomainState::Running
    };
    (answer.domain == domid.get()).then_some(DomainInfo {
        domid,
        kind: if flag(sys::XEN_DOMINF_hvm_guest) { GuestKind::Hvm } else { GuestKind::Pv },
        state,
        total_pages: answer.tot_pages,
        max_pages: answer.max_pages,
        max_vcpu_id: answer.max_vcpu_id,
        shared_info_frame: answer.shared_info_frame,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(domain: u16, flags: u32) -> sys::xen_domctl_getdomaininfo {
        sys::xen_domctl_getdomaininfo {
            domain,
            flags,
            tot_pages: 1 << 33,
            max_pages: 1 << 34,
            max_vcpu_id: 3,
            shared_info_frame: 0x1234,
            ..Default::default()
        }
    }

    fn state(flags: u32) -> DomainState {
        translate(Domid::new(7).unwrap(), &answer(7, flags)).unwrap().state
    }

    #[test]
    fn an_answer_for_the_next_domain_is_none() {
        let domid = Domid::new(7).unwrap();
        assert_eq!(translate(domid, &answer(8, 0)), None);
        let info = translate(domid, &answer(7, 2)).unwrap();
        assert_eq!((info.domid, info.kind), (domid, GuestKind::Hvm));
        assert_eq!((info.total_pages, info.max_pages), (1 << 33, 1 << 34));
        assert_eq!((info.max_vcpu_id, info.shared_info_frame), (3, 0x1234));
    }

    #[test]
    fn flags_are_told_apart() {
        assert_eq!(state(0), DomainState::Running);
        assert_eq!(state(1 << 5), DomainState::Running);
        assert_eq!(state(1 << 3), DomainState::Paused);
        assert_eq!(state(1 << 2 | 1 << 3 | 2 << 16), DomainState::Shutdown { reason: 2 });
        assert_eq!(state(1 << 2 | 0xff << 16), DomainState::Shutdown { reason: 255 });
        assert_eq!(state(1 | 1 << 2 | 2 << 16), DomainState::Dying);
    }

    #[test]
    fn without_the_hvm_flag_it_is_pv() {
        let info = translate(Domid::new(7).unwrap(), &answer(7, 0x100)).unwrap();
        assert_eq!(info.kind, GuestKind::Pv);
    }
}
