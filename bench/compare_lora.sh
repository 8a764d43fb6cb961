#!/usr/bin/env bash
# Training of adapters beside PEFT and transformers, in one run on one machine: SmolLM2 135M, rank 16 beside every
# linear layer, float32. Both sides in turn, several rounds, the median of each, and the ratios. First random tokens,
# 4 x 256, all of them learnt; then, where a folder with weights and Alpaca rows are given, one pass over these rows, four
# at a time.
#
#   bench/compare_lora.sh [ROUNDS [MODEL_FOLDER ROWS.json]]        default 3
#
# Needs scripts/setup.sh, the targets train_bench and qianli, and tools/reference/setup.sh for the peer.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=${QIANLI_BUILD:-$root/build}/bin
python=${QIANLI_REFERENCE_VENV:-$HOME/.cache/qianli/reference}/bin/python
rounds=${1:-3} model=${2:-} rows=${3:-}
[ -x "$bin/train_bench" ] || { echo "[bench] expected $bin/train_bench. Hint: scripts/build.sh train_bench." >&2; exit 2; }
[ -x "$python" ] || { echo "[bench] expected the reference environment at $python. Hint: tools/reference/setup.sh." >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for _ in $(seq "$rounds"); do
  "$bin/train_bench" smollm2 4 fp32 lora >>"$work/ours"
  "$python" "$root/tools/reference/bench_train.py" --model smollm2 --lora --steps 4 --json 2>/dev/null >>"$work/peft"
  "$bin/train_bench" smollm2 4 fp32 nf4 >>"$work/nf4"
  "$bin/train_bench" smollm2 4 fp32 full >>"$work/full"
  [ -n "$model" ] || continue
  "$python" "$root/tools/reference/bench_sft.py" "$model" "$rows" --program "$bin/qianli" >>"$work/sft.ours"
  "$python" "$root/tools/reference/bench_sft.py" "$model" "$rows" 2>/dev/null >>"$work/sft.peft"
done
"$python" - "$work" <<'PYTHON'
import json, pathlib, statistics, sys

work = pathlib.Path(sys.argv[1])
SIDES = {"ours": "ours, lora", "nf4": "ours, lora on nf4", "full": "ours, all weights", "peft": "PEFT, lora",
         "sft.ours": "ours, lora, Alpaca", "sft.peft": "PEFT, lora, Alpaca"}
rows = {side: [json.loads(line) for line in (work / side).read_text().splitlines()] for side in SIDES if (work / side).exists()}
speed = {side: statistics.median(row["tokens_per_second"] for row in found) for side, found in rows.items()}
busy = {side: statistics.median(row["processor_seconds_per_1000_tokens"] for row in found) for side, found in rows.items()}
memory = {side: max(row["peak_rss_bytes"] for row in found) / 2**30 for side, found in rows.items()}
print(f"{'side':<20}{'tokens/s':>10}{'s of cores / 1000':>19}{'peak RSS':>12}{'speed of PEFT':>15}{'memory of PEFT':>16}")
for side in rows:
    peer = "sft.peft" if side.startswith("sft") else "peft"
    print(f"{SIDES[side]:<20}{speed[side]:>10.1f}{busy[side]:>19.2f}{memory[side]:>8.2f} GiB{speed[side] / speed[peer]:>15.2f}"
          f"{memory[side] / memory[peer]:>16.2f}")
PYTHON
