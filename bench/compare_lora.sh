#!/usr/bin/env bash
# Training of adapters beside PEFT and transformers, in one run on one machine: SmolLM2 135M, rank 16 beside every
# linear layer, 4 x 256 tokens, float32. Both sides in turn, several rounds, the median of each, and the ratios.
#
#   bench/compare_lora.sh [ROUNDS]        default 3
#
# Needs scripts/setup.sh, the target train_bench, and tools/reference/setup.sh for the peer.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ours=${QIANLI_BUILD:-$root/build}/bin/train_bench
python=${QIANLI_REFERENCE_VENV:-$HOME/.cache/qianli/reference}/bin/python
rounds=${1:-3}
[ -x "$ours" ] || { echo "[bench] expected $ours. Hint: scripts/build.sh train_bench." >&2; exit 2; }
[ -x "$python" ] || { echo "[bench] expected the reference environment at $python. Hint: tools/reference/setup.sh." >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for _ in $(seq "$rounds"); do
  "$ours" smollm2 4 fp32 lora >>"$work/ours"
  "$python" "$root/tools/reference/bench_train.py" --model smollm2 --lora --steps 4 --json 2>/dev/null >>"$work/peft"
  "$ours" smollm2 4 fp32 nf4 >>"$work/nf4"
  "$ours" smollm2 4 fp32 full >>"$work/full"
done
"$python" - "$work" <<'PYTHON'
import json, pathlib, statistics, sys

work = pathlib.Path(sys.argv[1])
rows = {side: [json.loads(line) for line in (work / side).read_text().splitlines()] for side in ("ours", "peft", "nf4", "full")}
speed = {side: statistics.median(row["tokens_per_second"] for row in found) for side, found in rows.items()}
memory = {side: max(row["peak_rss_bytes"] for row in found) / 2**30 for side, found in rows.items()}
print(f"{'side':<24}{'tokens/s':>10}{'peak RSS':>12}{'speed of PEFT':>15}{'memory of PEFT':>16}")
for side, name in (("ours", "ours, lora"), ("nf4", "ours, lora on nf4"), ("full", "ours, all weights"), ("peft", "PEFT, lora")):
    print(f"{name:<24}{speed[side]:>10.1f}{memory[side]:>8.2f} GiB{speed[side] / speed['peft']:>15.2f}{memory[side] / memory['peft']:>16.2f}")
PYTHON
