#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Builds the testbed's Xen from Debian's source package, with shadow paging: Xen logs the writes of a PV guest by its
# shadow page tables, and the hypervisor of Debian's security updates is built without. Prints the file.
#
#   build-xen.sh APT CACHE WORK [--fresh]
#
# APT is an /etc/apt whose sources are used, each as one of source packages. CACHE is where the file stays until this
# script changes; --fresh builds anew. WORK is a folder for the build, on the same file system, which the caller removes.
# build.sh has installed what it takes.
set -euo pipefail

self=${BASH_SOURCE[0]}
minor=4.17 # libxl's: the two are one release

fail() {
    echo "testbed: $*" >&2
    exit 1
}

# Runs one of apt's programs on folders of our own.
apt() {
    local program=$1
    shift
    "$program" -qq -o "Dir::Etc::sourcelist=$work/apt/sources.list" -o "Dir::Etc::sourceparts=$work/apt/sources.list.d" \
        -o "Dir::State::lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache" -o Acquire::Languages=none \
        -o APT::Sandbox::User=root "$@"
}

# Copies apt's sources, with source packages in the place of others.
copy_sources() {
    local file
    mkdir -p "$work/apt/sources.list.d" "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
    touch "$work/apt/sources.list"
    for file in "$1"/sources.list "$1"/sources.list.d/*.list; do
        [ -r "$file" ] && sed -n -E 's/^deb(-src)?[[:blank:]]/deb-src /p' "$file" >>"$work/apt/sources.list"
    done
    for file in "$1"/sources.list.d/*.sources; do
        [ -r "$file" ] && sed 's/^Types:.*/Types: deb-src/' "$file" >"$work/apt/sources.list.d/${file##*/}"
    done
    return 0
}

# Fetches the newest version that is to be had, and prints it. A mirror may list a version that it does not have.
fetch_source() {
    local version versions
    # One source that has no source packages is no reason to give up: another may.
    apt apt-get update >&2 || true
    mapfile -t versions < <(apt apt-cache showsrc --only-source xen | sed -n "s/^Version: \($minor\..*\)/\1/p" | sort -urV)
    for version in "${versions[@]}"; do
        (cd "$work" && apt apt-get source --download-only "xen=$version") >&2 && echo "$version" && return
        echo "testbed: the source package xen $version is not to be had" >&2
        rm -f "$work"/xen_*
    done
    fail "no source package of Xen $minor could be fetched (see above; APT_SOURCES names other apt sources)"
}

build() {
    # apt has compared its hashes with those of the signed list.
    dpkg-source --no-check -x "$work"/xen_*.dsc "$work/source"
    cd "$work/source"
    cp debian/xen-kconfig xen/.config
    echo CONFIG_SHADOW_PAGING=y >>xen/.config
    # What a calling make was told is not for this one.
    unset MAKEFLAGS MFLAGS MAKELEVEL
    export XEN_TARGET_ARCH=x86_64
    make -s -C xen olddefconfig
    grep -qx CONFIG_SHADOW_PAGING=y xen/.config || fail "this Xen has no option CONFIG_SHADOW_PAGING"
    make -s -C xen -j "$(nproc)"
}

main() {
    local cache=$2 fresh=${4-} key version
    work=$3
    key=$(sha256sum <"$self" | cut -c 1-16)
    if [ -z "$fresh" ] && ls "$cache"/xen-*-"$key" 2>/dev/null; then
        return
    fi
    copy_sources "$1"
    version=$(fetch_source)
    echo "testbed: building Xen $version" >&2
    (build) >"$work/build.log" 2>&1 || {
        tail -n 20 "$work/build.log" >&2
        fail "Xen $version could not be built (see above)"
    }
    rm -f "$cache"/xen-*
    mv "$work/source/xen/xen" "$cache/xen-$version-$key"
    echo "$cache/xen-$version-$key"
}

main "$@"
