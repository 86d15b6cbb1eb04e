// SPDX-License-Identifier: GPL-3.0-or-later
//! A PV guest that is copied into an empty domain by hand, as a restore does it: Xen's verbs let the right things through
//! and refuse the wrong ones, and a copy that is wrong somewhere is noticed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that meets the unexpected panics"
)]

mod support;

use support::{
    bitmap, errno, page, pages,
    pv::{LIST, all, context, guest, odd, plain, poke_shared_info, shared_info_page, types},
    set_bits,
};
use xenmig_hypervisor::{Access, CleanPass, Extent, Hypervisor, PinOp, PvVerbs};
use xenmig_sim::{Action, DomainConfig, P2mForm, PvConfig, SimDomain, SimError, SimHost};
use xenmig_types::{
    CpuPolicy, Gfn, PAGE_SIZE, PageType, Pfn, TscInfo, VcpuPart,
    pv::{GuestWidth, Pte, shared_info, start_info, vcpu_context},
};

/// Copies a suspended guest into an empty domain by hand, as a restore does it.
fn copy_by_hand(host: &SimHost, from: &SimDomain, to: &SimDomain) {
    let width = GuestWidth::from_bytes(host.guest_width(from.domid()).unwrap()).unwrap();
    let id = to.domid();
    host.set_guest_width(id, width.bytes()).unwrap();
    let pfns: Vec<Pfn> = (0..6000).map(Pfn).filter(|pfn| from.is_populated(*pfn)).collect();
    let mut frames: Vec<Gfn> = pfns.iter().map(|pfn| Gfn(pfn.0)).collect();
    assert_eq!(host.populate(id, &mut frames, Extent::Page).unwrap(), frames.len());
    let m2p = host.map_m2p(from.domid()).unwrap();
    let moved = |frame: u64| m2p.entry(Gfn(frame)).and_then(|pfn| to.frame_of(pfn));
    let map = from.pv_map().unwrap();
    let mut pins = Vec::new();
    for (pfn, frame) in pfns.iter().zip(&frames) {
        let mut contents = page(from, pfn.0).unwrap();
        let source = types(host, from, &[from.frame_of(*pfn).unwrap()])[0];
        if source.is_page_table() {
            for entry in contents.chunks_exact_mut(8) {
                let pte = Pte(u64::from_le_bytes(entry.try_into().unwrap()));
                let new = if pte.is_present() {
                    moved(pte.frame()).and_then(|frame| pte.with_frame(frame.0))
                } else {
                    Some(pte)
                };
                entry.copy_from_slice(&new.unwrap_or(Pte(0)).0.to_le_bytes());
            }
            if source.number() & 8 != 0 {
                pins.push(PinOp { frame: *frame, kind: source });
            }
        }
        if *pfn == map.start_info {
            for (field, pfn) in [(start_info::STORE_MFN, map.store), (start_info::CONSOLE_MFN, map.console)] {
                field.set(width, &mut contents, to.frame_of(pfn).unwrap().0).unwrap();
            }
        }
        if map.p2m_pages.contains(pfn) {
            for entry in contents.chunks_exact_mut(width.bytes().into()) {
                let mut word = [0; 8];
                word[..entry.len()].copy_from_slice(entry);
                if let Some(frame) = moved(u64::from_le_bytes(word)) {
                    entry.copy_from_slice(&frame.0.to_le_bytes()[..entry.len()]);
                }
            }
        }
        assert!(host.map(id, &[*frame], Access::Write).unwrap().copy_in(0, &contents));
    }
    let mut shared = shared_info_page(host, from);
    shared_info::FRAME_LIST_LIST.set(width, &mut shared, 0).unwrap();
    let frame = Gfn(host.domain_info(id).unwrap().shared_info_frame);
    assert!(host.map(id, &[frame], Access::Write).unwrap().copy_in(0, &shared));
    for vcpu in 0..from.vcpus() {
        let Ok(mut context) = host.vcpu_state(from.domid(), vcpu, VcpuPart::Basic) else { continue };
        context.truncate(width.context_bytes());
        let root = width.frame_of_cr3(vcpu_context::CR3.get(width, &context).unwrap()).unwrap();
        let root = width.cr3_of_frame(moved(root.0).unwrap().0).unwrap();
        vcpu_context::CR3.set(width, &mut context, root).unwrap();
        let user = vcpu_context::CR1.get(width, &context).unwrap();
        if user != 0 {
            vcpu_context::CR1.set(width, &mut context, moved(user >> 12).unwrap().0 << 12).unwrap();
        }
        let entries = vcpu_context::GDT_ENTRIES.get(width, &context).unwrap();
        let mut fields: Vec<_> =
            (0..entries.div_ceil(512)).map(|at| vcpu_context::GDT_FRAMES.at(at as usize)).collect();
        if vcpu == 0 {
            fields.push(vcpu_context::RDX);
        }
        for field in fields {
            let frame = field.get(width, &context).unwrap();
            field.set(width, &mut context, moved(frame).unwrap().0).unwrap();
        }
        host.set_vcpu_state(id, vcpu, VcpuPart::Basic, &context).unwrap();
        for part in [VcpuPart::Extended, VcpuPart::Xsave, VcpuPart::Msrs] {
            let state = host.vcpu_state(from.domid(), vcpu, part).unwrap();
            host.set_vcpu_state(id, vcpu, part, &state).unwrap();
        }
    }
    host.pin_tables(id, &pins).unwrap();
    host.set_cpu_policy(id, &host.cpu_policy(from.domid()).unwrap()).unwrap();
    host.set_tsc_info(id, &host.tsc_info(from.domid()).unwrap()).unwrap();
}

#[test]
fn a_copy_that_was_made_right_is_the_same_and_wakes() {
    for config in all() {
        let (host, from) = guest(config.clone());
        from.fill(5);
        assert!(from.perform(Action::MakeTable(from.pv_map().unwrap().data[4])));
        assert!(from.perform(Action::BalloonOut(from.pv_map().unwrap().data[5])));
        from.suspend().unwrap();
        let to = host.create(DomainConfig { populated: false, domid: None, ..config.clone() }).unwrap();
        assert_ne!(from.fingerprint(), to.fingerprint());
        copy_by_hand(&host, &from, &to);
        to.check_pv().unwrap();
        assert_eq!(from.differing_pages(&to, 5), []);
        assert_eq!(from.fingerprint(), to.fingerprint(), "{config:?}");
        assert!(to.pv_map().is_none());
        to.unpause().unwrap();
        to.check_pv().unwrap();
        from.resume().unwrap();
        from.check_pv().unwrap();
        assert_eq!(from.pv_map().unwrap(), to.pv_map().unwrap());
        let data = to.pv_map().unwrap().data[7];
        assert!(to.perform(Action::BalloonOut(data)) && to.perform(Action::BalloonIn(data)));
        to.check_pv().unwrap();
        to.suspend().unwrap();
        to.check_pv().unwrap();
    }
}

#[test]
fn a_copy_that_is_wrong_somewhere_is_noticed() {
    let config = || odd(GuestWidth::Bits64, P2mForm::Tree);
    let wrong = |what: &str, spoil: &dyn Fn(&SimHost, &SimDomain)| {
        let (host, from) = guest(config());
        from.suspend().unwrap();
        let to = host.create(DomainConfig { populated: false, ..config() }).unwrap();
        copy_by_hand(&host, &from, &to);
        spoil(&host, &to);
        assert_ne!(from.fingerprint(), to.fingerprint(), "{what}");
        to
    };
    let (_, from) = guest(config());
    let map = from.pv_map().unwrap();
    let poke = |to: &SimDomain, pfn: Pfn, at: usize, byte: u8| {
        let mut contents = page(to, pfn.0).unwrap();
        contents[at] ^= byte;
        to.write_page(pfn, &contents).unwrap();
    };
    wrong("a byte of data", &|_, to| poke(to, map.data[1], 100, 1));
    wrong("a page less", &|host, to| {
        host.depopulate(to.domid(), &[to.frame_of(map.data[1]).unwrap()]).unwrap()
    });
    wrong("a page more", &|host, to| {
        host.populate(to.domid(), &mut [Gfn(5)], Extent::Page).unwrap();
    });
    wrong("a flag of an entry", &|_, to| poke(to, map.tables[2].0, 0, 0x40));
    wrong("a byte of the shared info", &|host, to| poke_shared_info(host, to, 70));
    wrong("a pin more", &|host, to| {
        let table = map.tables.iter().find(|table| table.1 == PageType::L1).unwrap().0;
        host.pin_tables(to.domid(), &[PinOp { frame: to.frame_of(table).unwrap(), kind: PageType::L1 }])
            .unwrap();
    });
    wrong("a register", &|host, to| {
        let mut registers = context(host, to, 0)[..GuestWidth::Bits64.context_bytes()].to_vec();
        registers[100] ^= 1;
        host.set_vcpu_state(to.domid(), 0, VcpuPart::Basic, &registers).unwrap();
    });
    wrong("the TSC", &|host, to| {
        let tsc = host.tsc_info(to.domid()).unwrap();
        host.set_tsc_info(to.domid(), &TscInfo { khz: tsc.khz + 1, ..tsc }).unwrap();
    });
    wrong("the CPU policy", &|host, to| host.set_cpu_policy(to.domid(), &CpuPolicy::default()).unwrap());
    wrong("a vCPU's MSRs", &|host, to| host.set_vcpu_state(to.domid(), 1, VcpuPart::Msrs, &[0; 16]).unwrap());
    let p2m = wrong("an entry of the p2m", &|_, to| poke(to, map.p2m_pages[0], 8, 1));
    assert!(matches!(p2m.check_pv(), Err(SimError::Unsound { .. })));
    let lost = wrong("the start info page", &|_, to| poke(to, map.start_info, 2048, 1));
    assert!(matches!(lost.resume(), Err(SimError::Unsound { .. })));
    assert!(!lost.state().is_suspended());
}

#[test]
fn what_xen_refuses_is_refused() {
    for width in [GuestWidth::Bits32, GuestWidth::Bits64] {
        let config = || plain(width, LIST);
        let (host, from) = guest(config());
        from.fill(1);
        from.suspend().unwrap();
        let to = host.create(DomainConfig { populated: false, ..config() }).unwrap();
        let id = to.domid();
        assert_eq!(host.guest_width(id).unwrap(), 8);
        assert_eq!(errno(host.set_guest_width(id, 5)), libc::EINVAL);
        assert_eq!(errno(host.vcpu_state(id, 0, VcpuPart::Basic)), libc::ENODATA);
        let frame_of = |pfn: Pfn| to.frame_of(pfn).unwrap();
        copy_by_hand(&host, &from, &to);
        if width == GuestWidth::Bits32 {
            assert_eq!(errno(host.set_guest_width(id, 8)), libc::EINVAL);
        } else {
            assert_eq!(errno(host.set_guest_width(id, 4)), libc::EACCES);
        }
        let map = from.pv_map().unwrap();
        let (data, spare) = (frame_of(map.data[0]), frame_of(map.data[1]));
        let foreign = from.frame_of(map.data[0]).unwrap();
        let pin = |frame, kind| host.pin_tables(id, &[PinOp { frame, kind }]);
        let contents = |entry: u64, slot: usize| {
            let mut contents = [0; PAGE_SIZE];
            contents[slot * 8..slot * 8 + 8].copy_from_slice(&entry.to_le_bytes());
            assert!(host.map(id, &[data], Access::Write).unwrap().copy_in(0, &contents));
        };
        let table = frame_of(map.tables.iter().find(|table| table.1 == PageType::L1).unwrap().0);
        // A page is no table of another level, a pinned one is not pinned again, others' frames not at all.
        assert_eq!(errno(pin(table, PageType::L2)), libc::EINVAL);
        assert_eq!(errno(pin(foreign, PageType::L1)), libc::EINVAL);
        assert_eq!(errno(pin(data, PageType::Notab)), libc::EINVAL);
        for entry in [foreign.0 << 12 | 1, table.0 << 12 | 3, 1 << 40 | 1] {
            contents(entry, 3);
            assert_eq!(errno(pin(data, PageType::L1)), libc::EINVAL, "{entry:#x}");
        }
        contents(spare.0 << 12 | 1, 3);
        assert_eq!(errno(pin(data, PageType::L2)), libc::EINVAL, "data are no L1 table");
        contents(table.0 << 12 | 0x81, 3);
        assert_eq!(errno(pin(data, PageType::L2)), libc::EINVAL, "a superpage");
        contents(table.0 << 12 | 1, 3);
        let written = host.map(id, &[data], Access::Write).unwrap();
        assert_eq!(errno(pin(data, PageType::L2)), libc::EINVAL, "it is mapped for writing");
        drop(written);
        // A new page table is dirty, and so are those below it.
        let below = frame_of(map.data[2]);
        assert!(host.map(id, &[below], Access::Write).unwrap().copy_in(0, &[0; PAGE_SIZE]));
        contents(below.0 << 12 | 1, 3);
        host.enable_logdirty(id).unwrap();
        pin(data, PageType::L2).unwrap();
        let mut dirty = bitmap(&host, &to);
        host.clean(id, Some(&mut dirty), CleanPass::Live).unwrap();
        assert_eq!(set_bits(&dirty), [map.data[0].0, map.data[2].0]);
        assert_eq!(errno(pin(data, PageType::L2)), libc::EINVAL);
        assert_eq!(types(&host, &to, &[data]), [PageType::L2Pinned]);
        // Tables before one that is refused are pinned, and counted.
        let pins = [(below, PageType::L1), (data, PageType::L2)].map(|(frame, kind)| PinOp { frame, kind });
        assert_eq!(host.pin_tables(id, &pins), Ok(1));
        assert_eq!(errno(host.pin_tables(id, &pins[1..])), libc::EINVAL);
        assert_eq!(types(&host, &to, &[below]), [PageType::L1Pinned]);

        // A vCPU's frames are the guest's, and stay what they are.
        let good = context(&host, &to, 0)[..width.context_bytes()].to_vec();
        let set = |state: &[u8]| host.set_vcpu_state(id, 0, VcpuPart::Basic, state);
        set(&good).unwrap();
        let mut other = good.clone();
        vcpu_context::CR3.set(width, &mut other, width.cr3_of_frame(data.0).unwrap()).unwrap();
        assert_eq!(errno(set(&other)), libc::EOPNOTSUPP);
        assert_eq!(errno(set(&good[1..])), libc::EINVAL);
        for (part, state) in [
            (VcpuPart::Extended, vec![0; 64]),
            (VcpuPart::Extended, vec![0; 8]),
            (VcpuPart::Xsave, vec![0; 15]),
            (VcpuPart::Msrs, vec![0; 17]),
            (VcpuPart::Msrs, vec![1; 16]),
            (VcpuPart::Msrs, vec![0; 16 * 8]),
        ] {
            assert_eq!(
                errno(host.set_vcpu_state(id, 0, part, &state)),
                libc::EINVAL,
                "{part:?} {}",
                state.len()
            );
        }
        assert_eq!(errno(host.set_vcpu_state(id, 9, VcpuPart::Msrs, &[])), libc::ESRCH);
        let fresh = host.create(DomainConfig { populated: false, ..config() }).unwrap();
        host.set_guest_width(fresh.domid(), width.bytes()).unwrap();
        let set = |state: &[u8]| host.set_vcpu_state(fresh.domid(), 0, VcpuPart::Basic, state);
        assert_eq!(errno(set(&good)), libc::EINVAL);
        // The frames are its own now, but what cr3 leads to is no page table.
        let mut frames = [Gfn(1), Gfn(2)];
        assert_eq!(host.populate(fresh.domid(), &mut frames, Extent::Page).unwrap(), 2);
        let mut state = good.clone();
        vcpu_context::GDT_FRAMES.set(width, &mut state, frames[0].0).unwrap();
        vcpu_context::CR1.set(width, &mut state, 0).unwrap();
        vcpu_context::CR3.set(width, &mut state, width.cr3_of_frame(frames[1].0).unwrap()).unwrap();
        let garbage = host.map(fresh.domid(), &[frames[1]], Access::Write).unwrap();
        assert!(garbage.copy_in(0, &[0x55; PAGE_SIZE]));
        drop(garbage);
        assert_eq!(errno(set(&state)), libc::EINVAL);

        // HVM's verbs are not for PV guests, and theirs not for HVM guests.
        assert_eq!(errno(host.hvm_context(id)), libc::EINVAL);
        assert_eq!(errno(host.set_hvm_context(id, &[1; 8])), libc::EINVAL);
        assert_eq!(errno(host.hvm_param(id, 1)), libc::EINVAL);
        assert_eq!(errno(host.set_hvm_param(id, 1, 1)), libc::EINVAL);
        let hvm = host.create(pages(16)).unwrap().domid();
        assert_eq!(errno(host.guest_width(hvm)), libc::EOPNOTSUPP);
        assert_eq!(errno(host.map_m2p(hvm)), libc::EOPNOTSUPP);
        assert_eq!(errno(host.pin_tables(hvm, &[])), libc::EOPNOTSUPP);
    }
}

/// Else a frame that was forgotten in a copy would be right by accident.
#[test]
fn a_domain_to_be_restored_into_on_another_host_gets_other_frames() {
    let config = plain(GuestWidth::Bits64, LIST);
    let (_host, from) = guest(config.clone());
    let (host, to) = guest(DomainConfig { populated: false, ..config });
    let mut frames: Vec<Gfn> = (0..512).map(Gfn).collect();
    assert_eq!(host.populate(to.domid(), &mut frames, Extent::Page).unwrap(), 512);
    let same = (0..).zip(&frames).filter(|(pfn, frame)| from.frame_of(Pfn(*pfn)) == Some(**frame));
    assert!(same.count() < 5);
}

#[test]
fn memory_is_given_up_to_the_limit_and_taken_back() {
    let (host, domain) = guest(DomainConfig { populated: false, ..plain(GuestWidth::Bits64, LIST) });
    let id = domain.domid();
    assert_eq!(host.nr_gpfns(id).unwrap(), 1);
    let mut frames: Vec<Gfn> = (0..513).map(Gfn).collect();
    assert_eq!(host.populate(id, &mut frames, Extent::Page).unwrap(), 512);
    assert_eq!(frames[512], Gfn(512));
    assert_eq!(host.domain_info(id).unwrap().total_pages, 512);
    assert_eq!(host.populate(id, &mut [Gfn(1024)], Extent::Superpage).unwrap(), 0);
    host.depopulate(id, &frames[..2]).unwrap();
    assert_eq!(errno(host.depopulate(id, &frames[..1])), libc::EINVAL);
    assert_eq!((domain.frame_of(Pfn(0)), domain.populated_pages()), (None, 510));
    let mut again = [Gfn(0), Gfn(2)];
    assert_eq!(host.populate(id, &mut again, Extent::Page).unwrap(), 1, "pfn 2 has a page");

    let small = SimHost::with_machine(4096);
    let one = small.create(DomainConfig { populated: false, ..plain(GuestWidth::Bits64, LIST) }).unwrap();
    let config = DomainConfig { pv: Some(PvConfig::default()), ..pages(4000) };
    assert!(matches!(small.create(config.clone()), Err(SimError::NoFrames { .. })));
    let two = small.create(DomainConfig { populated: false, ..config }).unwrap();
    let mut frames: Vec<Gfn> = (0..4000).map(Gfn).collect();
    let given = small.populate(two.domid(), &mut frames, Extent::Page).unwrap();
    assert!((2000..3000).contains(&given), "{given}");
    assert_eq!(small.populate(one.domid(), &mut [Gfn(0)], Extent::Page).unwrap(), 0);
    small.destroy(two.domid()).unwrap();
    drop(two);
    assert_eq!(small.populate(one.domid(), &mut [Gfn(0)], Extent::Page).unwrap(), 1);
}
