// SPDX-License-Identifier: GPL-3.0-or-later
//! The state of a PV guest's vCPUs, part by part. Each part is what libxc puts into a stream. Source: `public/domctl.h`.

use std::sync::Arc;

use xenctrl_sys as sys;
use xenmig_hypervisor::Errno;
use xenmig_types::{Domid, VcpuPart, pv::GuestWidth};

use crate::{
    buffer::HypercallBuffer,
    call::CallHandle,
    domctl::{domctl, perform},
    error::CallResult,
};

/// Bytes of a domctl's command, of which the extended context is the front.
const COMMAND_BYTES: usize = 128;
type Command = [u8; COMMAND_BYTES];

const MSR_BYTES: usize = size_of::<sys::xen_domctl_vcpu_msr>();

/// Says whether a vCPU is online. `EINVAL` or `ESRCH` for one that the domain does not have.
pub(super) fn online(call: &Arc<CallHandle>, domid: Domid, vcpu: u32) -> CallResult<bool> {
    let mut query = domctl(sys::XEN_DOMCTL_getvcpuinfo, domid);
    query.u.getvcpuinfo = sys::xen_domctl_getvcpuinfo { vcpu, ..Default::default() };
    // SAFETY: it holds no guest handle.
    unsafe { perform(call, &mut query) }?;
    // SAFETY: the whole union is initialised, and any bytes are a valid getvcpuinfo.
    let answer = unsafe { query.u.getvcpuinfo };
    Ok(answer.online != 0)
}

/// Returns a part of a vCPU's state; empty if there is nothing of that kind.
pub(super) fn state(call: &Arc<CallHandle>, domid: Domid, vcpu: u32, part: VcpuPart) -> CallResult<Vec<u8>> {
    match part {
        VcpuPart::Basic => context(call, domid, vcpu),
        VcpuPart::Extended => extended(call, domid, vcpu),
        VcpuPart::Xsave => xsave(call, domid, vcpu),
        VcpuPart::Msrs => msrs(call, domid, vcpu),
    }
}

/// Sets a part of a vCPU's state. `EINVAL` for one of a length that it cannot have.
pub(super) fn set_state(
    call: &Arc<CallHandle>,
    domid: Domid,
    vcpu: u32,
    part: VcpuPart,
    state: &[u8],
) -> CallResult<()> {
    match part {
        VcpuPart::Basic => set_context(call, domid, vcpu, state),
        VcpuPart::Extended => set_extended(call, domid, vcpu, state),
        VcpuPart::Xsave => set_xsave(call, domid, vcpu, state),
        VcpuPart::Msrs => set_msrs(call, domid, vcpu, state),
    }
}

/// Returns the registers and what goes with them: a context of 64 bits, of which Xen fills only the front for a 32-bit
/// guest.
pub(super) fn context(call: &Arc<CallHandle>, domid: Domid, vcpu: u32) -> CallResult<Vec<u8>> {
    let mut context = HypercallBuffer::bytes_zeroed(call, size_of::<sys::vcpu_guest_context>())?;
    vcpu_context(call, domid, sys::XEN_DOMCTL_getvcpucontext, vcpu, &mut context)?;
    Ok(context.copy_out(size_of::<sys::vcpu_guest_context>()))
}

/// Sets them from a context of either width.
pub(super) fn set_context(call: &Arc<CallHandle>, domid: Domid, vcpu: u32, state: &[u8]) -> CallResult<()> {
    if !is_context(state) {
        return Err(Errno(libc::EINVAL));
    }
    let mut context = HypercallBuffer::bytes_zeroed(call, size_of::<sys::vcpu_guest_context>())?;
    context.copy_in(state);
    vcpu_context(call, domid, sys::XEN_DOMCTL_setvcpucontext, vcpu, &mut context)
}

/// Says whether it is as long as a context of one of the widths.
fn is_context(state: &[u8]) -> bool {
    [GuestWidth::Bits32, GuestWidth::Bits64].iter().any(|width| width.context_bytes() == state.len())
}

/// Gets or sets a context. The buffer must have room for one of 64 bits.
fn vcpu_context(
    call: &Arc<CallHandle>,
    domid: Domid,
    command: u32,
    vcpu: u32,
    context: &mut HypercallBuffer,
) -> CallResult<()> {
    let mut command = domctl(command, domid);
    command.u.vcpucontext = sys::xen_domctl_vcpucontext {
        vcpu,
        ctxt: sys::__guest_handle_vcpu_guest_context_t { p: context.address().cast() },
    };
    // SAFETY: the buffer has room for a context of either width, is ours, and is borrowed exclusively.
    unsafe { perform(call, &mut command) }
}

fn extended(call: &Arc<CallHandle>, domid: Domid, vcpu: u32) -> CallResult<Vec<u8>> {
    let mut query = domctl(sys::XEN_DOMCTL_get_ext_vcpucontext, domid);
    query.u.ext_vcpucontext.vcpu = vcpu;
    // SAFETY: it holds no guest handle.
    unsafe { perform(call, &mut query) }?;
    // SAFETY: the whole union is initialised.
    let answer = unsafe { query.u.pad };
    extended_from(&answer).ok_or(Errno(libc::EPROTO))
}

fn set_extended(call: &Arc<CallHandle>, domid: Domid, vcpu: u32, state: &[u8]) -> CallResult<()> {
    let mut command = domctl(sys::XEN_DOMCTL_set_ext_vcpucontext, domid);
    command.u.pad = extended_to(vcpu, state).ok_or(Errno(libc::EINVAL))?;
    // SAFETY: the extended context has no guest handle.
    unsafe { perform(call, &mut command) }
}

/// Cuts the extended context out of an answer: as much as Xen says that it is, from the number of the vCPU on.
fn extended_from(answer: &Command) -> Option<Vec<u8>> {
    let (_, size) = vcpu_and_size(answer)?;
    answer.get(..size).map(<[u8]>::to_vec)
}

/// Makes a command of an extended context. Which vCPU it is for is not taken from there. `None` if it is not as long as it
/// says, or longer than any. (One that is longer than it says comes from a stream of old, which had 128 bytes for each.)
fn extended_to(vcpu: u32, state: &[u8]) -> Option<Command> {
    let (_, size) = vcpu_and_size(state)?;
    if size > state.len() {
        return None;
    }
    let mut command = [0; COMMAND_BYTES];
    command.get_mut(..state.len())?.copy_from_slice(state);
    *command.first_chunk_mut()? = vcpu.to_ne_bytes();
    Some(command)
}

/// Reads the first two fields of an extended context.
fn vcpu_and_size(context: &[u8]) -> Option<(u32, usize)> {
    let (vcpu, rest) = context.split_first_chunk()?;
    let (size, _) = rest.split_first_chunk()?;
    Some((u32::from_ne_bytes(*vcpu), usize::try_from(u32::from_ne_bytes(*size)).ok()?))
}

/// Returns what XSAVE saves, after `xcr0` and `xcr0_accum`; empty where the processor has no XSAVE.
fn xsave(call: &Arc<CallHandle>, domid: Domid, vcpu: u32) -> CallResult<Vec<u8>> {
    let mut query = domctl(sys::XEN_DOMCTL_getvcpuextstate, domid);
    query.u.vcpuextstate = sys::xen_domctl_vcpuextstate { vcpu, ..Default::default() };
    // SAFETY: its guest handle is null, which is how the size is asked for.
    unsafe { perform(call, &mut query) }?;
    // SAFETY: the whole union is initialised, and any bytes are a valid vcpuextstate.
    let sizes = unsafe { query.u.vcpuextstate };
    if sizes.xfeature_mask == 0 || sizes.size == 0 {
        return Ok(Vec::new());
    }
    let room = usize::try_from(sizes.size).map_err(|_| Errno(libc::ENOMEM))?;
    let mut state = HypercallBuffer::bytes_zeroed(call, room)?;
    query.u.vcpuextstate.buffer = sys::__guest_handle_uint64 { p: state.address().cast() };
    // SAFETY: the buffer has room for as many bytes as the domctl says.
    unsafe { perform(call, &mut query) }?;
    // SAFETY: as above.
    let answer = unsafe { query.u.vcpuextstate };
    Ok(state.copy_out(usize::try_from(answer.size).unwrap_or(room).min(room)))
}

fn set_xsave(call: &Arc<CallHandle>, domid: Domid, vcpu: u32, state: &[u8]) -> CallResult<()> {
    let mut buffer = HypercallBuffer::bytes_zeroed(call, state.len())?;
    buffer.copy_in(state);
    let mut command = domctl(sys::XEN_DOMCTL_setvcpuextstate, domid);
    command.u.vcpuextstate = sys::xen_domctl_vcpuextstate {
        vcpu,
        size: state.len() as u64,
        buffer: sys::__guest_handle_uint64 { p: buffer.address().cast() },
        ..Default::default()
    };
    // SAFETY: the buffer holds as many bytes as the domctl says.
    unsafe { perform(call, &mut command) }
}

/// Returns the MSRs that are not zero, `xen_domctl_vcpu_msr[]`.
fn msrs(call: &Arc<CallHandle>, domid: Domid, vcpu: u32) -> CallResult<Vec<u8>> {
    let mut query = domctl(sys::XEN_DOMCTL_get_vcpu_msrs, domid);
    query.u.vcpu_msrs = sys::xen_domctl_vcpu_msrs { vcpu, ..Default::default() };
    // SAFETY: its guest handle is null, which is how the number is asked for.
    unsafe { perform(call, &mut query) }?;
    // SAFETY: the whole union is initialised, and any bytes are a valid vcpu_msrs.
    let most = unsafe { query.u.vcpu_msrs }.msr_count;
    if most == 0 {
        return Ok(Vec::new());
    }
    let mut list = HypercallBuffer::bytes_zeroed(call, msr_list_bytes(most)?)?;
    query.u.vcpu_msrs.msrs = sys::__guest_handle_xen_domctl_vcpu_msr_t { p: list.address().cast() };
    // SAFETY: the list has room for as many MSRs as the domctl says.
    unsafe { perform(call, &mut query) }?;
    // SAFETY: as above.
    let found = unsafe { query.u.vcpu_msrs }.msr_count;
    Ok(list.copy_out(msr_list_bytes(found.min(most))?))
}

fn set_msrs(call: &Arc<CallHandle>, domid: Domid, vcpu: u32, state: &[u8]) -> CallResult<()> {
    let msr_count = msr_count(state).ok_or(Errno(libc::EINVAL))?;
    let mut list = HypercallBuffer::bytes_zeroed(call, state.len())?;
    list.copy_in(state);
    let mut command = domctl(sys::XEN_DOMCTL_set_vcpu_msrs, domid);
    command.u.vcpu_msrs = sys::xen_domctl_vcpu_msrs {
        vcpu,
        msr_count,
        msrs: sys::__guest_handle_xen_domctl_vcpu_msr_t { p: list.address().cast() },
    };
    // SAFETY: the list holds as many MSRs as the domctl says.
    unsafe { perform(call, &mut command) }
}

fn msr_list_bytes(count: u32) -> CallResult<usize> {
    usize::try_from(count).ok().and_then(|count| count.checked_mul(MSR_BYTES)).ok_or(Errno(libc::ENOMEM))
}

/// Counts whole MSRs; `None` if there is a part of one.
fn msr_count(list: &[u8]) -> Option<u32> {
    u32::try_from(list.len() / MSR_BYTES).ok().filter(|_| list.len().is_multiple_of(MSR_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_has_the_length_of_one_of_the_widths() {
        for length in [2800, 5168] {
            assert!(is_context(&vec![0; length]));
            assert!(!is_context(&vec![0; length - 1]) && !is_context(&vec![0; length + 1]));
        }
        assert!(!is_context(&[]));
    }

    /// An extended context for vCPU 7 that says that it has `size` bytes, and has `length`.
    fn blob(size: u32, length: usize) -> Vec<u8> {
        let mut blob = vec![0xaa; length.max(8)];
        blob[..4].copy_from_slice(&7_u32.to_le_bytes());
        blob[4..8].copy_from_slice(&size.to_le_bytes());
        blob.truncate(length);
        blob
    }

    #[test]
    fn an_extended_context_is_as_long_as_xen_says() {
        let answer = |size| Command::try_from(blob(size, 128)).unwrap();
        assert_eq!(extended_from(&answer(64)), Some(blob(64, 64)));
        assert_eq!(extended_from(&answer(128)), Some(blob(128, 128)));
        assert_eq!(extended_from(&answer(0)), Some(Vec::new()));
        assert_eq!(extended_from(&answer(129)), None);
    }

    #[test]
    fn an_extended_context_is_set_for_the_vcpu_that_was_named() {
        let command = extended_to(2, &blob(64, 64)).unwrap();
        assert_eq!(command[..4], 2_u32.to_le_bytes());
        assert_eq!(command[4..64], blob(64, 64)[4..]);
        assert_eq!(command[64..], [0; 64]);
    }

    #[test]
    fn an_extended_context_of_another_length_is_refused() {
        for (size, length) in [(0, 0), (7, 7), (65, 64), (u32::MAX, 64), (64, 129), (129, 129)] {
            assert_eq!(extended_to(2, &blob(size, length)), None, "{size} {length}");
        }
        for (size, length) in [(40, 40), (64, 64), (64, 128), (128, 128)] {
            assert!(extended_to(2, &blob(size, length)).is_some(), "{size} {length}");
        }
    }

    #[test]
    fn a_part_of_an_msr_is_refused() {
        assert_eq!(msr_count(&[0; 48]), Some(3));
        assert_eq!(msr_count(&[]), Some(0));
        assert_eq!((msr_count(&[0; 47]), msr_count(&[0; 8])), (None, None));
    }
}
