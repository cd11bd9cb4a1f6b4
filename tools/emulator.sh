#!/usr/bin/env bash
# Prints where qemu's user emulation of AArch64 is, so that tests can run code made for it. Where it is not installed and
# the system has Debian's packages, the package is unpacked into the folder given, without touching the system.
set -euo pipefail
folder="$1"

for name in qemu-aarch64-static qemu-aarch64; do
    if command -v "$name"; then
        exit 0
    fi
done
found="$folder/usr/bin/qemu-aarch64-static"
if [ ! -x "$found" ] && command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null; then
    mkdir -p "$folder"
    (
        cd "$folder"
        timeout 300 apt-get download qemu-user-static || { timeout 300 apt-get update && timeout 300 apt-get download qemu-user-static; }
        dpkg-deb -x qemu-user-static_*.deb .
        rm -f qemu-user-static_*.deb
    ) > "$folder/log" 2>&1 || true
fi
if [ -x "$found" ]; then
    echo "$found"
else
    echo "no qemu-aarch64 here, and its package cannot be had: code for AArch64 is made, not run" >&2
    exit 1
fi
