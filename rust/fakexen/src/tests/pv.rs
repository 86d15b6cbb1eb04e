// SPDX-License-Identifier: GPL-3.0-or-later
//! PV guests: frames of the machine in place of pfns, the machine-to-phys table, vCPUs, page tables.

use std::sync::{Mutex, MutexGuard, PoisonError};

use xenmig_types::{Gfn, Pfn};

use super::{PAGE, close, create, domctl, hypercall, map_at, mmap, munmap, open, page_types, word};
use crate::{
    caller_memory::Memory,
    host::Domain,
    layout::{
        GetDomainInfo, GetVcpuInfo, MachphysList, MemoryReservation, MmuextOp, VcpuContext, VcpuExtState,
        VcpuMsrs, ctl, dominf, mem, op,
    },
    machine::XEN,
};

const L1: u64 = 1;
const L1_PINNED: u64 = 9;
const XTAB: u64 = 0xf;

fn frame(domain: &Domain, pfn: u64) -> u64 {
    domain.sim.frame_of(Pfn(pfn)).unwrap().0
}

fn narrow() -> std::sync::Arc<Domain> {
    create(r#"{"memory_pages": 600, "vcpus": 2, "pv": {"width": 4, "offline_vcpus": [1], "msrs": 3}}"#)
}

#[test]
fn a_pv_domain_is_no_hvm_domain_and_has_a_shared_info_page() {
    let domain = narrow();
    let domid = domain.domid.get();
    let info = domctl(ctl::GETDOMAININFO, domid, GetDomainInfo::default()).unwrap();
    assert_eq!(info.flags & (dominf::HVM_GUEST | dominf::HAP), 0);
    let fd = open(c"/dev/xen/privcmd").unwrap();
    let area = mmap(fd, 2).unwrap();
    let frames = [info.shared_info_frame, info.shared_info_frame + 1];
    let errors = map_at(fd, area, domid, &frames).unwrap();
    assert_eq!(errors[0], 0);
    munmap(area, 2);
    close(fd);
}

#[test]
fn the_width_is_told_in_bits_and_set_before_there_is_memory() {
    assert_eq!(domctl(ctl::GET_ADDRESS_SIZE, narrow().domid.get(), 0_u32), Ok(32));
    assert_eq!(domctl(ctl::GET_ADDRESS_SIZE, create("{}").domid.get(), 0_u32), Ok(64));
    let empty = create(r#"{"memory_pages": 600, "populated": false, "pv": {}}"#).domid.get();
    assert_eq!(domctl(ctl::GET_ADDRESS_SIZE, empty, 0_u32), Ok(64));
    assert_eq!(domctl(ctl::SET_ADDRESS_SIZE, empty, 31_u32), Err(libc::EINVAL));
    domctl(ctl::SET_ADDRESS_SIZE, empty, 32_u32).unwrap();
    assert_eq!(domctl(ctl::GET_ADDRESS_SIZE, empty, 0_u32), Ok(32));
}

#[test]
fn pages_are_known_by_their_frames() {
    let (domain, other) = (narrow(), narrow());
    let map = domain.sim.pv_map().unwrap();
    let (table, kind) = map.tables[0];
    let frames = [frame(&domain, map.data[7].0), frame(&domain, table.0), frame(&other, 5), 3, u64::MAX];
    let types = page_types(domain.domid.get(), &frames).unwrap();
    assert_eq!(types, [0, kind.number().into(), XTAB, XTAB, XTAB]);

    let fd = open(c"/dev/xen/privcmd").unwrap();
    let area = mmap(fd, frames.len()).unwrap();
    // The area is for writing, and a page table is not to be written.
    let einval = -libc::EINVAL;
    assert_eq!(map_at(fd, area, domain.domid.get(), &frames).unwrap(), [0, einval, einval, einval, einval]);
    let mut page = [0; PAGE];
    domain.sim.read_page(map.data[7], &mut page).unwrap();
    assert_eq!(word(area), Ok(u64::from_le_bytes(*page.first_chunk().unwrap())));
    munmap(area, frames.len());
    close(fd);
}

/// Held by who counts on the first PV domain, whose machine all have.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_table_of_the_machine_is_shown_page_by_page_and_for_reading() {
    let _turn = one_at_a_time();
    let domain = narrow();
    let frames = hypercall(op::MEMORY_OP, mem::MAXIMUM_RAM_PAGE, 0).unwrap();
    let list = |command, room: u32| {
        let extents = [0_u64; 9];
        let asked = MachphysList {
            max_extents: room,
            extent_start: extents.as_ptr() as u64,
            ..MachphysList::default()
        };
        hypercall(op::MEMORY_OP, command, &raw const asked as u64).unwrap();
        let told: MachphysList = Memory::User.read(&raw const asked as u64).unwrap();
        let mut extents_told = extents;
        Memory::User.read_all(asked.extent_start, &mut extents_told).unwrap();
        extents_told[..told.nr_extents as usize].to_vec()
    };
    let chunks = list(mem::MACHPHYS_MFN_LIST, 9);
    assert_eq!(chunks.len(), usize::try_from(frames).unwrap().div_ceil(512 * 512));
    assert_eq!(list(mem::MACHPHYS_MFN_LIST, 2), chunks[..2]);
    let compat = list(mem::MACHPHYS_COMPAT_MFN_LIST, 9);
    assert_eq!((compat.len(), chunks.contains(&compat[0])), (1, false));

    let fd = open(c"/dev/xen/privcmd").unwrap();
    let mfn = frame(&domain, 77);
    let page = chunks[usize::try_from(mfn / (512 * 512)).unwrap()] + mfn / 512 % 512;
    // SAFETY: where nothing is.
    let area = unsafe {
        crate::interposed::mmap64(std::ptr::null_mut(), PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0)
    } as u64;
    assert_eq!(map_at(fd, area, XEN, &[page]), Ok(vec![0]));
    assert_eq!(word(area + mfn % 512 * 8), Ok(77));
    munmap(area, 1);
    let area = mmap(fd, 1).unwrap();
    assert_eq!(map_at(fd, area, XEN, &[page]), Ok(vec![-libc::EPERM]), "it is Xen's");
    munmap(area, 1);
    close(fd);
}

#[test]
fn populating_answers_with_frames_and_they_are_given_back_by_frame() {
    let domain = create(r#"{"memory_pages": 600, "populated": false, "pv": {}}"#);
    let call = |command, extents: &mut [u64]| {
        let asked = MemoryReservation {
            extent_start: extents.as_mut_ptr() as u64,
            nr_extents: extents.len() as u64,
            domid: domain.domid.get(),
            ..MemoryReservation::default()
        };
        let done = hypercall(op::MEMORY_OP, command, &raw const asked as u64);
        Memory::User.read_all(asked.extent_start, extents).unwrap();
        done
    };
    let mut extents = [4, 9, 4, 5];
    assert_eq!(call(mem::POPULATE_PHYSMAP, &mut extents), Ok(2), "4 is taken");
    assert_eq!(extents, [frame(&domain, 4), frame(&domain, 9), 4, 5]);
    assert_eq!(call(mem::DECREASE_RESERVATION, &mut extents[..3]), Ok(2), "4 is no frame of it");
    assert_eq!(domain.sim.populated_pages(), 0);
}

#[test]
fn a_vcpu_is_fetched_part_by_part() {
    let domain = narrow();
    let domid = domain.domid.get();
    let online = |vcpu| {
        let asked = GetVcpuInfo { vcpu, ..GetVcpuInfo::default() };
        domctl(ctl::GETVCPUINFO, domid, asked).map(|info| info.online)
    };
    assert_eq!([online(0), online(1), online(2)], [Ok(1), Ok(0), Err(libc::EINVAL)]);

    let mut buffer = vec![0x77_u8; 5168];
    let address = buffer.as_mut_ptr() as u64;
    let context = |vcpu| VcpuContext { vcpu, context: address, ..VcpuContext::default() };
    assert_eq!(domctl(ctl::GETVCPUCONTEXT, domid, context(1)).err(), Some(libc::ENODATA), "never up");
    assert_eq!(domctl(ctl::GETVCPUCONTEXT, domid, context(2)).err(), Some(libc::EINVAL), "not there");
    domctl(ctl::GETVCPUCONTEXT, domid, context(0)).unwrap();
    Memory::User.read_bytes(address, &mut buffer).unwrap();
    assert!(buffer[2800..].iter().all(|byte| *byte == 0x77), "the context of a 32-bit guest is shorter");

    let state = |features, size, buffer| VcpuExtState { features, size, buffer, ..VcpuExtState::default() };
    let sizes = domctl(ctl::GETVCPUEXTSTATE, domid, state(0, 0, 0)).unwrap();
    assert!(sizes.size > 832, "more may come");
    let fetched = domctl(ctl::GETVCPUEXTSTATE, domid, state(sizes.features, 5168, address)).unwrap();
    assert_eq!(fetched.size, 832);
    for (features, size) in [(sizes.features, 831), (sizes.features + 8, 5168)] {
        let refused = domctl(ctl::GETVCPUEXTSTATE, domid, state(features, size, address)).err();
        assert_eq!(refused, Some(libc::EINVAL));
    }

    let msrs = |count, msrs| VcpuMsrs { vcpu: 0, count, msrs };
    assert_eq!(domctl(ctl::GET_VCPU_MSRS, domid, msrs(0, 0)).unwrap().count, 7);
    assert_eq!(domctl(ctl::GET_VCPU_MSRS, domid, msrs(2, address)).err(), Some(libc::ENOBUFS));
    assert_eq!(domctl(ctl::GET_VCPU_MSRS, domid, msrs(7, address)).unwrap().count, 3);

    let extended = domctl(ctl::GET_EXT_VCPUCONTEXT, domid, 0_u64).unwrap();
    assert_eq!(extended, 64 << 32, "the number of the vCPU, and the length");
}

#[test]
fn page_tables_are_pinned_and_nothing_else_is() {
    let domain = narrow();
    let map = domain.sim.pv_map().unwrap();
    let unpinned = map.tables.iter().find(|(_, kind)| u64::from(kind.number()) == L1).unwrap().0;
    let pin = |cmd, frame| {
        let list = [MmuextOp { cmd, frame, ..MmuextOp::default() }];
        let call = crate::layout::Hypercall {
            op: op::MMUEXT_OP,
            arg: [list.as_ptr() as u64, 1, 0, domain.domid.get().into(), 0],
        };
        let fd = open(c"/dev/xen/privcmd").unwrap();
        let result = super::ioctl(fd, crate::layout::ioctl::HYPERCALL, &raw const call as u64);
        close(fd);
        result
    };
    let table = frame(&domain, unpinned.0);
    assert_eq!(pin(4, table), Err(libc::EOPNOTSUPP), "it would be unpinned");
    assert_eq!(pin(1, table), Err(libc::EINVAL), "it is an L1 table");
    assert_eq!(pin(0, table), Ok(0));
    assert_eq!(page_types(domain.domid.get(), &[table]).unwrap(), [L1_PINNED]);
    assert!(domain.sim.raw().place(Gfn(table), true).is_none());
}
