#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs what support for the real Xen is built and tested with, where that is possible: on Debian, as root.
# Elsewhere it says so and succeeds: the build then leaves Xen out.
# Argument: the packages.
set -u

missing=()
for package in "$@"; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "no apt-get here: to work with the real Xen, install what Debian calls ${missing[*]}" >&2
elif [ "$(id -u)" -ne 0 ]; then
    echo "not root: to work with the real Xen, run apt-get install ${missing[*]}" >&2
else
    "$(dirname "$0")/apt-install.sh" "${missing[@]}" >/dev/null 2>&1 ||
        echo "apt-get could not install ${missing[*]}: this build leaves the real Xen out" >&2
fi
exit 0
