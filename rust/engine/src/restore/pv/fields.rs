// SPDX-License-Identifier: GPL-3.0-or-later
//! Fields of structures that a PV guest and Xen share, whose length was checked before.

use xenmig_stream::RecordKind;
use xenmig_types::{
    Gfn,
    pv::{Field, GuestWidth},
};

use super::super::error::RestoreError;

/// Reads a field.
pub(super) fn get(field: Field, width: GuestWidth, structure: &[u8]) -> Result<u64, RestoreError> {
    field.get(width, structure).ok_or(RestoreError::Missing(RecordKind::PvVcpuBasic))
}

/// Writes a field. It has room for every frame that the guest can have.
pub(super) fn put(
    field: Field,
    width: GuestWidth,
    structure: &mut [u8],
    value: u64,
) -> Result<(), RestoreError> {
    field.set(width, structure, value).ok_or(RestoreError::FrameTooHigh { frame: Gfn(value) })
}
