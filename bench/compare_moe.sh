#!/usr/bin/env bash
# Mixture-of-experts blocks, forward and backward, beside transformers' (its loop over experts and its
# grouped products), in one run on one machine: the sides in turn, several rounds, the median of each.
#
#   bench/compare_moe.sh [ROUNDS]        default 3
#
# Needs scripts/setup.sh, the target moe_bench, and tools/reference/setup.sh for the peers.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ours=${QIANLI_BUILD:-$root/build}/bin/moe_bench
python=${QIANLI_REFERENCE_VENV:-$HOME/.cache/qianli/reference}/bin/python
rounds=${1:-3}
[ -x "$ours" ] || { echo "[bench] expected $ours. Hint: scripts/build.sh moe_bench." >&2; exit 2; }
[ -x "$python" ] || { echo "[bench] expected the reference environment at $python. Hint: tools/reference/setup.sh." >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for _ in $(seq "$rounds"); do
  "$ours" >>"$work/lines"
  "$python" "$root/tools/reference/bench_moe.py" --threads "$(nproc)" 2>/dev/null >>"$work/lines"
done
"$python" - "$work/lines" <<'PYTHON'
import collections, json, pathlib, statistics, sys

times = collections.defaultdict(lambda: collections.defaultdict(list))
for line in pathlib.Path(sys.argv[1]).read_text().splitlines():
    row = json.loads(line)
    times[row["shape"]][row["side"]].append(row["seconds"])
print(f"{'shape':<15}{'side':<12}{'ms':>9}{'speed-up':>10}")
for shape, sides in times.items():
    ours = statistics.median(sides["ours"])
    for side, seconds in sides.items():
        median = statistics.median(seconds)
        print(f"{shape:<15}{side:<12}{median * 1e3:>9.1f}{median / ours:>10.2f}")
PYTHON
