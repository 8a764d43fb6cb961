#!/usr/bin/env bash
# Training speed beside transformers, in one run on one machine: both sides in turn, several rounds, the
# median of each, and the ratios. The peers are eager transformers and torch.compile.
#
#   bench/compare_training.sh [ROUNDS]        default 3
#
# Needs scripts/setup.sh, the target train_bench, and tools/reference/setup.sh for the peers.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ours=${QIANLI_BUILD:-$root/build}/bin/train_bench
python=${QIANLI_REFERENCE_VENV:-$HOME/.cache/qianli/reference}/bin/python
peer=$root/tools/reference/bench_train.py
rounds=${1:-3}
[ -x "$ours" ] || { echo "[bench] expected $ours. Hint: scripts/build.sh train_bench." >&2; exit 2; }
[ -x "$python" ] || { echo "[bench] expected the reference environment at $python. Hint: tools/reference/setup.sh." >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for model in llama gpt2; do
  for _ in $(seq "$rounds"); do
    "$ours" "$model" 4 >>"$work/$model.ours"
    "$python" "$peer" --model "$model" --steps 4 --json 2>/dev/null >>"$work/$model.eager"
  done
  # Compiling takes a minute, so its side runs once, with more steps.
  "$python" "$peer" --model "$model" --steps 8 --compile --json 2>/dev/null >>"$work/$model.compile"
done
"$python" - "$work" <<'PYTHON'
import json, pathlib, statistics, sys

work = pathlib.Path(sys.argv[1])
print(f"{'model':<7}{'side':<10}{'tokens/s':>10}{'peak RSS':>12}{'ours/side':>11}")
for model in ("llama", "gpt2"):
    rows = {side: [json.loads(line) for line in (work / f"{model}.{side}").read_text().splitlines()]
            for side in ("ours", "eager", "compile")}
    speed = {side: statistics.median(row["tokens_per_second"] for row in found) for side, found in rows.items()}
    for side, found in rows.items():
        memory = max(row["peak_rss_bytes"] for row in found) / 2**30
        print(f"{model:<7}{side:<10}{speed[side]:>10.1f}{memory:>8.2f} GiB{speed['ours'] / speed[side]:>11.2f}")
    best = max(rows["ours"], key=lambda row: row["model_gflops"] / row["gemm_peak_gflops"])
    print(f"{model:<7}model FLOPs {best['model_gflops']:.0f} GFLOP/s of a measured GEMM peak of {best['gemm_peak_gflops']:.0f}")
PYTHON
