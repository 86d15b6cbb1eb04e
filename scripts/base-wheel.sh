#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Prints the path of a wheel to compare with: the one that is named, or one built from a commit and kept in target/base.
# Arguments: a wheel or a commit, maturin, and its options that choose cargo features.
set -euo pipefail

base=$1
maturin=$(realpath "$2")
shift 2
if [ -f "$base" ]; then
    echo "$base"
    exit 0
fi
commit=$(git rev-parse --verify --quiet "$base^{commit}") || {
    echo "there is no file and no commit $base" >&2
    exit 1
}
folder=$PWD/target/base/$commit
if ! ls "$folder"/*.whl >/dev/null 2>&1; then
    sources=$(mktemp -d)
    trap 'rm -rf "$sources"' EXIT
    git archive "$commit" | tar -x -C "$sources"
    # Dependencies that the builds have in common are compiled once.
    (cd "$sources" && CARGO_TARGET_DIR=$folder/../target "$maturin" build --quiet --release --locked \
        --out "$folder" "$@") >&2
fi
ls "$folder"/*.whl
