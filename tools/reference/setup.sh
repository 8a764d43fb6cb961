#!/usr/bin/env bash
# Makes (or completes) the Python environment of the reference scripts and prints its interpreter.
#
#   tools/reference/setup.sh [PACKAGE ...]    with packages: these alone, as pinned, in an environment of their own
#
# The place is ~/.cache/qianli/reference unless QIANLI_REFERENCE_VENV names another; packages' beside it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${QIANLI_REFERENCE_VENV:-$HOME/.cache/qianli/reference}
for package in "$@"; do venv+=-$package; done
stamp=$venv/requirements.installed

install() { "$venv/bin/python" -m pip install --disable-pip-version-check --quiet "$@" >&2; }

wanted=$(cat "$here/requirements.txt" "$here/requirements_alone.txt")
if [[ $wanted != "$(cat "$stamp" 2>/dev/null)" ]]; then
  [[ -x $venv/bin/python ]] || "${PYTHON:-python3}" -m venv "$venv" >&2
  if [[ $# -gt 0 ]]; then
    install -c "$here/requirements.txt" "$@"
  else
    install -r "$here/requirements.txt"
    install --no-deps -r "$here/requirements_alone.txt"
  fi
  printf '%s\n' "$wanted" >"$stamp"
fi
echo "$venv/bin/python"
