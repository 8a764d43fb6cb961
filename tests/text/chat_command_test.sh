#!/usr/bin/env bash
# chat_command_test.sh QIANLI: tokenizer chat as a user calls it.
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

printf 'hello there, user and assistant, hello again\n' > "$folder/text.txt"
"$qianli" tokenizer train "$folder/text.txt" --vocab-size 270 --output "$folder/model" \
  --special '<|im_start|>' --special '<|im_end|>' > /dev/null 2>&1
chat() { "$qianli" tokenizer chat "$folder/model" "$@"; }
echo '[{"role": "user", "content": "hello"}, {"role": "assistant", "content": "there"}]' > "$folder/messages.json"

# The folder has no template yet.
expect_exit 3 chat --messages "$folder/messages.json"
says "no chat template"
printf '%s\n' "{%- for m in messages %}" "<{{ m.role }}>{% generation %}{{ m.content }}{% endgeneration %}" "{% endfor %}" \
  "{%- if add_generation_prompt %}<assistant>{% endif %}{{ mood }}" > "$folder/model/chat_template.jinja"
expect "the model's own template" "$(chat --messages "$folder/messages.json" --add-generation-prompt --set mood=calm | head -1)" \
  "<user>hello<assistant>there<assistant>calm"
chat --messages "$folder/messages.json" --json > "$folder/own.json"
grep -qF '"assistant_ranges":[[6,11],[22,27]]' "$folder/own.json" || fail "ranges: $(cat "$folder/own.json")"
ids=$(chat --messages "$folder/messages.json" | tail -1)
expect "ids" "$("$qianli" tokenizer decode "$folder/model" --ids "$ids")" "<user>hello<assistant>there"

# A named one.
chat --messages "$folder/messages.json" --template chatml --json > "$folder/named.json"
grep -qF '"source":"<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n","target":"there<|im_end|>"' "$folder/named.json" ||
  fail "turns: $(cat "$folder/named.json")"
grep -qF '"labels":[-100' "$folder/named.json" || fail "no labels"
"$qianli" tokenizer chat --help > "$folder/help"
grep -q 'magistral' "$folder/help" || fail "help does not list the named templates"

expect_exit 2 chat --messages "$folder/messages.json" --template chatmll
says "did you mean 'chatml'"
expect_exit 3 chat --messages "$folder/messages.json" --template chatglm3
expect_exit 2 chat --messages "$folder/messages.json" --enable-thinking true
expect_exit 2 chat --messages "$folder/messages.json" --template chatml --set a=1
expect_exit 3 chat --messages "$folder/no-such-file"
printf '{%% for %%}' > "$folder/bad.jinja"
expect_exit 3 chat --messages "$folder/messages.json" --jinja "$folder/bad.jinja"
says "line 1 of $folder/bad.jinja"
printf '{{ raise_exception("only questions") }}' > "$folder/refusing.jinja"
expect_exit 3 chat --messages "$folder/messages.json" --jinja "$folder/refusing.jinja"
says "only questions"
echo "tokenizer chat: all as expected"
