// SPDX-License-Identifier: GPL-3.0-or-later
//! Streams for the tests: any sequence of records, and one that has each kind.

use proptest::{collection::vec, prelude::*, test_runner::FileFailurePersistence};
use xenmig_stream::{HvmParam, PageData, PageWord, Record, RecordKind, encode};
use xenmig_types::{CpuPolicy, GuestKind, PAGE_SIZE, PageType, Pfn, TscInfo, VcpuPart, XenVersion};

/// Runs this many cases. Inputs that fail are kept beside the test, in `NAME.regressions`: commit that file.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    let kept = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(kept)), ..ProptestConfig::default() }
}

/// A record, and for PAGE_DATA what each page is filled with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) record: Record,
    pub(crate) pages: Vec<u8>,
}

impl From<Record> for Item {
    fn from(record: Record) -> Self {
        Self { record, pages: Vec::new() }
    }
}

pub(crate) fn page_data(words: Vec<PageWord>, fill: u8) -> Item {
    let pages = words.iter().filter(|word| word.page_type().unwrap().has_data()).count();
    let fills = (0..pages).map(|index| fill.wrapping_add(u8::try_from(index % 256).unwrap())).collect();
    Item { record: Record::PageData(PageData { words, pages: pages as u64 }), pages: fills }
}

pub(crate) fn encode_stream(kind: GuestKind, items: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::headers(&mut out, kind, XenVersion { major: 4, minor: 17 });
    for item in items {
        encode_item(&mut out, item);
    }
    encode::end(&mut out);
    out
}

fn encode_item(out: &mut Vec<u8>, item: &Item) {
    let raw = encode::record;
    match &item.record {
        Record::PageData(batch) => {
            encode::page_data(out, &batch.words).unwrap();
            for fill in &item.pages {
                out.extend([*fill; PAGE_SIZE]);
            }
        }
        Record::PvInfo { width_bytes, levels } => encode::pv_info(out, *width_bytes, *levels),
        Record::PvP2mFrames { first, last, frames } => {
            encode::pv_p2m_frames(out, *first, *last, frames).unwrap();
        }
        Record::PvVcpu { part, vcpu, state } => encode::pv_vcpu(out, *part, *vcpu, state).unwrap(),
        Record::SharedInfo(page) => encode::shared_info(out, page.as_slice().try_into().unwrap()),
        Record::TscInfo(tsc) => encode::tsc_info(out, tsc),
        Record::HvmContext(context) => encode::hvm_context(out, context).unwrap(),
        Record::HvmParams(params) => encode::hvm_params(out, params).unwrap(),
        Record::Toolstack(blob) => raw(out, RecordKind::Toolstack, &[blob]).unwrap(),
        Record::Verify => encode::verify(out),
        Record::Checkpoint => encode::checkpoint(out),
        Record::CheckpointDirtyPfnList(pfns) => {
            let bytes: Vec<u8> = pfns.iter().flat_map(|pfn| pfn.0.to_le_bytes()).collect();
            raw(out, RecordKind::CheckpointDirtyPfnList, &[&bytes]).unwrap();
        }
        Record::StaticDataEnd => encode::static_data_end(out),
        Record::CpuidPolicy(leaves) => {
            encode::cpu_policy(out, &CpuPolicy { cpuid: leaves.clone(), msrs: Vec::new() }).unwrap();
        }
        Record::MsrPolicy(entries) => {
            encode::cpu_policy(out, &CpuPolicy { cpuid: Vec::new(), msrs: entries.clone() }).unwrap();
        }
        // No encoder writes these two: an old sender's record, and one from the future.
        Record::Void(kind) => {
            out.extend(kind.number().to_le_bytes());
            out.extend([0; 4]);
        }
        Record::Optional { number, length } => {
            out.extend(number.to_le_bytes());
            out.extend(length.to_le_bytes());
            out.extend((0..length.next_multiple_of(8)).map(|_| 0xee));
        }
    }
}

pub(crate) fn one_of_each() -> Vec<Item> {
    let words = PageType::ALL.into_iter().zip(100..).map(|(kind, pfn)| PageWord::new(Pfn(pfn), kind));
    let mut items: Vec<Item> = [
        Record::StaticDataEnd,
        Record::PvInfo { width_bytes: 4, levels: 3 },
        Record::CpuidPolicy(vec![1; 48]),
        Record::MsrPolicy(vec![2; 16]),
        Record::Toolstack(vec![3; 11]),
        Record::Optional { number: 0x8000_0007, length: 13 },
        Record::PvP2mFrames { first: 0, last: 9, frames: vec![Pfn(77)] },
    ]
    .map(Item::from)
    .into();
    items.push(page_data(words.collect(), 1));
    items.extend(
        [
            Record::PvVcpu { part: VcpuPart::Basic, vcpu: 0, state: vec![4; 9] },
            Record::SharedInfo(vec![5; PAGE_SIZE]),
            Record::TscInfo(TscInfo { mode: 2, khz: 3_000_000, elapsed_ns: 1 << 40, incarnation: 1 }),
            Record::HvmContext(vec![6; 100]),
            Record::HvmParams(vec![HvmParam { index: 17, value: u64::MAX }]),
            Record::Verify,
            Record::Void(RecordKind::PvVcpuMsrs),
            Record::Checkpoint,
            Record::CheckpointDirtyPfnList(vec![Pfn(1), Pfn(2)]),
        ]
        .map(Item::from),
    );
    items
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..60)
}

fn entries(bytes: usize) -> impl Strategy<Value = Vec<u8>> {
    (1..4_usize).prop_flat_map(move |count| vec(any::<u8>(), count * bytes))
}

fn pfns() -> impl Strategy<Value = Vec<Pfn>> {
    vec((0..=PageWord::MAX_PFN.0).prop_map(Pfn), 1..20)
}

fn words() -> impl Strategy<Value = Item> {
    let word = (0..=PageWord::MAX_PFN.0, prop::sample::select(&PageType::ALL[..]))
        .prop_map(|(pfn, kind)| PageWord::new(Pfn(pfn), kind));
    (vec(word, 1..12), any::<u8>()).prop_map(|(words, fill)| page_data(words, fill))
}

fn item() -> impl Strategy<Value = Item> {
    let parts = [VcpuPart::Basic, VcpuPart::Extended, VcpuPart::Xsave, VcpuPart::Msrs];
    let voids = [
        RecordKind::HvmParams,
        RecordKind::HvmContext,
        RecordKind::PvVcpuExtended,
        RecordKind::PvVcpuXsave,
        RecordKind::PvVcpuMsrs,
        RecordKind::CpuidPolicy,
    ];
    let param = (any::<u32>(), any::<u64>()).prop_map(|(index, value)| HvmParam { index, value });
    let record = prop_oneof![
        (prop::sample::select(vec![4_u8, 8]), 3..=4_u8)
            .prop_map(|(width_bytes, levels)| Record::PvInfo { width_bytes, levels }),
        (any::<[u32; 2]>(), pfns()).prop_map(|([a, b], frames)| Record::PvP2mFrames {
            first: a.min(b),
            last: a.max(b),
            frames
        }),
        (prop::sample::select(parts.to_vec()), any::<u32>(), blob())
            .prop_map(|(part, vcpu, state)| Record::PvVcpu { part, vcpu, state }),
        any::<u8>().prop_map(|fill| Record::SharedInfo(vec![fill; PAGE_SIZE])),
        (any::<[u32; 3]>(), any::<u64>()).prop_map(|([mode, khz, incarnation], elapsed_ns)| {
            Record::TscInfo(TscInfo { mode, khz, elapsed_ns, incarnation })
        }),
        blob().prop_map(Record::HvmContext),
        vec(param, 1..17).prop_map(Record::HvmParams),
        blob().prop_map(Record::Toolstack),
        Just(Record::Verify),
        Just(Record::Checkpoint),
        pfns().prop_map(Record::CheckpointDirtyPfnList),
        entries(24).prop_map(Record::CpuidPolicy),
        entries(16).prop_map(Record::MsrPolicy),
        prop::sample::select(voids.to_vec()).prop_map(Record::Void),
        (0x8000_0000..=u32::MAX, 0..200_u32).prop_map(|(number, length)| Record::Optional { number, length }),
    ];
    prop_oneof![3 => record.prop_map(Item::from), 1 => words()]
}

/// STATIC_DATA_END and then anything: the format asks for no other order.
pub(crate) fn items() -> impl Strategy<Value = Vec<Item>> {
    vec(item(), 0..12).prop_map(|mut items| {
        items.insert(0, Record::StaticDataEnd.into());
        items
    })
}
