#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Builds the testbed's image from Debian packages: Xen (build-xen.sh), dom0's kernel and initramfs, and a root file system
# with the Xen tools and a guest in it. Prints the folder that it is in.
#
#   build.sh [--fresh]      --fresh: build anew with the packages of today, though nothing changed here
#
# The folder is $XENMIG_TESTBED_CACHE, by default target/testbed. It is built beside its final place and renamed as the last
# step, so that what was interrupted is never taken for an image. An image is kept until one of these files changes.
# $APT_SOURCES names the apt sources of Debian 12, by default those entries of this machine that are of Debian 12.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XENMIG_TESTBED_CACHE:-$here/../../../target/testbed}
suite=bookworm
# busybox: dom0's init. gdb-minimal, strace, procps, iproute2: for those who look for what went wrong.
packages=(
    linux-image-amd64 linux-image-cloud-amd64
    xen-utils-4.17 xen-utils-common xenstore-utils qemu-system-xen
    busybox-static dash bash coreutils grep sed gawk tar procps util-linux kmod iproute2
    libc-bin python3 strace gdb-minimal
)
# What nothing in dom0 reads. (No dpkg runs there: packages are unpacked, not configured.)
unused=(
    usr/share/{doc,man,locale,info,perl,perl5,iso-codes,xml,zsh,i18n,bash-completion,lintian,icons,misc,X11}
    usr/lib/x86_64-linux-gnu/{perl,perl-base,gconv,dri} usr/share/initramfs-tools
    var/cache/apt var/lib/apt var/lib/dpkg lib/udev lib/systemd usr/lib/systemd lib/modules boot
)

fail() {
    echo "testbed: $*" >&2
    exit 1
}

# The host's tools and the packages they come in, one pair a line.
host_tools() {
    cat <<'TOOLS'
qemu-system-x86_64 qemu-system-x86
mmdebstrap mmdebstrap
mke2fs e2fsprogs
cpio cpio
modprobe kmod
gcc gcc
make make
flex flex
bison bison
bc bc
dpkg-source dpkg-dev
python3 python3
flock util-linux
TOOLS
    # Without these QEMU has no BIOS, and gcc no static C library.
    [ -e /usr/share/seabios/bios-256k.bin ] || echo "- seabios"
    [ -e /usr/lib/x86_64-linux-gnu/libc.a ] || echo "- libc6-dev"
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || echo "- debian-archive-keyring"
}

missing_packages() {
    local tool package
    host_tools | while read -r tool package; do
        command -v "$tool" >/dev/null || echo "$package"
    done
}

need_host_tools() {
    local missing
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -eq 0 ] && return
    if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
        echo "testbed: installing ${missing[*]}" >&2
        "$here/../../../scripts/apt-install.sh" "${missing[@]}" >&2 || true
        mapfile -t missing < <(missing_packages)
    fi
    [ ${#missing[@]} -eq 0 ] || fail "missing on this machine: ${missing[*]} (names of Debian; as root: apt-get install)"
}

# Prints those apt sources of this machine that are of $suite and main, one file each form, for mmdebstrap.
# Nothing found, as on another Debian: mmdebstrap then uses its own default.
apt_sources() {
    local to=$1 list=() deb822=()
    if [ -n "${APT_SOURCES:-}" ]; then
        echo "$APT_SOURCES"
        return
    fi
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do [ -r "$file" ] && list+=("$file"); done
    for file in /etc/apt/sources.list.d/*.sources; do [ -r "$file" ] && deb822+=("$file"); done
    if [ ${#list[@]} -gt 0 ]; then
        grep -hE "^deb(-src)? .* $suite(-security|-updates)? (.* )?main( |\$)" "${list[@]}" >"$to.list" || true
        [ -s "$to.list" ] && echo "$to.list"
    fi
    if [ ${#deb822[@]} -gt 0 ]; then
        # Paragraph by paragraph; an empty line between the files as well. A commented line belongs to none.
        for file in "${deb822[@]}"; do cat "$file"; echo; done | sed '/^#/d' | awk -v suite="$suite" '
            BEGIN { RS = ""; ORS = "\n\n" }
            $0 ~ "(^|\n)Suites:[^\n]*[ \t]" suite "(-security|-updates)?([ \t\n]|$)" &&
                /(^|\n)Components:[^\n]*[ \t]main([ \t\n]|$)/ && !/(^|\n)Enabled:[ \t]*no/' >"$to.sources"
        [ -s "$to.sources" ] && echo "$to.sources"
    fi
    return 0
}

# The root file system with all packages unpacked: the slow part. When this script is killed, mmdebstrap still runs for
# a while: so it does not inherit the lock. And it ends with a signal to its whole process group: so it has its own.
unpack_packages() {
    local sources
    mapfile -t sources < <(apt_sources "$work/apt")
    mkdir "$work/packages"
    local included=${packages[*]}
    setsid --wait mmdebstrap --variant=extract --architectures=amd64 --components=main --format=tar \
        --include="${included// /,}" "$suite" - "${sources[@]}" 2>"$work/mmdebstrap.log" 9>&- |
        tar -C "$work/packages" -x --no-same-owner --exclude='./dev/*' 9>&- || {
        tail -n 20 "$work/mmdebstrap.log" >&2
        fail "the packages could not be fetched and unpacked (see above; APT_SOURCES names other apt sources)"
    }
}

# modules NAMES...: the files of these modules and of those that they need, in the order to load them in.
modules() {
    local module
    for module in "$@"; do
        modprobe -d "$work/packages" -S "$dom0_kernel" --show-depends "$module" ||
            fail "dom0's kernel has no module $module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

# install_modules PLACE FOLDER: copies the modules of that place of dom0/modules.txt, and their order.
install_modules() {
    local file names
    read -ra names < <(sed -n "s/^$1 //p" "$here/dom0/modules.txt")
    mkdir -p "$2"
    modules "${names[@]}" >"$work/order"
    while read -r file; do
        # What the initramfs has loaded is not loaded again.
        [ -e "$work/initrd/modules/${file##*/}" ] && continue
        cp "$file" "$2/"
        echo "${file##*/}" >>"$2/order.new"
    done <"$work/order"
    mv "$2/order.new" "$2/order"
}

pack_initramfs() { # folder, file
    (cd "$1" && find . | cpio --quiet -o -H newc -R 0:0) >"$2"
}

build_initrd() {
    mkdir -p "$work/initrd"/{bin,proc,sys,dev,new}
    cp "$work/packages/bin/busybox" "$work/initrd/bin/"
    install -m 755 "$here/dom0/initrd.sh" "$work/initrd/init"
    install_modules initrd "$work/initrd/modules"
    pack_initramfs "$work/initrd" "$work/image/dom0-initrd.img"
}

# A guest's initramfs: the workload is all there is.
build_guest() {
    mkdir -p "$work/guest/sbin" "$1"
    gcc -std=gnu11 -O2 -static -s -Wall -Wextra -Werror -o "$work/guest/init" "$here/guest/workload.c"
    ln -s ../init "$work/guest/sbin/poweroff"
    ln -s ../init "$work/guest/sbin/reboot"
    pack_initramfs "$work/guest" "$1/initrd.img"
    cp "$work/packages/boot/vmlinuz-$guest_kernel" "$1/vmlinuz"
}

build_root() {
    local root=$work/root applet
    cp -al "$work/packages" "$root"
    (cd "$root" && rm -rf "${unused[@]}")
    ln -sf dash "$root/bin/sh"
    for applet in $("$work/packages/bin/busybox" --list); do
        [ -n "$(find "$root"/{,usr/}{bin,sbin} -maxdepth 1 -name "$applet" -print -quit)" ] ||
            ln -s /bin/busybox "$root/bin/$applet"
    done
    # libxl keeps its locks in one and others look in the other: they must be the same.
    rm -rf "$root/var/run" "$root/var/lock"
    ln -s /run "$root/var/run"
    ln -s /run/lock "$root/var/lock"
    mkdir -p "$root"/{in,out,testbed,lib/modules}
    echo 'root:x:0:0:root:/run/home:/bin/bash' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    echo '127.0.0.1 localhost dom0' >"$root/etc/hosts"
    # What run.py hands in as /in/py is found by every Python, whoever starts it.
    echo /in/py >"$root/usr/lib/python3/dist-packages/testbed.pth"
    # Compiling under emulation takes seconds in each run. Another Python's code would not be read.
    if [ "$(python3 -c 'import sys; print(*sys.version_info[:2])')" = "3 11" ]; then
        python3 -m compileall -q --invalidation-mode unchecked-hash -s "$root" -p / "$root"/usr/lib/python3*
    fi
    install -m 755 "$here/dom0/init.sh" "$root/testbed/init.sh"
    install_modules root "$root/testbed/modules"
    build_guest "$root/guest"
    truncate -s 1G "$work/image/root.img"
    mke2fs -q -F -t ext4 -O ^has_journal -m 0 -E root_owner=0:0 -d "$root" "$work/image/root.img"
}

main() {
    local fresh=
    case "${1-}" in
        '') ;;
        --fresh) fresh=yes ;;
        *) fail "usage: build.sh [--fresh]" ;;
    esac
    PATH=$PATH:/usr/sbin:/sbin
    [ "$(uname -m)" = x86_64 ] || fail "it is built on x86_64 only: dom0 runs the wheel that is built here"
    mkdir -p "$cache"
    cache=$(cd "$cache" && pwd)
    exec 9>"$cache/lock"
    flock 9 # one build at a time; the second finds what the first has made

    local key
    key=$(cd "$here" && cat build.sh build-xen.sh unpack_kernel.py dom0/* guest/* | sha256sum | cut -c 1-16)
    if [ -z "$fresh" ] && [ -e "$cache/image-$key/root.img" ]; then
        echo "$cache/image-$key"
        return
    fi
    need_host_tools
    [ -z "${APT_SOURCES:-}" ] || [ -r "$APT_SOURCES" ] || fail "APT_SOURCES: cannot read $APT_SOURCES"
    rm -rf "$cache"/building.*
    work=$(mktemp -d "$cache/building.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    mkdir "$work/image"

    echo "testbed: fetching and unpacking packages" >&2
    unpack_packages
    mkdir "$work/xen"
    # mmdebstrap has left the sources that it used.
    xen=$("$here/build-xen.sh" "$work/packages/etc/apt" "$cache" "$work/xen" $fresh) || exit 1
    guest_kernel=$(cd "$work/packages/boot" && ls -d vmlinuz-*-cloud-amd64)
    guest_kernel=${guest_kernel#vmlinuz-}
    dom0_kernel=${guest_kernel/-cloud/}
    echo "testbed: making the images (kernel $dom0_kernel)" >&2
    depmod -b "$work/packages" "$dom0_kernel"
    cp "$xen" "$work/image/xen"
    python3 "$here/unpack_kernel.py" "$work/packages/boot/vmlinuz-$dom0_kernel" "$work/image/dom0-vmlinux"
    build_initrd
    build_root

    rm -rf "$cache"/image-*
    mv -T "$work/image" "$cache/image-$key"
    echo "$cache/image-$key"
}

main "$@"
