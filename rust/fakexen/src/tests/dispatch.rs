// SPDX-License-Identifier: GPL-3.0-or-later
//! Which hypercall is which, and what is refused.

use super::{NOWHERE, close, create, domctl, hypercall, ioctl, mmap, open, versioned_domctl};
use crate::{
    caller_memory::Memory,
    cpu_policy::{MAX_LEAVES, MAX_MSRS},
    kinds::Kind,
    layout::{
        self, DOMCTL_VERSION, DomainInfoList, GetDomainInfo, Hypercall, MemoryDomain, MulticallEntry,
        SYSCTL_UNION, SYSCTL_VERSION, SysctlHeader, SystemCpuPolicy, ctl, dominf, mem, op, shadow,
    },
};

#[test]
fn only_the_two_devices_are_played() {
    assert_eq!(open(c"/dev/xen/evtchn"), Err(libc::ENOENT));
    let null = open(c"/dev/null").unwrap();
    assert_eq!(ioctl(null, layout::ioctl::HYPERCALL, NOWHERE), Err(libc::ENOTTY), "the kernel's answer");
    close(null);
    let privcmd = open(c"/dev/xen/privcmd").unwrap();
    assert_eq!(ioctl(privcmd, 0x50ff, 0), Err(libc::ENOTTY), "IOCTL_PRIVCMD_UNIMPLEMENTED");
    assert_eq!(ioctl(privcmd, layout::ioctl::HYPERCALL, NOWHERE), Err(libc::EFAULT));
    close(privcmd);
    assert_eq!(ioctl(privcmd, layout::ioctl::HYPERCALL, NOWHERE), Err(libc::EBADF), "it is closed");
}

#[test]
fn a_hypercall_goes_to_privcmd_alone() {
    let buffers = open(c"/dev/xen/hypercall").unwrap();
    let call = Hypercall { op: op::XEN_VERSION, ..Hypercall::default() };
    assert_eq!(ioctl(buffers, layout::ioctl::HYPERCALL, &raw const call as u64), Err(libc::ENOTTY));
    close(buffers);
    assert_eq!(hypercall(op::XEN_VERSION, 0, 0), Ok(4 << 16 | 17));
}

#[test]
fn what_is_not_played_is_enosys() {
    let domain = create("{}");
    let domid = domain.domid.get();
    let unknown = [
        hypercall(99, 0, 0),
        hypercall(op::XEN_VERSION, 99, 0),
        hypercall(op::MEMORY_OP, 99, 0),
        hypercall(op::HVM_OP, 99, 0),
        hypercall(op::SCHED_OP, 99, 0),
    ];
    assert_eq!(unknown, [Err(libc::ENOSYS); 5]);
    assert_eq!(domctl(999, domid, GetDomainInfo::default()).err(), Some(libc::ENOSYS));
    let shadow_op = layout::ShadowOp { op: 999, ..layout::ShadowOp::default() };
    assert_eq!(domctl(ctl::SHADOW_OP, domid, shadow_op).err(), Some(libc::ENOSYS));
    assert!(crate::tally::HOST.get(Kind::Unknown) >= 7);
}

#[test]
fn another_interface_version_is_eacces() {
    let domid = create("{}").domid.get();
    for version in [0x14, 0x16, 0] {
        let answer = versioned_domctl(ctl::GETDOMAININFO, domid, version, GetDomainInfo::default());
        assert_eq!(answer.err(), Some(libc::EACCES), "domctl {version:#x}");
        let header = SysctlHeader { cmd: ctl::SYSCTL_GET_CPU_POLICY, interface_version: version };
        assert_eq!(
            hypercall(op::SYSCTL, &raw const header as u64, 0),
            Err(libc::EACCES),
            "sysctl {version:#x}"
        );
    }
}

#[test]
fn bad_pointers_are_efault() {
    for op in [op::DOMCTL, op::SYSCTL] {
        assert_eq!(hypercall(op, NOWHERE, 0), Err(libc::EFAULT));
        assert_eq!(hypercall(op, u64::MAX - 4, 0), Err(libc::EFAULT));
    }
    for (op, command) in
        [(op::MEMORY_OP, mem::MAXIMUM_GPFN), (op::MEMORY_OP, 6), (op::HVM_OP, 1), (op::SCHED_OP, 4)]
    {
        assert_eq!(hypercall(op, command, NOWHERE), Err(libc::EFAULT));
    }
    assert_eq!(hypercall(op::MULTICALL, NOWHERE, 1), Err(libc::EFAULT));
    let domid = create("{}").domid.get();
    let types = layout::GetPageFrameInfo3 { num: 1, array: NOWHERE };
    assert_eq!(domctl(ctl::GETPAGEFRAMEINFO3, domid, types).err(), Some(libc::EFAULT));
    let context = layout::HvmContext { size: 1 << 20, buffer: NOWHERE, ..layout::HvmContext::default() };
    assert_eq!(domctl(ctl::GETHVMCONTEXT, domid, context).err(), Some(libc::EFAULT));
    assert_eq!(domctl(ctl::SETHVMCONTEXT, domid, context).err(), Some(libc::EFAULT));
    let clean = layout::ShadowOp {
        op: shadow::CLEAN,
        pages: 64,
        dirty_bitmap: NOWHERE,
        ..layout::ShadowOp::default()
    };
    assert_eq!(domctl(ctl::SHADOW_OP, domid, clean).err(), Some(libc::EFAULT));
}

#[test]
fn a_domain_that_is_not_there_is_esrch_but_for_getdomaininfo_which_finds_the_next() {
    create(r#"{"domid": 30000}"#);
    create(r#"{"domid": 30007, "populated": false}"#);
    let info = |domid| versioned_domctl(ctl::GETDOMAININFO, domid, DOMCTL_VERSION, GetDomainInfo::default());
    let (domid, running) = info(30000).unwrap();
    assert_eq!(
        (domid, running.domain, running.flags),
        (30000, 30000, dominf::HVM_GUEST | dominf::HAP | dominf::RUNNING)
    );
    assert_eq!((running.tot_pages, running.max_vcpu_id, running.nr_online_vcpus), (1024, 0, 1));
    let (domid, next) = info(30001).unwrap();
    assert_eq!(
        (domid, next.domain, next.flags & dominf::PAUSED, next.tot_pages),
        (30007, 30007, dominf::PAUSED, 0)
    );
    assert_eq!(info(30008).err(), Some(libc::ESRCH));
    assert_eq!(info(0x7ff0).err(), Some(libc::EINVAL));
    assert_eq!(domctl(ctl::GETTSCINFO, 30001, layout::TscInfo::default()).err(), Some(libc::ESRCH));
    let pages = MemoryDomain { domid: 30001 };
    assert_eq!(hypercall(op::MEMORY_OP, mem::MAXIMUM_GPFN, &raw const pages as u64), Err(libc::ESRCH));
}

#[test]
fn each_call_of_a_multicall_has_its_own_result() {
    let first = create("{}").domid.get();
    let second = create(r#"{"highest_pfn": 4294967295}"#).domid.get();
    let domids =
        [MemoryDomain { domid: first }, MemoryDomain { domid: second }, MemoryDomain { domid: 0x7fee }];
    let entry = |domain| MulticallEntry {
        op: op::MEMORY_OP,
        args: [mem::MAXIMUM_GPFN, std::ptr::from_ref::<MemoryDomain>(domain) as u64, 0, 0, 0, 0],
        ..MulticallEntry::default()
    };
    let mut calls: Vec<_> = domids.iter().map(entry).collect();
    calls.push(MulticallEntry { op: op::MULTICALL, ..MulticallEntry::default() });
    assert_eq!(hypercall(op::MULTICALL, calls.as_mut_ptr() as u64, 4), Ok(0));
    let mut left = [MulticallEntry::default(); 4];
    Memory::User.read_all(calls.as_ptr() as u64, &mut left).unwrap();
    let results = left.map(|call| call.result.cast_signed());
    // The second does not fit into an int: this is what the multicall is for.
    assert_eq!(results, [1023, 0xffff_ffff, -i64::from(libc::ESRCH), -i64::from(libc::ENOSYS)]);
}

#[test]
fn sysctl_tells_the_size_of_policies_and_lists_domains() {
    let mut memory = [0_u64; 17];
    let at = memory.as_mut_ptr() as u64;
    let header = |cmd| SysctlHeader { cmd, interface_version: SYSCTL_VERSION };
    Memory::User.write(at, &header(ctl::SYSCTL_GET_CPU_POLICY)).unwrap();
    assert_eq!(hypercall(op::SYSCTL, at, 0), Ok(0));
    let sizes: SystemCpuPolicy = Memory::User.read(at + SYSCTL_UNION).unwrap();
    assert_eq!((sizes.nr_leaves, sizes.nr_msrs), (MAX_LEAVES, MAX_MSRS));
    Memory::User.write(at + SYSCTL_UNION, &SystemCpuPolicy { index: 6, ..sizes }).unwrap();
    assert_eq!(hypercall(op::SYSCTL, at, 0), Err(libc::EINVAL));

    create(r#"{"domid": 29000}"#);
    create(r#"{"domid": 29002}"#);
    let mut infos = [GetDomainInfo::default(); 2];
    let list = DomainInfoList {
        first_domain: 29000,
        max_domains: 2,
        buffer: infos.as_mut_ptr() as u64,
        ..DomainInfoList::default()
    };
    Memory::User.write(at, &header(ctl::SYSCTL_GETDOMAININFOLIST)).unwrap();
    Memory::User.write(at + SYSCTL_UNION, &list).unwrap();
    assert_eq!(hypercall(op::SYSCTL, at, 0), Ok(0));
    let list: DomainInfoList = Memory::User.read(at + SYSCTL_UNION).unwrap();
    Memory::User.read_all(list.buffer, &mut infos).unwrap();
    assert_eq!((list.num_domains, infos.map(|info| info.domain)), (2, [29000, 29002]));
}

#[test]
fn a_child_process_gets_enodev() {
    let privcmd = open(c"/dev/xen/privcmd").unwrap();
    // SAFETY: the child calls nothing but the interposed functions and _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let denied = [open(c"/dev/xen/privcmd"), ioctl(privcmd, layout::ioctl::HYPERCALL, NOWHERE)];
        let mapped = mmap(privcmd, 1);
        let right = denied == [Err(libc::ENODEV); 2] && mapped == Err(libc::ENODEV);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!right)) };
    }
    let mut status = 0;
    // SAFETY: the status is ours to be written.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    close(privcmd);
}
