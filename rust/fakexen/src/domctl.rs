// SPDX-License-Identifier: GPL-3.0-or-later
//! `domctl`: everything that is about one domain, but for its log-dirty mode (`shadow.rs`) and the state of a PV guest's
//! vCPUs (`vcpus.rs`).

use std::sync::Arc;

use xenmig_hypervisor::{Hypervisor, PvVerbs};
use xenmig_sim::{SimError, Verb};
use xenmig_types::{DomainState, Gfn, GuestKind, PageType, Pfn, TscInfo};

use crate::{
    caller_memory::Memory,
    cpu_policy::{MAX_LEAVES, MAX_MSRS, Policy, Refused},
    failure::{Failure, verb},
    host::{self, Domain},
    kinds::Kind,
    layout::{
        self, CpuidLeaf, DOMCTL_DOMAIN, DOMCTL_UNION, DOMCTL_VERSION, DomainCpuPolicy, DomctlHeader,
        GetDomainInfo, GetPageFrameInfo3, HvmContext, MAX_TYPES, MsrEntry, ctl, dominf,
    },
    shadow,
    tally::unknown,
    tally::{self, Answer},
    vcpus,
};

/// Where the page type is in what `getpageframeinfo3` returns.
const TYPE_SHIFT: u32 = 28;

/// Answers a domctl.
pub(crate) fn domctl(at: u64) -> Answer {
    let header: DomctlHeader = Memory::Hypercall.read(at)?;
    if header.interface_version != DOMCTL_VERSION {
        return Err(libc::EACCES);
    }
    if header.cmd == ctl::GETDOMAININFO {
        return get_domain_info(at, header.domain);
    }
    let domain: &Domain = &*host::domain(header.domain).ok_or(libc::ESRCH)?;
    let body = at.wrapping_add(DOMCTL_UNION);
    let call =
        |kind, answer: fn(&Domain, u64) -> Answer| tally::call(kind, domain.scope(), || answer(domain, body));
    match header.cmd {
        ctl::SHADOW_OP => shadow::shadow_op(domain, body),
        ctl::GETPAGEFRAMEINFO3 => call(Kind::GetPageFrameInfo3, page_types),
        ctl::GET_ADDRESS_SIZE => call(Kind::GetAddressSize, get_address_size),
        ctl::SET_ADDRESS_SIZE => call(Kind::SetAddressSize, set_address_size),
        ctl::GETVCPUINFO => call(Kind::GetVcpuInfo, vcpus::info),
        ctl::GETVCPUCONTEXT => call(Kind::GetVcpuContext, vcpus::get_context),
        ctl::SETVCPUCONTEXT => call(Kind::SetVcpuContext, vcpus::set_context),
        ctl::GET_EXT_VCPUCONTEXT => call(Kind::GetExtVcpuContext, vcpus::get_extended),
        ctl::SET_EXT_VCPUCONTEXT => call(Kind::SetExtVcpuContext, vcpus::set_extended),
        ctl::GETVCPUEXTSTATE => call(Kind::GetVcpuExtState, vcpus::get_xsave),
        ctl::SETVCPUEXTSTATE => call(Kind::SetVcpuExtState, vcpus::set_xsave),
        ctl::GET_VCPU_MSRS => call(Kind::GetVcpuMsrs, vcpus::get_msrs),
        ctl::SET_VCPU_MSRS => call(Kind::SetVcpuMsrs, vcpus::set_msrs),
        ctl::GETHVMCONTEXT => call(Kind::GetHvmContext, get_hvm_context),
        ctl::SETHVMCONTEXT => call(Kind::SetHvmContext, set_hvm_context),
        ctl::GETTSCINFO => call(Kind::GetTscInfo, get_tsc_info),
        ctl::SETTSCINFO => call(Kind::SetTscInfo, set_tsc_info),
        ctl::GET_CPU_POLICY => call(Kind::GetCpuPolicy, get_cpu_policy),
        ctl::SET_CPU_POLICY => call(Kind::SetCpuPolicy, set_cpu_policy),
        ctl::PAUSEDOMAIN => call(Kind::Pause, |domain, _| done(domain.sim.pause())),
        ctl::UNPAUSEDOMAIN => call(Kind::Unpause, |domain, _| {
            domain.start();
            done(domain.sim.unpause())
        }),
        ctl::RESUMEDOMAIN => call(Kind::Resume, |domain, _| match domain.sim.state() {
            DomainState::Shutdown { .. } => done(domain.sim.resume()),
            _ => Ok(0),
        }),
        ctl::DESTROYDOMAIN => call(Kind::Destroy, |domain, _| {
            host::destroy(domain.domid.get()).map(|()| 0).map_err(|failure| failure.errno)
        }),
        other => unknown("domctl", other.into()),
    }
}

fn done(result: Result<(), SimError>) -> Answer {
    result.map(|()| 0).map_err(|error| Failure::from(error).errno)
}

/// Finds the domain, or the next one that exists, and says so in the answer.
fn get_domain_info(at: u64, domid: u16) -> Answer {
    let domain: Option<Arc<Domain>> = host::domain_from(domid);
    let scope = host::scope(domain.as_deref());
    tally::call(Kind::GetDomainInfo, scope, || {
        let Some(domain) = domain.as_deref() else {
            let reserved = domid >= xenmig_types::Domid::FIRST_RESERVED;
            return Err(if reserved { libc::EINVAL } else { libc::ESRCH });
        };
        let info = info(domain)?;
        Memory::Hypercall.write(at.wrapping_add(DOMCTL_UNION), &info)?;
        Memory::Hypercall.write_bytes(at.wrapping_add(DOMCTL_DOMAIN), &info.domain.to_le_bytes())?;
        Ok(0)
    })
}

/// Returns what Xen says about a domain.
pub(crate) fn info(domain: &Domain) -> Result<GetDomainInfo, i32> {
    let info = verb(host::sim().domain_info(domain.domid))?;
    let state = match info.state {
        DomainState::Running => dominf::RUNNING,
        DomainState::Paused => dominf::PAUSED,
        DomainState::Shutdown { reason } => {
            dominf::SHUTDOWN | dominf::BLOCKED | u32::from(reason) << dominf::SHUTDOWN_SHIFT
        }
        DomainState::Dying => dominf::DYING,
    };
    let kind = if info.kind == GuestKind::Hvm { dominf::HVM_GUEST | dominf::HAP } else { 0 };
    Ok(GetDomainInfo {
        domain: info.domid.get(),
        flags: state | kind,
        tot_pages: info.total_pages,
        max_pages: info.max_pages,
        shared_info_frame: info.shared_info_frame,
        nr_online_vcpus: info.max_vcpu_id + 1,
        max_vcpu_id: info.max_vcpu_id,
        gpaddr_bits: 48,
        ..GetDomainInfo::default()
    })
}

/// Replaces frame numbers by the types of the frames.
fn page_types(domain: &Domain, body: u64) -> Answer {
    let asked: GetPageFrameInfo3 = Memory::Hypercall.read(body)?;
    if asked.num > MAX_TYPES as u64 {
        return Err(libc::E2BIG);
    }
    verb(domain.sim.raw().begin(Verb::PageTypes))?;
    let mut buffer = [0_u64; MAX_TYPES];
    let frames = usize::try_from(asked.num).ok().and_then(|num| buffer.get_mut(..num)).unwrap_or_default();
    Memory::Hypercall.read_all(asked.array, frames)?;
    for frame in frames.iter_mut() {
        let (pfn, kind) = page_type(domain, *frame);
        let other = if domain.types.is_empty() { None } else { domain.types.get(&pfn).copied() };
        *frame = other.unwrap_or_else(|| kind.number().into()) << TYPE_SHIFT;
    }
    Memory::Hypercall.write_all(asked.array, frames)?;
    Ok(0)
}

/// Returns at which pfn a domain has a frame, and of which type it is. Where it has none, the pfn says nothing.
fn page_type(domain: &Domain, frame: u64) -> (u64, PageType) {
    match domain.sim.raw().frame_type(Gfn(frame)) {
        Some(kind) => (domain.sim.raw().place(Gfn(frame), false).unwrap_or(u64::MAX), kind),
        None if domain.sim.is_populated(Pfn(frame)) => (frame, PageType::Notab),
        None => (frame, PageType::Xtab),
    }
}

/// Xen counts the width of a guest's words in bits. That of a guest that is not PV is the hypervisor's.
fn get_address_size(domain: &Domain, body: u64) -> Answer {
    let bytes = if domain.is_pv() { verb(host::sim().guest_width(domain.domid))? } else { 8 };
    Memory::Hypercall.write(body, &(u32::from(bytes) * 8))?;
    Ok(0)
}

fn set_address_size(domain: &Domain, body: u64) -> Answer {
    let bits: u32 = Memory::Hypercall.read(body)?;
    let bytes = match bits {
        32 => 4,
        64 => 8,
        _ => return Err(libc::EINVAL),
    };
    verb(host::sim().set_guest_width(domain.domid, bytes))?;
    Ok(0)
}

fn get_hvm_context(domain: &Domain, body: u64) -> Answer {
    let asked: HvmContext = Memory::Hypercall.read(body)?;
    let context = verb(host::sim().hvm_context(domain.domid))?;
    let size = u32::try_from(context.len()).map_err(|_| libc::ENOMEM)?;
    let mut result = Ok(0);
    if asked.buffer != 0 {
        if asked.size < size {
            return Err(libc::ENOSPC);
        }
        result = Memory::Hypercall.write_bytes(asked.buffer, &context).map(|()| 0);
    }
    Memory::Hypercall.write(body, &HvmContext { size, ..asked })?;
    result
}

fn set_hvm_context(domain: &Domain, body: u64) -> Answer {
    /// No context is longer; a caller's mistake does not cost more memory than this.
    const MOST_BYTES: u32 = 64 << 20;
    let given: HvmContext = Memory::Hypercall.read(body)?;
    if given.size > MOST_BYTES {
        return Err(libc::ENOMEM);
    }
    let mut context = vec![0; given.size as usize];
    Memory::Hypercall.read_bytes(given.buffer, &mut context)?;
    verb(host::sim().set_hvm_context(domain.domid, &context))?;
    Ok(0)
}

fn get_tsc_info(domain: &Domain, body: u64) -> Answer {
    let TscInfo { mode, khz, elapsed_ns, incarnation } = verb(host::sim().tsc_info(domain.domid))?;
    let info =
        layout::TscInfo { tsc_mode: mode, gtsc_khz: khz, incarnation, pad: 0, elapsed_nsec: elapsed_ns };
    Memory::Hypercall.write(body, &info)?;
    Ok(0)
}

fn set_tsc_info(domain: &Domain, body: u64) -> Answer {
    let layout::TscInfo { tsc_mode: mode, gtsc_khz: khz, incarnation, elapsed_nsec: elapsed_ns, .. } =
        Memory::Hypercall.read(body)?;
    verb(host::sim().set_tsc_info(domain.domid, &TscInfo { mode, khz, elapsed_ns, incarnation }))?;
    Ok(0)
}

fn get_cpu_policy(domain: &Domain, body: u64) -> Answer {
    let mut asked: DomainCpuPolicy = Memory::Hypercall.read(body)?;
    let policy = Policy::deserialise(&verb(host::sim().cpu_policy(domain.domid))?);
    let leaves: Vec<CpuidLeaf> = policy.leaves().collect();
    asked.nr_leaves = Memory::Hypercall.write_array(asked.leaves, asked.nr_leaves, MAX_LEAVES, &leaves)?;
    asked.nr_msrs = Memory::Hypercall.write_array(asked.msrs, asked.nr_msrs, MAX_MSRS, &policy.msrs())?;
    Memory::Hypercall.write(body, &asked)?;
    Ok(0)
}

fn set_cpu_policy(domain: &Domain, body: u64) -> Answer {
    let mut given: DomainCpuPolicy = Memory::Hypercall.read(body)?;
    if domain.has_started() {
        return Err(libc::EEXIST);
    }
    let old = verb(host::sim().cpu_policy(domain.domid))?;
    let mut policy = Policy::deserialise(&old);
    let merged = if given.nr_leaves > MAX_LEAVES || given.nr_msrs > MAX_MSRS {
        Err(Refused::TooMany)
    } else {
        let mut leaves = vec![CpuidLeaf::default(); given.nr_leaves as usize];
        let mut msrs = vec![MsrEntry::default(); given.nr_msrs as usize];
        Memory::Hypercall.read_all(given.leaves, &mut leaves)?;
        Memory::Hypercall.read_all(given.msrs, &mut msrs)?;
        policy.merge(&leaves, &msrs)
    };
    [given.err_leaf, given.err_subleaf, given.err_msr] = [u32::MAX; 3];
    let errno = match merged {
        Ok(()) => {
            verb(host::sim().set_cpu_policy(domain.domid, &policy.serialise()))?;
            return Ok(0);
        }
        Err(Refused::TooMany) => libc::E2BIG,
        Err(Refused::Leaf { leaf, subleaf }) => {
            [given.err_leaf, given.err_subleaf] = [leaf, subleaf];
            libc::ERANGE
        }
        Err(Refused::Msr { index, errno }) => {
            given.err_msr = index;
            errno
        }
    };
    Memory::Hypercall.write(body, &given)?;
    Err(errno)
}
