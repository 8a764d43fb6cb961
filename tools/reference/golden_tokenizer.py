"""Goldens for tests/text: ids and decoded texts by the `tokenizers` library for small tokenizers.

usage: golden_tokenizer.py OUT

OUT (tests/golden/tokenizer) holds bytes.json, a byte-level BPE of about 300 tokens that `qianli tokenizer train` made
(it is read, not written here). Writes goldens.json: a list of {name, tokenizer, cases}, where `tokenizer` is a whole
tokenizer.json (small variants for every supported part) and a case holds text, ids with and without special tokens,
and the decoded text with and without them.
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer

from random_text import random_lines

TEXTS = [
    "",
    " ",
    "Hello world! It's 12345 tests.\n\n  indented",
    "  Leading\tspaces\r\n\u4f60\u597d\uff0c\u4e16\u754c \u3053\u3093\u306b\u3061\u306f \ufb01 e\u0301",
    "a\n\n\nb   c 1234567 $100.00",
    "\U0001f600\U0001f44d\U0001f3fd na\u00efve caf\u00e9 \uff21\uff22",
    "don't WE'LL 'S '\u017f n't",
    "x <s> y </s>z<b>w <b> <c>c<c>",
    "the ther there then",
    "\u00bd\u00b2 \u0661\u0662 1 22 333 4444",
]


def token(number, content, **flags):
    base = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    return {"id": number, "content": content, **base, **flags}


def with_added(base, *tokens):
    size = len(base["model"]["vocab"])
    number = max([size] + [t["id"] + 1 for t in base["added_tokens"]])
    added = [dict(t, id=number + i) for i, t in enumerate(tokens)]
    return {**base, "added_tokens": base["added_tokens"] + added}


def split(regex, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: regex}, "behavior": behavior, "invert": invert}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def byte_variants(base, regexes):
    for name, regex in regexes.items():
        yield name, {**base, "pre_tokenizer": sequence(split(regex), BYTE_LEVEL)}
    yield "gpt2", {**base, "pre_tokenizer": {**BYTE_LEVEL, "use_regex": True}}
    yield "prefix space", {**base, "pre_tokenizer": {**BYTE_LEVEL, "use_regex": True, "add_prefix_space": True}}
    digits = {"type": "Digits", "individual_digits": True}
    yield "digits", {**base, "pre_tokenizer": sequence(digits, {**BYTE_LEVEL, "use_regex": True})}
    together = {"type": "Digits", "individual_digits": False}
    yield "digits together", {**base, "pre_tokenizer": sequence(together, BYTE_LEVEL)}
    for step in ("Whitespace", "WhitespaceSplit"):
        yield step, {**base, "pre_tokenizer": sequence({"type": step}, BYTE_LEVEL)}
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            for kind, pattern in (("String", "e"), ("Regex", r"\p{L}\w|\s")):
                step = split(pattern, behavior, invert, kind)
                yield f"{kind} {behavior} {invert}", {**base, "pre_tokenizer": sequence(step, BYTE_LEVEL)}
    for form in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase"):
        yield form, {**base, "normalizer": {"type": form}}
    strip = {"type": "Strip", "strip_left": True, "strip_right": True}
    replace = {"type": "Replace", "pattern": {"Regex": r"[aeiou]+"}, "content": "_"}
    yield "strip, replace", {**base, "normalizer": {"type": "Sequence", "normalizers": [strip, replace]}}
    yield "ignore_merges", {**base, "model": {**base["model"], "ignore_merges": True}}
    merges = [" ".join(pair) for pair in base["model"]["merges"]]
    yield "merges as text", {**base, "model": {**base["model"], "merges": merges}}
    yield "added", with_added(
        base,
        token(0, "<s>"),
        token(0, "</s>", rstrip=True),
        token(0, "<b>", lstrip=True, rstrip=True),
        token(0, "the", single_word=True, special=False),
        token(0, "</s></s>", special=False),
    )
    lowercase = {**base, "normalizer": {"type": "Lowercase"}}
    yield "normalized added", with_added(lowercase, token(0, "Hello", normalized=True), token(0, "WORLD"))
    start = with_added(base, token(0, "<s>"), token(0, "<e>"))
    ids = {t["content"]: t["id"] for t in start["added_tokens"]}
    names = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in ("<s>", "<e>")}
    a = {"Sequence": {"id": "A", "type_id": 0}}
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, a, {"SpecialToken": {"id": "<e>", "type_id": 0}}]
    template = {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}]}
    template["special_tokens"] = names
    both = {"type": "Sequence", "processors": [base["post_processor"], template]}
    yield "template", {**start, "post_processor": both}
    roberta = {"type": "RobertaProcessing", "sep": ["<e>", ids["<e>"]], "cls": ["<s>", ids["<s>"]]}
    yield "roberta", {**start, "post_processor": {**roberta, "trim_offsets": True, "add_prefix_space": False}}


def sentencepiece_base():
    vocab = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    vocab += list("\u2581abcdefghijklmnopqrstuvwxyzHW") + ["\u4f60", "\u597d"]
    merges = ["\u2581 t", "h e", "\u2581t he", "\u2581the r", "\u2581 \u2581", "l l", "e ll", "o \u2581", "\u4f60 \u597d"]
    vocab += [merge.replace(" ", "") for merge in merges]
    prepend = {"type": "Prepend", "prepend": "\u2581"}
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    back = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None}
    model |= {"end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False}
    model |= {"vocab": {piece: i for i, piece in enumerate(vocab)}, "merges": merges}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [token(i, vocab[i]) for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [prepend, space]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]},
        "model": model,
    }


def without_bytes(model, unk, fuse):
    kept = [piece for piece in model["vocab"] if not piece.startswith("<0x")]
    flags = {"byte_fallback": False, "fuse_unk": fuse, "unk_token": unk}
    return {**model, **flags, "vocab": {piece: i for i, piece in enumerate(kept)}}


def sentencepiece_variants():
    base = sentencepiece_base()
    yield "byte fallback", base
    yield "unk fused", {**base, "model": without_bytes(base["model"], "<unk>", True)}
    yield "unk", {**base, "model": without_bytes(base["model"], "<unk>", False)}
    yield "no unk", {**base, "model": without_bytes(base["model"], None, False)}
    for scheme in ("always", "first", "never"):
        for cut in (True, False):
            space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut}
            yield f"metaspace {scheme} {cut}", {**base, "normalizer": None, "pre_tokenizer": space, "decoder": space}
    prefix = {"continuing_subword_prefix": "##", "end_of_word_suffix": "$"}
    pieces = ["<unk>", "<s>", "</s>", "a", "##b", "##c", "##b$", "##c$", "a$", "ab", "abc$", "##bc$"]
    merges = ["a ##b", "##b ##c$", "ab ##c$"]
    model = {**without_bytes(base["model"], "<unk>", False), **prefix, "merges": merges}
    model["vocab"] = {piece: i for i, piece in enumerate(pieces)}
    words = {"type": "WhitespaceSplit"}
    yield "prefix and suffix", {**base, "normalizer": None, "pre_tokenizer": words, "decoder": None, "model": model}


def cases(description, texts):
    tokenizer = Tokenizer.from_str(json.dumps(description))
    for text in texts:
        ids = tokenizer.encode(text).ids
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        case = {"text": text, "ids": ids}
        # Left out where they are what one expects.
        if plain != ids:
            case["plain_ids"] = plain
        for key, skip in (("decoded", False), ("decoded_skipping", True)):
            decoded = tokenizer.decode(ids, skip_special_tokens=skip)
            if decoded != text:
                case[key] = decoded
        yield case


def main():
    folder = Path(sys.argv[1])
    base = json.loads((folder / "bytes.json").read_text())
    regexes = json.loads((folder / "regexes.json").read_text())
    texts = TEXTS + random_lines(6, 7, ["<s>", "</s>", "<b>"]) + ["abc ab a bc xabc", "the\u2581ther " * 8]
    goldens = []
    for name, description in [*byte_variants(base, regexes), *sentencepiece_variants()]:
        # Only what differs from the base is stored.
        changed = {key: value for key, value in description.items() if value != base.get(key)}
        goldens.append({"name": name, "changed": changed, "cases": list(cases(description, texts))})
    (folder / "goldens.json").write_text(json.dumps(goldens, ensure_ascii=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
