#!/usr/bin/env bash
# Builds what is named (default: everything), with as many jobs as cores and memory allow.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${QIANLI_BUILD:-$root/build}
memory_gib=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
jobs=$(nproc)
[ $((memory_gib / 2)) -lt "$jobs" ] && jobs=$((memory_gib / 2))
[ "$jobs" -lt 1 ] && jobs=1
exec cmake --build "$build" -j "$jobs" ${1:+--target "$@"}
