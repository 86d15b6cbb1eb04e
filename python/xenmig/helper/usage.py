# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``xenmig-save-helper --help`` prints."""

__all__ = ["USAGE"]

USAGE = """\
xenmig-save-helper: xenmig in place of libxl's own save helper.

It is started by libxl, not by hand:

    LIBXL_SAVE_HELPER=$(command -v xenmig-save-helper) xl migrate GUEST HOST

PV, HVM and PVH guests are saved and restored by xenmig; Remus and COLO are left to libxl's own helper.
Without a policy the stream is the one that libxl's own helper would write.

Environment:
    XENMIG_POLICY        who decides when the precopy ends: libxc, downtime:ms=300, stop-after:rounds=30,
                         abort-after:seconds=60, module:Class, file.py:name, or several with | and &;
                         empty: libxc's rule, whatever the file says
    XENMIG_POLICY_ARGS   arguments for a single policy: key=value, with spaces or commas between them
    XENMIG_LOG           a file to which each save appends a line of JSON
    XENMIG_STOCK_HELPER  libxl's own helper, if it is in none of the usual places
    XENMIG_CONFIG        the configuration file, instead of /etc/xenmig.toml
    XENMIG_STALL_TIMEOUT for how many seconds the other end may take nothing while the guest is suspended;
                         then the save fails; default 60; 0: no limit
    XENMIG_RUN_DIR       the directory of the locks that keep two saves of one domain apart, instead of
                         /run/xenmig

The configuration file (TOML) may have: policy, policy_args (a table), consult ("round" or "batch"),
skip_redirtied, log, stock_helper, stall_timeout_s. The environment wins over it.

Options:
    --help     print this
    --version  print the version
"""
