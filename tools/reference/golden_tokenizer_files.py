"""Goldens for tests/text: small tokenizers of every kind, and what the original libraries make of texts with them.

usage: golden_tokenizer_files.py OUT [CORPUS...]

OUT is tests/golden/tokenizer/files; CORPUS are text files to train on (small_tokenizers.py). OUT/NAME holds the
tokenizer's files and cases.json: a list of {text, ids, plain_ids, decoded, decoded_skipping}, ids with and without
special tokens, texts decoded with them and without. What a library does not do is left out. Beside SentencePiece's Unigram
models lies long.json: how many ids all these texts make, joined by spaces and written `times` times in a row, and the
FNV-1a of the ids. Without a corpus the models and cases stay, and long.json is written for them.
"""

import json
import shutil
import sys
from pathlib import Path

from check_tokenizers import SentencePieceReference, TiktokenReference, TokenizersReference, load_reference
from golden_tokenizer import TEXTS
from random_text import random_lines
from small_tokenizers import Trainer, all_kinds

MORE = [
    "Caf\u00e9 na\u00efve \u00c5ngstr\u00f6m e\u0301a\u0308o\u0323 \uff21\uff22\u3000\u304b\u3099 \ufb01\ufb02 \u2460\u2461",
    "  spaces   and\ttabs\r\nlines\n\nend  ",
    "abc th\u2581e<sep> \u4f60\u4f60 <ctl> <unk> <0x41> [MASK] [UNK] don't do not you're . ? ! n't",
    "\u00e9" * 3 + "\U0001f600\U0001f44d\U0001f3fd" + "\u1100\u1161\u11a8 \u0915\u094d\u0937 \u00aa\u0301 \ufb01\u0301",
    "the and you that have with this from they 1 22 333 4444 3.14 \u00bd\u00b2",
    "\x00\x01\x7f\u00ad\u200b\u200d\u2028\ufeff\ufffd end",
    "trailing newline \n  ",
]


def cases(reference, texts):
    if isinstance(reference, TokenizersReference):
        lists = [encoding.ids for encoding in reference.tokenizer.encode_batch(texts)]
        plain = [encoding.ids for encoding in reference.tokenizer.encode_batch(texts, add_special_tokens=False)]
    else:
        lists = plain = reference.encode(texts)
    decoded = {skip: reference.decode(lists, skip) for skip in reference.skips}
    for i, text in enumerate(texts):
        case = {"text": text}
        if isinstance(reference, TokenizersReference):
            case["ids"] = lists[i]
        case["plain_ids"] = plain[i]
        if False in decoded:
            case["decoded"] = decoded[False][i]
        if True in decoded:
            case["decoded_skipping"] = decoded[True][i]
        yield case


def fnv1a(ids):
    value = 0xCBF29CE484222325
    for number in ids:
        value = ((value ^ number) * 0x100000001B3) % 2**64
    return value


def write_long(folder, reference):
    """Where SentencePiece's sums of scores leave what floats can tell apart."""
    texts = [case["text"] for case in json.loads((folder / "cases.json").read_text())]
    times = 400
    ids = reference.encode([" ".join(texts) * times])[0]
    (folder / "long.json").write_text(json.dumps({"times": times, "count": len(ids), "fnv1a": f"{fnv1a(ids):016x}"}) + "\n")


def main():
    out, corpus = Path(sys.argv[1]), sys.argv[2:]
    if not corpus:
        for folder in sorted(out.glob("sp_unigram*")):
            write_long(folder, load_reference(folder))
        return
    for name, files in all_kinds(Trainer(corpus, 400, full_charsmap=False)):
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file, content in files.items():
            if file.endswith(".json"):
                content = json.dumps(json.loads(content), ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
            (folder / file).write_bytes(content)
        reference = load_reference(folder)
        assert isinstance(reference, (TokenizersReference, SentencePieceReference, TiktokenReference))
        texts = TEXTS + MORE + random_lines(6, 7, reference.contents[:5])
        lines = [json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in cases(reference, texts)]
        (folder / "cases.json").write_text("[" + ",\n".join(lines) + "]\n")
        if name.startswith("sp_unigram"):
            write_long(folder, reference)
        print(name, sum(path.stat().st_size for path in folder.iterdir()), flush=True)


if __name__ == "__main__":
    main()
