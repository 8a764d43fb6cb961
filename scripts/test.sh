#!/usr/bin/env bash
# Builds everything and runs the tests: the fast suite, or with --all also the slow ones.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${QIANLI_BUILD:-$root/build}
all=false
case "${1:-}" in
  "") ;;
  --all) all=true ;;
  *) echo "usage: scripts/test.sh [--all]" >&2; exit 2 ;;
esac
"$root/scripts/setup.sh" openmpi-bin  # a launcher to be started by
"$root/scripts/build.sh"
select=(-LE slow)
$all && select=()
exec ctest --test-dir "$build" --output-on-failure --no-tests=error --parallel 2 "${select[@]}"
