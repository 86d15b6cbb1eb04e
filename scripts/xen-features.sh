#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Prints the cargo feature of the real Xen if this machine can build it: Xen's headers and libclang are there.
set -u

printf '#include <xenctrl.h>\n' | cc -E -xc - >/dev/null 2>&1 || exit 0
libclang=$( (ldconfig -p; ls /usr/lib/llvm-*/lib) 2>/dev/null | grep -m1 -o 'libclang[-0-9.]*\.so' )
[ -n "$libclang" ] && echo xen
exit 0
