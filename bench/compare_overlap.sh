#!/usr/bin/env bash
# What doing two things at once is worth: two ranks of one machine whose messages go through a loopback of
# limited rate, with and without, in turn; median seconds of a step.
#
#   bench/compare_overlap.sh [WHAT] [ROUNDS] [RATE]        default gradients 3 1gbit, tc's units
#
#   gradients   parallel.overlap_grad_reduce=true against false
#   parameters  parallel.zero=3 with parallel.overlap_param_gather=true against false
#   slices      parallel.tensor=2 sequence=true with parallel.tensor_slices=4 against 1
#
# Needs the program (scripts/build.sh), root, ip and tc: the rate is that of a network namespace of its own.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=${QIANLI_BUILD:-$root/build}/bin/qianli
what=${1:-gradients}
rounds=${2:-3}
rate=${3:-1gbit}
[ -x "$program" ] || { echo "[bench] expected $program. Hint: scripts/build.sh qianli." >&2; exit 2; }
case $what in
  gradients) layout=""; with=(parallel.overlap_grad_reduce=true); without=(parallel.overlap_grad_reduce=false) ;;
  parameters) layout="zero: 3, "; with=(parallel.overlap_param_gather=true); without=(parallel.overlap_param_gather=false) ;;
  slices) layout="tensor: 2, sequence: true, "; with=(parallel.tensor_slices=4); without=(parallel.tensor_slices=1) ;;
  *) echo "[bench] expected gradients, parameters or slices, got $what." >&2; exit 2 ;;
esac
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
parallel: {${layout}bucket_elements: 2000000}
CONFIG
run() { # NAME SETTING…
  ip netns exec "$space" "$program" launch --nproc 2 -- pretrain "$work/overlap.yaml" run.dir="$work/$1" "${@:2}" \
    >"$work/log" 2>&1 || { tail -5 "$work/log" >&2; exit 1; }
}
for round in $(seq "$rounds"); do
  run "with.$round" "${with[@]}"
  run "without.$round" "${without[@]}"
done
# The first two steps warm up.
seconds() { for run in "$work/$1".*/metrics.jsonl; do tail -n +3 "$run"; done |
  sed 's/.*"step_seconds":\([0-9.eE+-]*\).*/\1/' | sort -g | awk '{v[NR]=$1} END {print v[int((NR+1)/2)]}'; }
echo "$what at $rate, $rounds rounds of 6 steps, median seconds of a step"
awk -v w="$(seconds with)" -v o="$(seconds without)" \
  'BEGIN {printf "overlapped %.3f   not %.3f   ratio %.2f\n", w, o, o / w}'
