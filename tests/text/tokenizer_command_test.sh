#!/usr/bin/env bash
# tokenizer_command_test.sh QIANLI: train, encode, decode and inspect as a user calls them.
set -euo pipefail
qianli=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() { echo "FAILED: $1"; exit 1; }
# expect WHAT ACTUAL EXPECTED
expect() { [ "$2" == "$3" ] || fail "$1: got '$2', expected '$3'"; }
# expect_exit CODE COMMAND...
expect_exit() {
  local code=$1 actual=0
  shift
  "$@" > "$folder/out" 2> "$folder/err" || actual=$?
  expect "exit code of $*" "$actual" "$code"
}

printf 'the cat and the hat and that cat\n\nna\xc3\xafve caf\xc3\xa9 <|endoftext|> 12\n' > "$folder/text.txt"
"$qianli" tokenizer train "$folder/text.txt" --vocab-size 262 --output "$folder/model" > /dev/null 2>&1

# One entry a line, and back again.
"$qianli" tokenizer encode "$folder/model" --input "$folder/text.txt" --json > "$folder/ids.json"
expect "lines" "$(grep -c '' "$folder/ids.json")" 3
"$qianli" tokenizer decode "$folder/model" --input "$folder/ids.json" > "$folder/back.txt"
cmp "$folder/text.txt" "$folder/back.txt" || fail "decode does not give the text back"
"$qianli" tokenizer encode "$folder/model" --input "$folder/text.txt" > "$folder/ids.txt"
"$qianli" tokenizer decode "$folder/model" --input "$folder/ids.txt" > "$folder/back.txt"
cmp "$folder/text.txt" "$folder/back.txt" || fail "decode of lines does not give the text back"
expect "skipping" "$("$qianli" tokenizer decode "$folder/model" --ids '[0, 65]' --skip-special-tokens --json)" '"a"'

# The text of JSON lines is the line's text; one text is one list.
printf '{"text": "the cat"}\n{"text": "a\\nb"}\n' > "$folder/lines.jsonl"
expect "jsonl" "$("$qianli" tokenizer encode "$folder/model" --input "$folder/lines.jsonl" --jsonl --json | tail -1)" \
  "$("$qianli" tokenizer encode "$folder/model" --text $'a\nb' --json)]"
"$qianli" tokenizer inspect "$folder/model" --text 'the cat' > "$folder/inspect.txt"
grep -q '^\[th\]\[e\]\[ c\]\[at\]' "$folder/inspect.txt" || fail "inspect shows no pieces"
"$qianli" tokenizer inspect "$folder/model" --json > "$folder/inspect.json"
grep -q '"vocab_size": 262' "$folder/inspect.json" || fail "inspect --json"

expect_exit 2 "$qianli" tokenizer encode "$folder/model"
expect_exit 2 "$qianli" tokenizer encode "$folder/model" --text a --inptu b
expect_exit 2 "$qianli" tokenizer train "$folder/text.txt" --vocab-size 100 --output "$folder/small"
expect_exit 3 "$qianli" tokenizer encode "$folder/no-such-model" --text a
expect_exit 3 "$qianli" tokenizer decode "$folder/model" --ids "1 x"
grep -q "Hint\|expected" "$folder/err" || fail "no message for bad ids"
echo "tokenizer commands: all as expected"
