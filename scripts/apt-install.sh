#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs Debian packages, as root. While another apt is at work this waits for it, for up to five minutes: apt's own
# DPkg::Lock::Timeout covers dpkg's lock, not those of the package lists and of the downloaded packages.
# Arguments: the packages. Status: that of apt-get.
set -u

wait_s=300
export DEBIAN_FRONTEND=noninteractive

# Runs apt-get, again and again while another one holds a lock.
apt_get() {
    local said status
    while :; do
        said=$(LC_ALL=C apt-get -qq -o DPkg::Lock::Timeout=$wait_s "$@" 2>&1)
        status=$?
        [ $status -ne 0 ] && [ $SECONDS -lt $wait_s ] && grep -q "Could not get lock" <<<"$said" || break
        sleep 2
    done
    [ -z "$said" ] || echo "$said" >&2
    return $status
}

apt_get update && apt_get install -y --no-install-recommends "$@"
