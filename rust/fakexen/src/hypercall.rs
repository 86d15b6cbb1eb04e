// SPDX-License-Identifier: GPL-3.0-or-later
//! `IOCTL_PRIVCMD_HYPERCALL`: which hypercall it is, and who answers it.

use std::ffi::c_int;

use crate::{
    caller_memory::Memory,
    domctl, faults,
    kinds::Kind,
    layout::{Hypercall, MulticallEntry, op},
    machine, memory_op, small_ops, sysctl,
    tally::{self, Answer, Scope},
};

/// Offset of the result in a multicall's entry.
const RESULT: u64 = 8;

/// Makes the hypercall that an ioctl asks for.
pub(crate) fn hypercall(arg: u64) -> Result<c_int, i32> {
    let call: Hypercall = Memory::User.read(arg)?;
    faults::spend_call();
    let [first, second, third, fourth, _] = call.arg;
    let answer = match call.op {
        op::MULTICALL => multicall(first, second),
        other => dispatch(other, [first, second, third, fourth]),
    }?;
    #[expect(clippy::cast_possible_truncation, reason = "ioctl returns an int, and so does the kernel's")]
    Ok(answer as c_int)
}

/// Answers a hypercall.
fn dispatch(number: u64, [first, second, third, fourth]: [u64; 4]) -> Answer {
    match number {
        op::DOMCTL => domctl::domctl(first),
        op::MEMORY_OP => memory_op::memory_op(first, second),
        op::SYSCTL => sysctl::sysctl(first),
        op::HVM_OP => small_ops::hvm_op(first, second),
        op::MMUEXT_OP => machine::mmuext_op(first, second, third, fourth),
        op::XEN_VERSION => small_ops::xen_version(first, second),
        op::SCHED_OP => small_ops::sched_op(first, second),
        _ => tally::unknown("hypercall", number),
    }
}

/// Makes several hypercalls. Each has its own result; the multicall itself succeeds.
fn multicall(list: u64, count: u64) -> Answer {
    tally::call(Kind::Multicall, Scope::Host, || {
        for number in 0..count {
            let place = list.wrapping_add(number.wrapping_mul(size_of::<MulticallEntry>() as u64));
            let MulticallEntry { op, args: [first, second, third, fourth, ..], .. } =
                Memory::Hypercall.read(place)?;
            let result =
                dispatch(op, [first, second, third, fourth]).unwrap_or_else(|errno| -i64::from(errno));
            Memory::Hypercall.write(place.wrapping_add(RESULT), &result.cast_unsigned())?;
        }
        Ok(0)
    })
}
