#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Says what is missing on this machine, all of it at once, and how to get it on Debian.
# Arguments: the Python interpreter, the oldest Rust that will do.
set -u

python=$1
min_rust=$2
missing=0

need() {
    printf 'missing: %s\n    %s\n' "$1" "$2" >&2
    missing=1
}

# Says whether version $1 is at least version $2.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort --version-sort | head -n 1)" = "$2" ]
}

if ! command -v "$python" >/dev/null; then
    need "Python 3.10 or newer" "apt-get install python3 python3-venv, or name another one: make PYTHON=..."
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    need "Python 3.10 or newer (this is $("$python" -V 2>&1))" "name another one: make PYTHON=..."
elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    need "Python's venv module" "apt-get install python3-venv"
fi

if ! command -v cargo >/dev/null; then
    need "Rust $min_rust or newer" "install it with rustup; Debian 12's own rustc is too old"
else
    rust=$(rustc --version | cut -d ' ' -f 2)
    at_least "$rust" "$min_rust" || need "Rust $min_rust or newer (this is $rust)" "rustup update stable"
    for part in fmt clippy; do
        cargo "$part" --version >/dev/null 2>&1 || need "cargo $part" "rustup component add rustfmt clippy"
    done
fi

command -v cc >/dev/null || need "a C compiler, which Rust links with" "apt-get install gcc libc6-dev"

exit "$missing"
