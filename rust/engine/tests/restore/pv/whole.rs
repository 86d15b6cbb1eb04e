// SPDX-License-Identifier: GPL-3.0-or-later
//! Whole guests: all of it arrives, in frames of this host.

use xenmig_engine::restore::RestoreReport;
use xenmig_hypervisor::{ReservedEntry, ReservedGrant};
use xenmig_types::{Domid, Gfn, TscInfo, VcpuPart};

use super::{
    super::build::TSC,
    guest::{CONSOLE, PvGuest, STORE, WIDTHS, restore_pv},
    host::{Call, PvHost},
};

#[test]
fn a_guest_arrives() {
    for width in WIDTHS {
        for backwards in [false, true] {
            let (guest, host) = (PvGuest::new(width), PvHost::new(100));
            let stream = guest.state(guest.all(guest.start(), backwards)).end();
            let report = restore_pv(&host, &stream).unwrap();
            guest.check(&host);
            guest.check_shared_info(&host);
            let pages = guest.pages.len() as u64;
            let [store, console] = [STORE, CONSOLE].map(|pfn| Gfn(host.frame(pfn).unwrap()));
            let expected = RestoreReport {
                stream_version: 3,
                xen_major: 4,
                xen_minor: 16,
                records: report.records,
                bytes_received: stream.len() as u64,
                pages_received: pages,
                pages_populated: pages,
                store_gfn: Some(store),
                console_gfn: Some(console),
                elapsed: report.elapsed,
                ..RestoreReport::default()
            };
            assert_eq!(report, expected);
            let backend = Domid::new(0).unwrap();
            let grants = [(ReservedEntry::Console, console), (ReservedEntry::Xenstore, store)]
                .map(|(entry, gfn)| ReservedGrant { entry, backend, gfn });
            assert_eq!(host.machine.grants(), grants);
            let tsc = xenmig_hypervisor::Hypervisor::tsc_info(&host, host.domid()).unwrap();
            assert_eq!(tsc, TscInfo { incarnation: 5, ..TSC });
        }
    }
}

#[test]
fn the_end_is_in_libxcs_order() {
    for width in WIDTHS {
        let (guest, host) = (PvGuest::new(width), PvHost::new(100));
        restore_pv(&host, &guest.stream()).unwrap();
        let mut calls = host.calls();
        if width.bytes() == 4 {
            assert_eq!(calls.remove(0), Call::Width(4), "the domain was made with 64 bits");
        }
        let vcpus: Vec<Call> =
            [0, 2].into_iter().flat_map(|vcpu| VcpuPart::ALL.map(|part| Call::Vcpu(vcpu, part))).collect();
        assert_eq!(calls[..8], vcpus);
        assert!(matches!(&calls[8..], [Call::Pin(_), Call::Grants]), "{calls:?}");
    }
}
