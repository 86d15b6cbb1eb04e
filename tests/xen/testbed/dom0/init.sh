#!/bin/busybox sh
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=dash
# dom0's first process: brings the Xen toolstack up, runs the command, hands back what it left, powers off.
#
# From run.py: the second disk is /in, with .command.sh; through a port of a virtio console, a byte every second, only for the
# interrupt.
# To run.py, by two more ports: the command's output, as it comes; then a tar of out, of dom0 with the logs of this boot,
# and of status. That is the last one: where it is missing, something ended too early.
export PATH=/in/py/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run/home LC_ALL=C.UTF-8
# Tells the tests that they are here, where nothing that they need may be missing.
export XENMIG_TESTBED=1

# Tells run.py, on the console of the machine, how far this came.
say() {
    read -r up _ </proc/uptime
    echo "testbed: $* (dom0 up for $up s)"
}

say "dom0 is running"
# shellcheck disable=SC2013,SC2046 # words are what is wanted
for module in $(cat /testbed/modules/order); do
    busybox insmod "/testbed/modules/$module" || say "insmod $module failed"
done
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /run/xen /run/lock /run/home /dev/pts /dev/shm /var/log/xen/console /var/lib/xen /var/lib/xenstored
mount -t xenfs xenfs /proc/xen
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /var/lib/xenstored # its database is rewritten all the time
ln -sf /proc/self/fd /dev/fd
hostname dom0
busybox ifconfig lo 127.0.0.1 up

xen=/usr/lib/xen-4.17/bin
xenstored --pid-file /run/xenstored.pid || say "xenstored failed"
tries=0
until xenstore-read -s / >/dev/null 2>&1 || [ $tries -ge 100 ]; do
    tries=$((tries + 1))
    busybox usleep 100000
done
$xen/xen-init-dom0 >/dev/null || say "xen-init-dom0 failed"
xenconsoled --log=guest --log-dir=/var/log/xen/console --pid-file=/run/xenconsoled.pid || say "xenconsoled failed"
say "the toolstack is up"

# port NAME: the device of a port of the virtio console.
port() {
    for name in /sys/class/virtio-ports/*/name; do
        [ "$(cat "$name")" = "$1" ] && echo "/dev/$(basename "$(dirname "$name")")" && return
    done
    echo /dev/null
}

cat "$(port beat)" >/dev/null &

mount -t ext4 /dev/vdb /in || say "cannot mount what was handed in"
cd /in || say "there is no /in"
say "running the command"
/bin/bash /in/.command.sh </dev/null >"$(port output)" 2>&1
status=$?
say "the command ended with status $status"

# Not on the disk, which the command may have filled.
results=/run/testbed
mkdir -p $results/dom0
echo $status >$results/status
xl dmesg >$results/dom0/xl-dmesg.txt 2>&1
dmesg >$results/dom0/dmesg.txt
xl list >$results/dom0/xl-list.txt 2>&1
xenstore-ls -f >$results/dom0/xenstore.txt 2>&1
cp -r /var/log/xen $results/dom0/log-xen
# By its path, for busybox's own tar takes only one -C.
/bin/tar -cf "$(port result)" -C / out -C $results dom0 status || say "cannot hand back the results"
sync
say "done"
busybox poweroff -f
