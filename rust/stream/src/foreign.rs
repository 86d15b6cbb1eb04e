// SPDX-License-Identifier: GPL-3.0-or-later
//! What a file is that does not begin with the marker of a migration stream, and what to do with it.
//!
//! Files are told apart by their first eight bytes, which is where the marker would be.

/// What begins with these bytes, and what to do about it.
const MAGICS: [(&[u8], &str); 15] = [
    (
        b"Xen save",
        "an xl save image (its header is \"Xen saved domain, xl format\"): restore it with `xl restore`, which hands \
         over the migration stream inside it",
    ),
    (
        b"LibxlFmt",
        "a libxl stream: libxl hands over the migration stream inside it, so restore it with `xl restore`",
    ),
    (b"libvirt-", "an image saved by libvirt's libxl driver: restore it with `virsh restore`"),
    (
        b"LibvirtQ",
        "an image saved by libvirt's QEMU driver, which is no Xen domain: restore it with `virsh restore`",
    ),
    (b"QEVM", "a migration stream of QEMU, which is no Xen domain and has to be loaded by QEMU"),
    (b"QFI\xfb", "a qcow2 disk image, not a saved domain"),
    (b"\x7fELF", "an ELF file, such as a core dump or a kernel, not a saved domain"),
    (b"\x1f\x8b", "compressed with gzip: decompress it first, as in `gzip -dc FILE`"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: decompress it first, as in `zstd -dc FILE`"),
    (b"\xfd7zXZ\0", "compressed with xz: decompress it first, as in `xz -dc FILE`"),
    (b"BZh", "compressed with bzip2: decompress it first, as in `bzip2 -dc FILE`"),
    (b"\x04\x22\x4d\x18", "compressed with lz4: decompress it first, as in `lz4 -dc FILE`"),
    (b"\x89LZO\0", "compressed with lzop: decompress it first, as in `lzop -dc FILE`"),
    (b"\0\0\0\0\0\0\0\0", "zeroes: nothing was written here, or the stream begins further on"),
    (b"XENF", "a stream whose first eight bytes are missing: read it from its start"),
];

const LEGACY: &str =
    "a legacy image (version 1, of Xen before 4.6): convert it with Xen's convert-legacy-stream";
const TEXT: &str =
    "text: name the file that holds the stream, or look for an error message of its sender in it";
const UNKNOWN: &str = "neither a migration stream nor any other format known here";

/// Describes what begins with `first`, in the order of the bytes; missing bytes are zeroes.
pub(crate) fn describe(first: [u8; 8]) -> &'static str {
    if let Some((_, what)) = MAGICS.iter().find(|(magic, _)| first.starts_with(magic)) {
        return what;
    }
    let written = first.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if first.iter().take(written).all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~')) {
        return TEXT;
    }
    // A legacy image begins with the size of the p2m. Of a 64-bit toolstack it has 64 bits, the upper ones clear; of a
    // 32-bit one an extended-info chunk, of type -1, follows (spec, "Legacy Images").
    let [.., e, f, g, h] = first;
    if matches!([e, f, g, h], [0, 0, 0, 0] | [0xff, 0xff, 0xff, 0xff]) { LEGACY } else { UNKNOWN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magics_fit_and_hide_none_other() {
        for (magic, what) in MAGICS {
            let mut first = [1; 8];
            first[..magic.len()].copy_from_slice(magic);
            assert_eq!(describe(first), what);
        }
    }

    #[test]
    fn the_rest_is_told_by_its_shape() {
        for (first, what) in [
            (*b"GET / HT", TEXT),
            (*b"hello\n\0\0", TEXT),
            ([0, 0, 4, 0, 0, 0, 0, 0], LEGACY),
            ([0, 0, 4, 0, 0xff, 0xff, 0xff, 0xff], LEGACY),
            ([0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff, 0xfe], UNKNOWN),
            ([0x80, 1, 2, 3, 4, 5, 6, 7], UNKNOWN),
        ] {
            assert_eq!(describe(first), what, "{first:?}");
        }
    }
}
