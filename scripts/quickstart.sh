#!/usr/bin/env bash
# From nothing to a language model of one's own in about three minutes of training: builds Qianli, trains
# a tokenizer and a small model, shows what the model writes before and after. Ctrl-C stops; the same command goes on.
#
#   scripts/quickstart.sh [TEXT_FILE]   plain UTF-8 text; default: the King James Bible, a Debian package
#
#   QIANLI               a ready program instead of building one
#   QUICKSTART_DIR       where everything goes     (default runs/quickstart, or runs/quickstart-NAME for NAME.txt)
#   QUICKSTART_SECONDS   how long to train                                                         (default 155)
#   Further settings are those of scripts/setup.sh.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
text=${1:-}
config=$root/examples/quickstart.yaml
vocabulary=2048
training_seconds=${QUICKSTART_SECONDS:-155}  # of steps; start-up, validation and saving come on top
limit_seconds=$((training_seconds + 21))     # of the whole training, even where the machine slows down

say() { printf '%s\n' "$*" >&2; }
title() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }
[ -t 2 ] || title() { printf '\n%s\n' "$*" >&2; }
fail() { say "[quickstart] $2"; exit "$1"; }

case $text in -h|--help) sed -n '2,10s/^#\( \|$\)//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
[ $# -le 1 ] || fail 2 "expected one text file, got $# arguments."

check_text() {
  [ -f "$text" ] || fail 3 "expected a text file, got '$text': there is no such file."
  bytes=$(stat -Lc %s "$text")
  [ "$bytes" -ge 50000 ] ||
    fail 3 "expected at least 50 kB of text to learn from, got $bytes bytes in $text. Hint: join several texts with cat."
  if ! iconv -f UTF-8 -t UTF-8 "$text" >/dev/null 2>&1 || ! tr -d '\000' <"$text" | cmp -s - "$text"; then
    fail 3 "expected plain text in UTF-8, got something else in $text. Hint: extract the text first, or iconv -f LATIN1 -t UTF-8 '$text' >new.txt"
  fi
}

if [ -n "$text" ]; then
  check_text
  text=$(realpath "$text")
  name=$(basename "$text"); name=quickstart-${name%.*}
else
  name=quickstart
fi
run=${QUICKSTART_DIR:-runs/$name}
again="scripts/quickstart.sh${text:+ $(printf %q "$text")}"
cd "$root"
qianli=${QIANLI:-${QIANLI_BUILD:-build}/bin/qianli}

stopped() { say ""; say "Stopped; nothing is lost. To go on: $again"; exit "$1"; }
trap 'stopped 130' INT
trap 'stopped 143' TERM

build() {
  [ -n "${QIANLI:-}" ] && return
  local packages=()
  [ -n "$text" ] || packages=(bible-kjv bible-kjv-text)
  title "Building Qianli"
  scripts/setup.sh "${packages[@]}"
  mkdir -p "$run"
  say "Compiling (minutes the first time; output in $run/build.log)"
  scripts/build.sh >"$run/build.log" 2>&1 qianli || { tail -n 30 "$run/build.log" >&2; exit 1; }
}

# Documents end with a form feed; every fortieth is kept back for validation.
documents() {
  if [ -z "$text" ]; then
    PATH="$PATH:/usr/games" bible -f gen1:1-rev22:21 | awk -f scripts/bible.awk
  else  # cut at blank lines, or at any line where none comes, into about 200 pieces
    tr -d '\r\f' <"$text" | LC_ALL=C awk -v size="$((bytes / 200 + 200))" '
      { print; bytes += length() + 1 }
      bytes > size && (/^[ \t]*$/ || bytes > 4 * size) { printf "\f"; bytes = 0 }'
  fi
}

quietly() { "$@" >"$run/step.log" 2>&1 || { local code=$?; cat "$run/step.log" >&2; exit $code; }; }

prepare() {
  local corpus=$run/corpus part source=King_James
  [ -z "$text" ] || source="$text, $bytes bytes"
  if [ -f "$corpus/source" ]; then
    [ "$(cat "$corpus/source")" = "$source" ] ||
      fail 2 "expected $run to come from $source, got $(cat "$corpus/source"). Hint: rm -r $run, or choose another QUICKSTART_DIR."
    return 0
  fi
  title "Preparing the text"
  rm -rf "$corpus"
  mkdir -p "$corpus"
  documents >"$corpus/text.txt"
  [ "$(wc -c <"$corpus/text.txt")" -ge 40000 ] || fail 3 "expected the text of the Bible, got little or nothing from 'bible -f gen1:1'."
  awk -v train="$corpus/train.txt" -v valid="$corpus/valid.txt" \
    'BEGIN { RS = ORS = "\f" } { print >(NR % 40 == 20 ? valid : train) }' "$corpus/text.txt"
  [ -s "$corpus/valid.txt" ] || fail 3 "expected text in lines, got one long line in $text. Hint: fold -s '$text' >new.txt"
  quietly "$qianli" tokenizer train "$corpus/train.txt" --vocab-size "$vocabulary" --output "$corpus/tokenizer"
  for part in train valid; do
    quietly "$qianli" data prepare "$corpus/$part.txt" --separator $'\f' --tokenizer "$corpus/tokenizer" --output "$corpus/$part"
  done
  echo "$source" >"$corpus/source"
  local tokens
  tokens=$(($(stat -c %s "$corpus/train_text_document.bin") / 2))
  say "$(($(stat -c %s "$corpus/text.txt") / 1000)) kB of text, $tokens tokens"
}

settings() {
  printf '%s\n' data.path="$run/corpus/train_text_document" data.validation_path="$run/corpus/valid_text_document" \
    data.tokenizer="$run/corpus/tokenizer"
}

number() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$run/fresh/metrics.jsonl"; }

# A few steps with a learning rate of 0 leave a checkpoint of the fresh weights and tell the speed.
probe() {
  [ -f "$run/steps" ] && [ -f "$run/fresh/hugging_face/config.json" ] && return
  title "Measuring this machine"
  rm -rf "$run/fresh"
  quietly "$qianli" pretrain "$config" "${set[@]}" run.dir="$run/fresh" train.steps=12 train.eval_every=0 \
    optim.lr=0 optim.warmup_steps=0 checkpoint.every=0 checkpoint.hugging_face=true log.report=false log.tensorboard=false
  local speed per_step tokens steps most
  # The middle one of the last nine speeds, in whole tokens a second.
  speed=$(number tokens_per_second | tail -n 9 | sort -n | sed -n 5p)
  per_step=$(number tokens | head -n 1)
  tokens=$(($(stat -c %s "$run/corpus/train_text_document.bin") / 2))
  steps=$((speed * training_seconds / per_step))
  most=$((tokens * 6 / per_step))                    # no more than six times through the text,
  [ "$most" -lt 300 ] && most=300                    # but of a short one enough to learn to write
  [ "$steps" -gt "$most" ] && steps=$most
  [ "$steps" -lt 40 ] && steps=40
  rm -rf "$run/fresh/checkpoints"
  echo "$steps" >"$run/steps"
  say "$speed tokens/s: $steps steps of $per_step tokens"
}

sample() {
  local prompt
  for prompt in "${prompts[@]}"; do
    "$qianli" generate "$1" --prompt "$prompt" -n 70 --temperature 0.7 --top-p 0.9 --seed 7 2>"$run/step.log" |
      sed 's/^/  │ /' >&2 || { cat "$run/step.log" >&2; exit 1; }
    say ""
  done
}

# Nats per byte of validation text: comparable between tokenizers.
loss_per_byte() {
  sed -n 's/.*"step": *\([0-9]*\),.*"validation_loss": *\([0-9.]*\).*/\1 \2/p' "$run/metrics.jsonl" | tail -n 1 |
    awk -v tokens="$(($(stat -c %s "$run/corpus/valid_text_document.bin") / 2))" \
      -v bytes="$(stat -c %s "$run/corpus/valid.txt")" '{ printf "%.3f nats per byte after %d steps", $2 * tokens / bytes, $1 }'
}

train() {
  local steps code=0 warmup
  steps=$(cat "$run/steps")
  warmup=$((steps / 20 > 2 ? steps / 20 : 2))
  title "Training: $steps steps, $limit_seconds seconds at most"
  # In the foreground, so that Ctrl-C reaches it once; a watchdog sends the same signal when time is over.
  (sleep "$limit_seconds" & trap 'kill $!' TERM; wait $! && kill -INT "$(cat "$run/pid")") >/dev/null 2>&1 &
  watchdog=$!
  trap 'kill "$watchdog" 2>/dev/null || true' EXIT
  bash -c 'echo $$ >"$1"; shift; exec "$@"' - "$run/pid" "$qianli" pretrain "$config" "${set[@]}" run.dir="$run" \
    train.steps="$steps" optim.warmup_steps="$warmup" train.eval_every="$((steps / 4))" log.every="$((steps / 12))" || code=$?
  kill "$watchdog" 2>/dev/null || true
  case $code in
    0) ;;
    75) say "The machine became slower: time is over before the last step. To train the rest: $again" ;;
    *) exit "$code" ;;
  esac
}

choose_prompts() {
  if [ -z "$text" ]; then
    prompts=("And the LORD said unto Moses," $'Psalm 151\n\n')
  else  # beginnings of lines that the model has not seen
    mapfile -t prompts < <(tr '\f' '\n' <"$run/corpus/valid.txt" |
      awk 'NF > 6 && ++n % 5 == 3 { print $1, $2, $3, $4; if (++shown == 2) exit }')
    [ ${#prompts[@]} -gt 0 ] || prompts=("The")
  fi
}

build
mkdir -p "$run"
model=$run/hugging_face
mapfile -t set < <(settings)
prepare
choose_prompts
if [ -f "$model/config.json" ]; then
  say "Already trained, in $run. To start over: rm -r $run"
else
  probe
  title "Before training it writes"
  sample "$run/fresh/hugging_face"
  train
  [ -f "$model/config.json" ] || model=$(find "$run/checkpoints" -maxdepth 1 -name 'step_*' | sort -V | tail -n 1)
fi
title "After training it writes"
sample "$model"

longer=$(($(cat "$run/steps") * 3))
say "Validation loss     $(loss_per_byte)
Its own words       $qianli generate $model --temperature 0.7 --top-p 0.9 --prompt 'In the beginning'
Curves and speed    open $run/report.html in a browser
Train on, longer    $qianli pretrain $run/config.yaml train.steps=$longer optim.decay_steps=$longer
Your own text       scripts/quickstart.sh FILE.txt
Every setting       examples/quickstart.yaml, docs/config.md, $qianli config explain optim.lr"
