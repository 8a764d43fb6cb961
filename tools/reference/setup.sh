#!/usr/bin/env bash
# Makes (or completes) the Python environment of the reference scripts and prints its interpreter.
# The place is ~/.cache/qianli/reference unless QIANLI_REFERENCE_VENV names another.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${QIANLI_REFERENCE_VENV:-$HOME/.cache/qianli/reference}
stamp=$venv/requirements.installed

wanted=$(cat "$here/requirements.txt" "$here/requirements_alone.txt")
if [[ $wanted != "$(cat "$stamp" 2>/dev/null)" ]]; then
  [[ -x $venv/bin/python ]] || "${PYTHON:-python3}" -m venv "$venv" >&2
  "$venv/bin/python" -m pip install --disable-pip-version-check --quiet -r "$here/requirements.txt" >&2
  "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps -r "$here/requirements_alone.txt" >&2
  printf '%s\n' "$wanted" >"$stamp"
fi
echo "$venv/bin/python"
