#!/usr/bin/env bash
# Attention with dropout 0.1 and without, ours and PyTorch's, on one thread.
#   bench/compare_dropout.sh [PYTHON]     (build: cmake --build build --target kernels_bench)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
for round in 1 2 3; do
  for filter in attention_forward attention_backward; do
    build/bin/kernels_bench --threads 1 --filter "$filter" | grep -E "S1024/1024 D64 " |
      grep -E "ward +B8|dropout"
  done
done
"$python" tools/reference/bench_dropout.py --threads 1
