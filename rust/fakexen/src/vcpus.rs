// SPDX-License-Identifier: GPL-3.0-or-later
//! The state of a PV guest's vCPUs: domctls that fetch and set it, part by part. Source: `public/domctl.h`.

use xenmig_hypervisor::PvVerbs;
use xenmig_types::{VcpuPart, pv::GuestWidth};

use crate::{
    caller_memory::Memory,
    failure::verb,
    host::{self, Domain},
    layout::{DOMCTL_UNION_BYTES, GetVcpuInfo, VcpuContext, VcpuExtState, VcpuMsrs},
    tally::Answer,
};

/// What XSAVE may save here: x87, SSE and AVX.
const FEATURES: u64 = 7;
/// The most that XSAVE may save, with what stands in front, in bytes. No vCPU saves as much.
const MOST_XSAVE_BYTES: u64 = 8192 + 64;
/// What stands in front of what XSAVE saves, in bytes: two masks.
const XSAVE_FRONT_BYTES: u64 = 16;
/// The most MSRs that are saved, and the bytes of one.
const MOST_MSRS: u32 = 7;
const MSR_BYTES: usize = 16;

fn state(domain: &Domain, vcpu: u32, part: VcpuPart) -> Result<Vec<u8>, i32> {
    verb(host::sim().vcpu_state(domain.domid, vcpu, part))
}

fn set_state(domain: &Domain, vcpu: u32, part: VcpuPart, state: &[u8]) -> Answer {
    verb(host::sim().set_vcpu_state(domain.domid, vcpu, part, state))?;
    Ok(0)
}

/// Reads a part from the caller's memory; `EINVAL` for one that is longer than any.
fn part(at: u64, bytes: u64, most: u64) -> Result<Vec<u8>, i32> {
    let bytes = usize::try_from(bytes.min(most.saturating_add(1))).map_err(|_| libc::EINVAL)?;
    if bytes as u64 > most {
        return Err(libc::EINVAL);
    }
    let mut part = vec![0; bytes];
    Memory::Hypercall.read_bytes(at, &mut part)?;
    Ok(part)
}

/// `getvcpuinfo`: whether a vCPU is online, and nothing else.
pub(crate) fn info(domain: &Domain, body: u64) -> Answer {
    let asked: GetVcpuInfo = Memory::Hypercall.read(body)?;
    let online = verb(host::sim().vcpu_online(domain.domid, asked.vcpu))?;
    let info = GetVcpuInfo { vcpu: asked.vcpu, online: online.into(), ..GetVcpuInfo::default() };
    Memory::Hypercall.write(body, &info)?;
    Ok(0)
}

/// Returns the length of a context of this domain.
fn context_bytes(domain: &Domain) -> Result<usize, i32> {
    let width = GuestWidth::from_bytes(verb(host::sim().guest_width(domain.domid))?);
    Ok(width.ok_or(libc::EINVAL)?.context_bytes())
}

/// A vCPU that is not there has its own error here.
const fn no_context(errno: i32) -> i32 {
    if errno == libc::ESRCH { libc::EINVAL } else { errno }
}

/// `getvcpucontext`: of a 32-bit guest only the front of the caller's buffer is written.
pub(crate) fn get_context(domain: &Domain, body: u64) -> Answer {
    let asked: VcpuContext = Memory::Hypercall.read(body)?;
    let context = state(domain, asked.vcpu, VcpuPart::Basic).map_err(no_context)?;
    let context = context.get(..context_bytes(domain)?).ok_or(libc::EINVAL)?;
    Memory::Hypercall.write_bytes(asked.context, context)?;
    Ok(0)
}

/// `setvcpucontext`. That a vCPU is reset, which Xen does for no context, is not played here.
pub(crate) fn set_context(domain: &Domain, body: u64) -> Answer {
    let given: VcpuContext = Memory::Hypercall.read(body)?;
    let bytes = context_bytes(domain)? as u64;
    let context = part(given.context, bytes, bytes)?;
    set_state(domain, given.vcpu, VcpuPart::Basic, &context).map_err(no_context)
}

/// `get_ext_vcpucontext`: the state stands in the command itself, the vCPU's number and its length in front.
pub(crate) fn get_extended(domain: &Domain, body: u64) -> Answer {
    let vcpu: u32 = Memory::Hypercall.read(body)?;
    let extended = state(domain, vcpu, VcpuPart::Extended)?;
    if extended.is_empty() {
        Memory::Hypercall.write_all(body, &[vcpu, 0])?;
    } else {
        Memory::Hypercall.write_bytes(body, &extended)?;
    }
    Ok(0)
}

/// `set_ext_vcpucontext`.
pub(crate) fn set_extended(domain: &Domain, body: u64) -> Answer {
    let mut front = [0_u32; 2];
    Memory::Hypercall.read_all(body, &mut front)?;
    let [vcpu, bytes] = front;
    let extended = part(body, bytes.into(), DOMCTL_UNION_BYTES as u64)?;
    set_state(domain, vcpu, VcpuPart::Extended, &extended)
}

/// `getvcpuextstate`: without a buffer, how long the state may be.
pub(crate) fn get_xsave(domain: &Domain, body: u64) -> Answer {
    let mut asked: VcpuExtState = Memory::Hypercall.read(body)?;
    let xsave = state(domain, asked.vcpu, VcpuPart::Xsave)?;
    let (features, most) =
        if xsave.is_empty() { (0, XSAVE_FRONT_BYTES) } else { (FEATURES, MOST_XSAVE_BYTES) };
    if (asked.size == 0 && asked.features == 0) || asked.buffer == 0 {
        (asked.features, asked.size) = (features, most);
    } else {
        if asked.size < xsave.len() as u64 || asked.features != features {
            return Err(libc::EINVAL);
        }
        Memory::Hypercall.write_bytes(asked.buffer, &xsave)?;
        asked.size = xsave.len() as u64;
    }
    Memory::Hypercall.write(body, &asked)?;
    Ok(0)
}

/// `setvcpuextstate`.
pub(crate) fn set_xsave(domain: &Domain, body: u64) -> Answer {
    let given: VcpuExtState = Memory::Hypercall.read(body)?;
    let xsave = part(given.buffer, given.size, MOST_XSAVE_BYTES)?;
    set_state(domain, given.vcpu, VcpuPart::Xsave, &xsave)
}

/// `get_vcpu_msrs`: without a buffer, how many there may be.
pub(crate) fn get_msrs(domain: &Domain, body: u64) -> Answer {
    let mut asked: VcpuMsrs = Memory::Hypercall.read(body)?;
    let msrs = state(domain, asked.vcpu, VcpuPart::Msrs)?;
    let room = asked.count as usize * MSR_BYTES;
    let mut result = Ok(0);
    asked.count = MOST_MSRS;
    if asked.msrs != 0 {
        asked.count = u32::try_from(msrs.len() / MSR_BYTES).map_err(|_| libc::EINVAL)?;
        if msrs.len() > room {
            result = Err(libc::ENOBUFS);
        } else {
            Memory::Hypercall.write_bytes(asked.msrs, &msrs)?;
        }
    }
    Memory::Hypercall.write(body, &asked)?;
    result
}

/// `set_vcpu_msrs`.
pub(crate) fn set_msrs(domain: &Domain, body: u64) -> Answer {
    let given: VcpuMsrs = Memory::Hypercall.read(body)?;
    let bytes = u64::from(given.count) * MSR_BYTES as u64;
    let msrs = part(given.msrs, bytes, u64::from(MOST_MSRS) * MSR_BYTES as u64)?;
    set_state(domain, given.vcpu, VcpuPart::Msrs, &msrs)
}
