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
# A launcher to be started by, a browser for the chat page and a client for the server. Tests that miss one of the
# last two are skipped.
packages=(openmpi-bin python3-venv)
grep -qx ID=debian /etc/os-release && packages+=(chromium)
"$root/scripts/setup.sh" "${packages[@]}"
QIANLI_OPENAI_PYTHON=$("$root/tools/reference/setup.sh" openai) && export QIANLI_OPENAI_PYTHON
"$root/scripts/build.sh"
select=(-LE slow)
$all && select=()
exec ctest --test-dir "$build" --output-on-failure --no-tests=error --parallel 2 "${select[@]}"
