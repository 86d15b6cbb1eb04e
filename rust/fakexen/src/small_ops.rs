// SPDX-License-Identifier: GPL-3.0-or-later
//! Hypercalls with one or two subcommands: `xen_version`, `hvm_op`, `sched_op`.

use xenmig_hypervisor::Hypervisor;
use xenmig_types::DomainState;

use crate::{
    caller_memory::Memory,
    failure::{Failure, verb},
    host,
    kinds::Kind,
    layout::{HvmParam, RemoteShutdown},
    tally::unknown,
    tally::{self, Answer, Scope},
};

/// `XENVER_version`, `XENVER_extraversion`, `XENVER_pagesize`.
const VERSION: u64 = 0;
const EXTRA_VERSION: u64 = 1;
const PAGE_SIZE: u64 = 7;
/// `xen_extraversion_t`.
const EXTRA_VERSION_TEXT: &[u8; 16] = b".0-fakexen\0\0\0\0\0\0";
/// `HVMOP_set_param`, `HVMOP_get_param`.
const SET_PARAM: u64 = 0;
const GET_PARAM: u64 = 1;
/// `SCHEDOP_remote_shutdown`.
const REMOTE_SHUTDOWN: u64 = 4;

/// `xen_version`.
pub(crate) fn xen_version(command: u64, arg: u64) -> Answer {
    match command {
        VERSION => tally::call(Kind::XenVersion, Scope::Host, || {
            let version = verb(host::sim().version())?;
            Ok(i64::from(version.major) << 16 | i64::from(version.minor))
        }),
        EXTRA_VERSION => tally::call(Kind::XenVersion, Scope::Host, || {
            Memory::Hypercall.write_bytes(arg, EXTRA_VERSION_TEXT).map(|()| 0)
        }),
        PAGE_SIZE => tally::call(Kind::XenVersion, Scope::Host, || Ok(xenmig_types::PAGE_SIZE as i64)),
        other => unknown("xen_version", other),
    }
}

/// `hvm_op`: one HVM parameter is read or set.
pub(crate) fn hvm_op(command: u64, arg: u64) -> Answer {
    let kind = match command {
        SET_PARAM => Kind::SetParam,
        GET_PARAM => Kind::GetParam,
        other => return unknown("hvm_op", other),
    };
    let mut param: HvmParam = Memory::Hypercall.read(arg)?;
    let domain = host::domain(param.domid);
    let scope = host::scope(domain.as_deref());
    tally::call(kind, scope, || {
        let domid = domain.as_deref().ok_or(libc::ESRCH)?.domid;
        if command == SET_PARAM {
            verb(host::sim().set_hvm_param(domid, param.index, param.value))?;
        } else {
            param.value = verb(host::sim().hvm_param(domid, param.index))?;
            Memory::Hypercall.write(arg, &param)?;
        }
        Ok(0)
    })
}

/// `sched_op`: a domain is shut down from outside. With the reason *suspend* that is a suspension; for anything else
/// the simulation has no state.
pub(crate) fn sched_op(command: u64, arg: u64) -> Answer {
    if command != REMOTE_SHUTDOWN {
        return unknown("sched_op", command);
    }
    let shutdown: RemoteShutdown = Memory::Hypercall.read(arg)?;
    let domain = host::domain(shutdown.domain_id);
    let scope = host::scope(domain.as_deref());
    tally::call(Kind::RemoteShutdown, scope, || {
        let domain = domain.as_deref().ok_or(libc::ESRCH)?;
        match domain.sim.state() {
            DomainState::Shutdown { .. } => Ok(0),
            _ if shutdown.reason == u32::from(DomainState::SHUTDOWN_SUSPEND) => {
                domain.sim.suspend().map_err(|error| Failure::from(error).errno)?;
                Ok(0)
            }
            _ => Err(libc::EOPNOTSUPP),
        }
    })
}
