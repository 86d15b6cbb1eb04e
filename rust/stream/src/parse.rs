// SPDX-License-Identifier: GPL-3.0-or-later
//! From checked bodies to records. The reader calls it with bodies whose length their kind allows; counts and
//! values within them are checked here.

use xenmig_types::{GuestKind, PAGE_SHIFT, Pfn, TscInfo, VcpuPart};

use crate::{Headers, HvmParam, Record, StreamError, format, kind::RecordKind};

/// A body that is taken apart from the front. Missing bytes read as zeroes: lengths were checked before.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }

    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// Checks the image header, which is big-endian, and returns its version.
pub(crate) fn image_header(bytes: &[u8; format::IMAGE_HEADER_BYTES]) -> Result<u32, StreamError> {
    let mut fields = Fields(bytes);
    let marker = u64::from_be_bytes(fields.take());
    if marker != format::MARKER {
        return Err(StreamError::Marker { offset: 0, found: marker });
    }
    let identifier = u32::from_be_bytes(fields.take());
    if identifier != format::IDENTIFIER {
        return Err(StreamError::Identifier { offset: 8, found: identifier });
    }
    let version = u32::from_be_bytes(fields.take());
    if !(format::OLDEST_VERSION..=format::VERSION).contains(&version) {
        return Err(StreamError::Version { offset: 12, found: version });
    }
    let options = u16::from_be_bytes(fields.take());
    if options & format::OPTION_BIG_ENDIAN != 0 {
        return Err(StreamError::BigEndian { offset: 16 });
    }
    Ok(version)
}

/// Checks the domain header.
pub(crate) fn domain_header(
    version: u32,
    bytes: &[u8; format::DOMAIN_HEADER_BYTES],
) -> Result<Headers, StreamError> {
    let start = format::IMAGE_HEADER_BYTES as u64;
    let mut fields = Fields(bytes);
    let kind = match fields.u32() {
        format::DOMAIN_TYPE_PV => GuestKind::Pv,
        format::DOMAIN_TYPE_HVM => GuestKind::Hvm,
        found => return Err(StreamError::GuestType { offset: start, found }),
    };
    let page_shift = u16::from_le_bytes(fields.take());
    if u32::from(page_shift) != PAGE_SHIFT {
        return Err(StreamError::PageShift { offset: start + 4, found: page_shift });
    }
    fields.take::<2>();
    Ok(Headers { version, kind, xen_major: fields.u32(), xen_minor: fields.u32() })
}

/// Makes a record of a body. `offset` is where the record begins. END and PAGE_DATA are the reader's own business.
/// A body that is nothing but its fixed part makes a [`Record::Void`].
pub(crate) fn record(kind: RecordKind, body: Vec<u8>, offset: u64) -> Result<Option<Record>, StreamError> {
    let mut fields = Fields(&body);
    Ok(Some(match kind {
        RecordKind::End | RecordKind::PageData => return Ok(None),
        RecordKind::PvInfo => pv_info(&mut fields, offset)?,
        RecordKind::PvP2mFrames => {
            let (first, last) = (fields.u32(), fields.u32());
            if first > last {
                return Err(StreamError::P2mRange { offset, first, last });
            }
            Record::PvP2mFrames { first, last, frames: pfns(fields.0) }
        }
        RecordKind::PvVcpuBasic => vcpu(VcpuPart::Basic, body),
        RecordKind::PvVcpuExtended => vcpu(VcpuPart::Extended, body),
        RecordKind::PvVcpuXsave => vcpu(VcpuPart::Xsave, body),
        RecordKind::PvVcpuMsrs => vcpu(VcpuPart::Msrs, body),
        RecordKind::SharedInfo => Record::SharedInfo(body),
        RecordKind::TscInfo => Record::TscInfo(TscInfo {
            mode: fields.u32(),
            khz: fields.u32(),
            elapsed_ns: fields.u64(),
            incarnation: fields.u32(),
        }),
        RecordKind::HvmContext => Record::HvmContext(body),
        RecordKind::HvmParams => hvm_params(&body, offset)?,
        RecordKind::Toolstack => Record::Toolstack(body),
        RecordKind::Verify => Record::Verify,
        RecordKind::Checkpoint => Record::Checkpoint,
        RecordKind::CheckpointDirtyPfnList => Record::CheckpointDirtyPfnList(pfns(&body)),
        RecordKind::StaticDataEnd => Record::StaticDataEnd,
        RecordKind::CpuidPolicy => Record::CpuidPolicy(body),
        RecordKind::MsrPolicy => Record::MsrPolicy(body),
    }))
}

fn pv_info(fields: &mut Fields<'_>, offset: u64) -> Result<Record, StreamError> {
    let (width, levels) = (fields.u8(), fields.u8());
    if matches!(width, 4 | 8) && matches!(levels, 3 | 4) {
        Ok(Record::PvInfo { width_bytes: width, levels })
    } else {
        Err(StreamError::PvInfo { offset, width, levels })
    }
}

fn pfns(body: &[u8]) -> Vec<Pfn> {
    body.as_chunks().0.iter().map(|pfn| Pfn(u64::from_le_bytes(*pfn))).collect()
}

/// Takes the fixed part off the front, in place: a state can be long.
fn vcpu(part: VcpuPart, mut body: Vec<u8>) -> Record {
    let vcpu = Fields(&body).u32();
    body.drain(..body.len().min(8));
    if body.is_empty() {
        Record::Void(RecordKind::of_vcpu(part))
    } else {
        Record::PvVcpu { part, vcpu, state: body }
    }
}

fn hvm_params(body: &[u8], offset: u64) -> Result<Record, StreamError> {
    let mut fields = Fields(body);
    let count = fields.u32();
    fields.take::<4>();
    let mut params = Vec::with_capacity(fields.0.len() / 16);
    while !fields.0.is_empty() {
        let (index, value) = (fields.u64(), fields.u64());
        let index = u32::try_from(index).map_err(|_| StreamError::ParamIndex { offset, index })?;
        params.push(HvmParam { index, value });
    }
    let kind = RecordKind::HvmParams;
    if u32::try_from(params.len()) != Ok(count) {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        return Err(StreamError::Count { offset, kind, length, count, expected: 8 + 16 * u64::from(count) });
    }
    Ok(if params.is_empty() { Record::Void(kind) } else { Record::HvmParams(params) })
}
