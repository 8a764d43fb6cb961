#!/usr/bin/env bash
# instruction_command_test.sh QIANLI: data prepare and inspect of instruction data, as a user calls them.
set -euo pipefail
qianli=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() { echo "FAILED: $1"; exit 1; }
expect() { [ "$2" == "$3" ] || fail "$1: got '$2', expected '$3'"; }
# expect_exit CODE COMMAND...
expect_exit() {
  local code=$1 actual=0
  shift
  "$@" > "$folder/out" 2> "$folder/err" || actual=$?
  expect "exit code of $*" "$actual" "$code"
}
says() { grep -qF -- "$1" "$folder/err" || fail "no '$1' in: $(cat "$folder/err")"; }
shows() { grep -qF -- "$1" "$folder/out" || fail "no '$1' in: $(cat "$folder/out")"; }

printf 'hello there, user and assistant, hello again\n' > "$folder/text.txt"
"$qianli" tokenizer train "$folder/text.txt" --vocab-size 270 --output "$folder/model" \
  --special '<|im_start|>' --special '<|im_end|>' > /dev/null 2>&1
for i in $(seq 1 400); do
  echo "{\"instruction\": \"hello $i\", \"input\": \"\", \"output\": \"there\"}"
done > "$folder/rows.jsonl"
printf '{"instruction": "hello"}\n{"instruction"\n' >> "$folder/rows.jsonl"
prepare() { "$qianli" data prepare "$folder/rows.jsonl" --tokenizer "$folder/model" --output "$folder/$1" "${@:2}"; }
inspect() { "$qianli" data inspect "$@" --tokenizer "$folder/model"; }

# Look at the rows.
expect_exit 0 inspect "$folder/rows.jsonl" --template chatml --sample 1
says "rows look like the format alpaca, used for sft"
shows "402 rows looked at: 400 samples, 2 bad rows"
shows "[<|im_start|>user"
shows "]there<|im_end|>"
expect_exit 0 inspect "$folder/rows.jsonl" --template chatml --rows 3 --json
shows '"samples":3'
expect_exit 3 inspect "$folder/rows.jsonl" --template chatml --sample 400
says "expected a sample in [0, 400), got 400"

# Prepare: rows that cannot be used are told by file and line.
expect_exit 0 prepare one --template chatml --workers 1
says "2 of 402 rows could not be used"
says "rows.jsonl:401: expected the column 'output', got 'instruction'"
says "rows.jsonl:402: "
shows "400 samples of 402 rows"
expect_exit 3 prepare strict --template chatml --bad-rows fail
says "rows.jsonl:401: expected the column 'output'"
expect_exit 0 prepare two --template chatml --workers 2 --json
shows '"bad_rows":2'
for field in input_ids attention_mask labels; do
  for end in bin idx; do
    cmp "$folder/one_packed_${field}_document.$end" "$folder/two_packed_${field}_document.$end" || fail "$field.$end"
  done
done
expect_exit 0 inspect "$folder/one" --sample 399
shows "sample 399 of 400"
shows "]there<|im_end|>"

# Groups of rows make no difference where nothing is packed.
expect_exit 0 prepare four --template chatml --n-subs 4 --workers 8
for field in input_ids attention_mask labels; do
  for end in bin idx; do
    cmp "$folder/one_packed_${field}_document.$end" "$folder/four_packed_${field}_document.$end" || fail "$field.$end"
  done
done

# The same is not made twice, and other data are not replaced unasked.
expect_exit 0 prepare one --template chatml
says "is there already, made from the same"
expect_exit 3 prepare one --template chatml --mask-history
says "say --overwrite"
expect_exit 0 prepare one --template chatml --mask-history --overwrite

# Packs.
expect_exit 0 prepare packed --template chatml --seq-length 128 --pack --neat-pack
shows "of 128 tokens"
expect_exit 0 inspect "$folder/packed"
shows "──── sample 2"
shows "tokens of padding"

# Parts merged are the parts together.
mkdir "$folder/parts"
head -200 "$folder/rows.jsonl" > "$folder/a.jsonl"
tail -n +201 "$folder/rows.jsonl" > "$folder/b.jsonl"
for part in a b; do
  "$qianli" data prepare "$folder/$part.jsonl" --tokenizer "$folder/model" --template chatml \
    --output "$folder/parts/$part" > /dev/null 2>&1
done
keys="packed_input_ids_document packed_attention_mask_document packed_labels_document"
expect_exit 0 "$qianli" data prepare "$folder/parts" --merge-group-keys $keys --output "$folder/merged"
shows "400 sequences of 2 parts"
for key in $keys; do
  for end in bin idx; do cmp "$folder/merged_$key.$end" "$folder/two_$key.$end" || fail "merged $key.$end"; done
done
rm "$folder/parts/b_packed_labels_document.idx"
expect_exit 3 "$qianli" data prepare "$folder/parts" --merge-group-keys $keys --output "$folder/merged"
says "expected both"

# Data sets under names.
mkdir "$folder/sets"
head -4 "$folder/rows.jsonl" > "$folder/sets/a.jsonl"
echo '{"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "again"}]}' > "$folder/sets/b.jsonl"
echo '{"a": {"file_name": "a.jsonl"}, "b": {"file_name": "b.jsonl", "formatting": "sharegpt"}}' > "$folder/sets/dataset_info.json"
named() {
  "$qianli" data prepare "$1" --handler-name LlamaFactoryInstructionHandler --dataset-dir "$folder/sets" \
    --template chatml --tokenizer "$folder/model" --output "$folder/$2" "${@:3}"
}
expect_exit 0 named a,b concat
shows "5 samples of 5 rows"
expect_exit 0 named b,a over --mix-strategy interleave_over
shows "8 samples of 5 rows"
expect_exit 0 inspect "$folder/over" --sample 6
shows "]again<|im_end|>"
expect_exit 0 named a,b drawn --mix-strategy interleave_under --interleave-probs 0.5,0.5 --max-samples 2 --seed 7
expect_exit 0 "$qianli" data inspect a,b --handler-name LlamaFactoryInstructionHandler --dataset-dir "$folder/sets" \
  --template chatml --tokenizer "$folder/model" --sample 4
shows "]again<|im_end|>"
expect_exit 2 named a,c x
says "expected a data set of this list, got 'c'"
expect_exit 2 named a,b x --mix-strategy interleave_under --interleave-probs 0.5,0.6
says "the sum 1, got the sum 1.1"
expect_exit 2 named a,b x --interleave-probs 0.5,0.5
says "expected probabilities with --mix-strategy"

# A template of one's own.
cat > "$folder/mine.json" <<'JSON'
[{"name": "mine", "format_user": {"slots": ["hello {{content}} again "]}, "format_assistant": {"slots": ["{{content}}"]}}]
JSON
expect_exit 0 inspect "$folder/rows.jsonl" --prompt-type mine --prompt-type-path "$folder/mine.json"
shows "[hello hello 1 again ]there"
expect_exit 0 prepare own --template "$folder/mine.json:mine"
expect_exit 2 prepare x --template "$folder/mine.json:min"
says "did you mean 'mine'?"

# Handlers of old, and those of text.
echo '{"instruction": "Human: hello Assistant: there Human: again Assistant:", "output": "hello"}' > "$folder/belle.jsonl"
expect_exit 0 inspect "$folder/belle.jsonl" --handler-name BelleMultiTurnInstructionHandler
shows "### Instruction:"
shows "]hello"
expect_exit 2 inspect "$folder/belle.jsonl" --handler-name BelleMultiTurnInstructionHandler --template chatml
says "expected no chat template with the handler BelleMultiTurnInstructionHandler"
head -5 "$folder/rows.jsonl" > "$folder/five.jsonl"
pretrain() { "$qianli" data prepare "$folder/$1" --tokenizer "$folder/model" --output "$folder/$2" "${@:3}"; }
expect_exit 0 pretrain five.jsonl five --handler-name AlpacaPretrainHandler --append-eod
shows "5 documents"
expect_exit 0 pretrain five.jsonl keys --handler-name GeneralPretrainHandler --json-keys instruction output
shows "keys_instruction_document"
shows "keys_output_document"
printf 'one\ntwo\n' > "$folder/lines.txt"
expect_exit 0 pretrain lines.txt lines --handler-name GeneralPretrainHandler
shows "2 documents"
expect_exit 2 pretrain five.jsonl x --handler-name GeneralPretrainHandler --pack
says "expected --pack with instruction data only"

# What does not fit is said with a way out.
expect_exit 2 prepare x --format alpaca
says "expected a chat template"
expect_exit 2 prepare x --mask-history
says "expected --mask-history with instruction data only"
expect_exit 2 prepare x --template chatml --key instruction
says "--map-keys names the columns"
expect_exit 2 prepare x --template chatm
says "did you mean 'chatml'?"
expect_exit 2 prepare x --template chatml --handler-name AlpacaStyleInstructionHandle
says "did you mean 'AlpacaStyleInstructionHandler'?"
expect_exit 2 prepare x --template chatml --neat-pack --seq-length 128
says "expected --neat-pack with --pack"
expect_exit 2 prepare x --template chatml --pack
says "expected --seq-length with --pack"
expect_exit 3 prepare x --template chatml --map-keys '{"response": "outptu"}'
says "expected the column 'outptu' of the map of keys, got 'input', 'instruction', 'output' (did you mean 'output'?)"
expect_exit 3 prepare x --template llama3
says "choose the template that belongs to this model"
expect_exit 3 prepare x --template model
says "the model's folder has no chat template"
[ -z "$(ls "$folder" | grep '^x' || true)" ] || fail "files of refused work: $(ls "$folder")"
