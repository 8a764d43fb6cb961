#!/usr/bin/env bash
# What summing gradients under the backward pass is worth: two ranks of one machine whose messages go through
# a loopback of limited rate, with parallel.overlap_grad_reduce and without, in turn; median seconds of a step.
#
#   bench/compare_overlap.sh [ROUNDS] [RATE]        default 3 1gbit, tc's units
#
# Needs the program (scripts/build.sh), root, ip and tc: the rate is that of a network namespace of its own.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=${QIANLI_BUILD:-$root/build}/bin/qianli
rounds=${1:-3}
rate=${2:-1gbit}
[ -x "$program" ] || { echo "[bench] expected $program. Hint: scripts/build.sh qianli." >&2; exit 2; }
space=qianli-overlap-$$
work=$(mktemp -d)
trap 'ip netns delete "$space" 2>/dev/null || true; rm -rf "$work"' EXIT
ip netns add "$space"
ip netns exec "$space" ip link set lo up
ip netns exec "$space" tc qdisc add dev lo root tbf rate "$rate" burst 256kb latency 200ms
cat "$root"/docs/*.md >"$work/corpus.txt"
"$program" tokenizer train "$work/corpus.txt" --vocab-size 2000 --output "$work/tokenizer" >/dev/null 2>&1
cat >"$work/overlap.yaml" <<CONFIG
model: {preset: llama-tiny, num_layers: 12, hidden_size: 384, ffn_hidden_size: 1024, num_attention_heads: 6,
        num_query_groups: 6, head_dim: 64}
data: {path: $work/corpus.txt, tokenizer: $work/tokenizer, sequence_length: 512}
train: {steps: 8, micro_batch_size: 2, global_batch_size: 4, seed: 1}
precision: fp32
checkpoint: {save_final: false, resume: never}
log: {report: false, tensorboard: false}
parallel: {bucket_elements: 2000000}
CONFIG
for round in $(seq "$rounds"); do
  for overlap in true false; do
    ip netns exec "$space" "$program" launch --nproc 2 -- pretrain "$work/overlap.yaml" \
      run.dir="$work/$overlap.$round" parallel.overlap_grad_reduce=$overlap >"$work/log" 2>&1 ||
      { tail -5 "$work/log" >&2; exit 1; }
  done
done
# The first two steps warm up.
seconds() { for run in "$work/$1".*/metrics.jsonl; do tail -n +3 "$run"; done |
  sed 's/.*"step_seconds":\([0-9.eE+-]*\).*/\1/' | sort -g | awk '{v[NR]=$1} END {print v[int((NR+1)/2)]}'; }
with=$(seconds true)
without=$(seconds false)
echo "rate $rate, $rounds rounds of 6 steps, median seconds of a step"
awk -v w="$with" -v o="$without" 'BEGIN {printf "overlapped %.3f   not %.3f   ratio %.2f\n", w, o, o / w}'
