#!/usr/bin/env bash
# Forward and backward of the recurrent mixers and of latent attention beside transformers' PyTorch path, in one run on one machine: both sides
# in turn, several rounds, the median of each, and the ratio.
#
#   bench/compare_mixers.sh [ROUNDS]        default 3
#
# Needs scripts/setup.sh, the target mixer_bench, and tools/reference/setup.sh for the peer.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ours=${QIANLI_BUILD:-$root/build}/bin/mixer_bench
python=${QIANLI_REFERENCE_VENV:-$HOME/.cache/qianli/reference}/bin/python
peer=$root/tools/reference/bench_mixers.py
rounds=${1:-3}
[ -x "$ours" ] || { echo "[bench] expected $ours. Hint: scripts/build.sh mixer_bench." >&2; exit 2; }
[ -x "$python" ] || { echo "[bench] expected the reference environment at $python. Hint: tools/reference/setup.sh." >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for mixer in gated_delta_net mamba2 latent_attention; do
  for _ in $(seq "$rounds"); do
    "$ours" "$mixer" 5 >>"$work/$mixer.ours"
    "$python" "$peer" "$mixer" --steps 3 2>/dev/null >>"$work/$mixer.transformers"
  done
done
"$python" - "$work" <<'PYTHON'
import json, pathlib, statistics, sys

work = pathlib.Path(sys.argv[1])
print(f"{'mixer':<17}{'side':<14}{'tokens/s':>10}{'ours/side':>11}")
for mixer in ("gated_delta_net", "mamba2", "latent_attention"):
    speed = {}
    for side in ("ours", "transformers"):
        rows = [json.loads(line) for line in (work / f"{mixer}.{side}").read_text().splitlines()]
        speed[side] = statistics.median(row["tokens_per_second"] for row in rows)
    for side, rate in speed.items():
        print(f"{mixer:<17}{side:<14}{rate:>10.1f}{speed['ours'] / rate:>11.2f}")
PYTHON
