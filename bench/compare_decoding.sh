#!/usr/bin/env bash
# Decoding on the CPU beside llama.cpp and transformers, in one run on one machine: one prompt at a time in 16, 8 and
# 4 bits, and eight in a batch. All sides in turn, several rounds, the median of each, and the ratios.
#
#   bench/compare_decoding.sh MODEL [ROUNDS] [NEW_TOKENS]        default 3 rounds of 64 tokens
#
# MODEL is a Hugging Face folder that both peers know. llama.cpp gets GGUF files made of it: F16 and Q8_0 by `qianli
# convert`, Q4_0 by gguf-py. Its threads and transformers' are as many as ours (QIANLI_THREADS, else 2).
# Needs scripts/setup.sh and scripts/build.sh, and tools/reference/setup.sh for the peers.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
qianli=${QIANLI_BUILD:-$root/build}/bin/qianli
python=${QIANLI_REFERENCE_VENV:-$HOME/.cache/qianli/reference}/bin/python
model=${1:?usage: bench/compare_decoding.sh MODEL [ROUNDS] [NEW_TOKENS]}
rounds=${2:-3}
tokens=${3:-64}
export QIANLI_THREADS=${QIANLI_THREADS:-2}
[ -x "$qianli" ] || { echo "[bench] expected $qianli. Hint: scripts/build.sh." >&2; exit 2; }
[ -x "$python" ] || { echo "[bench] expected the reference environment at $python. Hint: tools/reference/setup.sh." >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$qianli" convert "$model" "$work/f16.gguf" --to gguf --dtype fp16 2>/dev/null
"$qianli" convert "$model" "$work/q8_0.gguf" --to gguf --dtype q8_0 2>/dev/null
"$python" "$root/tools/reference/bench_llamacpp.py" "$work/f16.gguf" --quantize-to "$work/q4_0.gguf"
"$python" - "$work" <<'PYTHON'
import json, pathlib, sys

text = ("The old lighthouse keeper climbed the stairs every evening to light the lamp, and every morning he came down "
        "again to write the weather in his book. ") * 4
work = pathlib.Path(sys.argv[1])
(work / "prompt").write_text(text.strip())
(work / "prompts.jsonl").write_text("".join(json.dumps(f"{n} {text.strip()}") + "\n" for n in range(8)))
PYTHON

generate() { "$qianli" generate "$model" "$@" -n "$tokens" --greedy --ignore-eos --json 2>/dev/null | "$python" -c 'import json, sys; print(json.dumps(json.load(sys.stdin)))'; }
llama() { "$python" "$root/tools/reference/bench_llamacpp.py" "$work/$1.gguf" --prompt "$(cat "$work/prompt")" --new-tokens "$tokens" --threads "$QIANLI_THREADS" --repeat 1 --json 2>/dev/null | tail -n 1; }
transformers() { "$python" "$root/tools/reference/bench_generate.py" "$model" --prompt-tokens 128 --new-tokens "$tokens" --threads "$QIANLI_THREADS" --repeat 1 --dtype "$1" --batch "$2" --json 2>/dev/null | tail -n 1; }

for _ in $(seq "$rounds"); do
  for code in none q8_0 q4_0; do
    generate -f "$work/prompt" --precision bf16 --quantize "$code" >>"$work/ours-$code-1"
  done
  for file in f16 q8_0 q4_0; do llama "$file" >>"$work/llama-$file-1"; done
  for type in bfloat16 float32; do
    transformers "$type" 1 >>"$work/transformers-$type-1"
    transformers "$type" 8 >>"$work/transformers-$type-8"
  done
  generate -f "$work/prompt" --precision fp32 >>"$work/ours-fp32-1"
  generate --prompt-lines "$work/prompts.jsonl" --batch 8 --precision fp32 >>"$work/ours-fp32-8"
  for code in none q8_0 q4_0; do
    generate --prompt-lines "$work/prompts.jsonl" --batch 8 --precision bf16 --quantize "$code" >>"$work/ours-$code-8"
  done
done
"$python" - "$work" <<'PYTHON'
import json, pathlib, statistics, sys

work = pathlib.Path(sys.argv[1])


def speed(name, key):
    rows = [json.loads(line) for line in (work / name).read_text().splitlines()]
    # Of prompts in a batch each tells the tokens of its own in the time of all.
    return statistics.median(sum(r[key] for r in row) if isinstance(row, list) else row[key] for row in rows)


def table(title, key, lines):
    print(f"{title:<44}{'ours':>9}{'peer':>9}{'ours / peer':>13}")
    for name, ours, peer in lines:
        print(f"{name:<44}{speed(ours, key):>9.1f}{speed(peer, key):>9.1f}{speed(ours, key) / speed(peer, key):>13.2f}")


PAIRS = [
    ("bf16 beside llama.cpp F16", "ours-none-1", "llama-f16-1"),
    ("q8_0 beside llama.cpp Q8_0", "ours-q8_0-1", "llama-q8_0-1"),
    ("q4_0 beside llama.cpp Q4_0", "ours-q4_0-1", "llama-q4_0-1"),
    ("bf16 beside transformers bf16", "ours-none-1", "transformers-bfloat16-1"),
    ("fp32 beside transformers fp32", "ours-fp32-1", "transformers-float32-1"),
]
BATCHES = [
    ("bf16 beside transformers bf16", "ours-none-8", "transformers-bfloat16-8"),
    ("fp32 beside transformers fp32", "ours-fp32-8", "transformers-float32-8"),
    ("q8_0 beside transformers bf16", "ours-q8_0-8", "transformers-bfloat16-8"),
    ("q4_0 beside transformers bf16", "ours-q4_0-8", "transformers-bfloat16-8"),
]
table("decoded tokens/s, one prompt", "tokens_per_second_decode", PAIRS)
table("decoded tokens/s, eight prompts", "tokens_per_second_decode", BATCHES)
table("prompt tokens/s, one prompt", "prompt_tokens_per_second", PAIRS)
PYTHON
