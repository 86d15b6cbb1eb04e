// SPDX-License-Identifier: GPL-3.0-or-later
//! `sysctl`: the host's CPU policies, and the list of domains.

use crate::{
    caller_memory::Memory,
    cpu_policy::{MAX_LEAVES, MAX_MSRS, Policy},
    domctl, host,
    kinds::Kind,
    layout::{
        DomainInfoList, GetDomainInfo, SYSCTL_UNION, SYSCTL_VERSION, SysctlHeader, SystemCpuPolicy, ctl,
    },
    tally::unknown,
    tally::{self, Answer, Scope},
};

/// Number of `XEN_SYSCTL_cpu_policy_*`: raw, host, and the most and the default for PV and HVM.
const POLICIES: u32 = 6;

/// Answers a sysctl.
pub(crate) fn sysctl(at: u64) -> Answer {
    let header: SysctlHeader = Memory::Hypercall.read(at)?;
    if header.interface_version != SYSCTL_VERSION {
        return Err(libc::EACCES);
    }
    let body = at.wrapping_add(SYSCTL_UNION);
    match header.cmd {
        ctl::SYSCTL_GET_CPU_POLICY => tally::call(Kind::SystemCpuPolicy, Scope::Host, || cpu_policy(body)),
        ctl::SYSCTL_GETDOMAININFOLIST => tally::call(Kind::GetDomainInfoList, Scope::Host, || list(body)),
        other => unknown("sysctl", other.into()),
    }
}

/// All six policies are the one of a usual domain.
fn cpu_policy(body: u64) -> Answer {
    let mut asked: SystemCpuPolicy = Memory::Hypercall.read(body)?;
    if asked.rsvd != 0 || asked.index >= POLICIES {
        return Err(libc::EINVAL);
    }
    let policy = Policy::usual();
    asked.nr_leaves = Memory::Hypercall.write_array(
        asked.leaves,
        asked.nr_leaves,
        MAX_LEAVES,
        &policy.leaves().collect::<Vec<_>>(),
    )?;
    asked.nr_msrs = Memory::Hypercall.write_array(asked.msrs, asked.nr_msrs, MAX_MSRS, &policy.msrs())?;
    Memory::Hypercall.write(body, &asked)?;
    Ok(0)
}

fn list(body: u64) -> Answer {
    let mut asked: DomainInfoList = Memory::Hypercall.read(body)?;
    let domids = host::domids().into_iter().filter(|domid| *domid >= asked.first_domain);
    let mut infos = Vec::new();
    for domain in domids.take(asked.max_domains as usize).filter_map(host::domain) {
        infos.push(domctl::info(&domain)?);
    }
    Memory::Hypercall.write_all::<GetDomainInfo>(asked.buffer, &infos)?;
    asked.num_domains = u32::try_from(infos.len()).unwrap_or(u32::MAX);
    Memory::Hypercall.write(body, &asked)?;
    Ok(0)
}
