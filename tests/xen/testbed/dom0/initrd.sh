#!/bin/busybox sh
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=dash
# init of dom0's initramfs: finds the root image on the first disk and goes on from there, in init.sh.
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs devtmpfs /dev
# shellcheck disable=SC2013,SC2046 # words are what is wanted
for module in $($busybox cat /modules/order); do
    $busybox insmod "/modules/$module" || echo "testbed: insmod $module failed"
done

tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 100 ]; do
    tries=$((tries + 1))
    $busybox usleep 50000
done
if ! $busybox mount -t ext4 /dev/vda /new; then
    echo "testbed: dom0 cannot mount its root image"
    $busybox poweroff -f
fi
for directory in proc sys dev; do
    $busybox mount -o move "/$directory" "/new/$directory"
done
exec $busybox switch_root /new /testbed/init.sh
