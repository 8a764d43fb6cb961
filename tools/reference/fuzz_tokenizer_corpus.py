"""Inputs from which fuzzing of the tokenizer files starts, out of the golden tokenizers.

usage: fuzz_tokenizer_corpus.py tests/golden/tokenizer/files tests/fuzz/corpus
"""

import json
import sys
from pathlib import Path

TEXT = "Hello na\u00efve  <s> th\u2581e \u4f60\u597d \U0001f600 e\u0301 12 don't\n".encode()


def main():
    golden, corpus = Path(sys.argv[1]), Path(sys.argv[2])

    def write(target, name, data):
        (corpus / target).mkdir(exist_ok=True)
        (corpus / target / name).write_bytes(data)

    for folder in sorted(golden.iterdir()):
        model = folder / "tokenizer.model"
        if model.exists():
            write("sentencepiece", folder.name, model.read_bytes() + b"\ntext:\n\n" + TEXT)
        if (folder / "tokenizer.json").exists() and folder.name in {"bert", "albert", "unigram_bytes", "falcon", "clip", "words_contiguous"}:
            write("tokenizer", folder.name, (folder / "tokenizer.json").read_bytes() + b"\0" + TEXT)
    ranks = (golden / "tiktoken_qwen" / "qwen.tiktoken").read_bytes().split(b"\n")
    write("ranks", "all", b"\n".join(ranks) + b"\0" + TEXT)
    write("ranks", "behind_bytes", b"\n".join(ranks[256:300]) + b"\n\0" + TEXT)
    write("ranks", "gap", b"YWI= 300\nYWJj 256\r\n\nYWJjZA== 70000\n\0abcd")
    write("ranks", "huge", b"YQ== 16777215\n\0a")
    write("ranks", "not_base64", b"!! 1\n")
    write("ranks", "twice", b"YWI= 256\nYWI= 257\n\0ab")
    entries = [{"rank": i, "token_bytes": line.split(b" ")[0].decode()} for i, line in enumerate(ranks[:280])]
    settings = {"pattern": "\\p{L}+|.", "default_vocab_size": 290, "default_num_special_tokens": 12}
    special = [{"rank": 1, "token_str": "<s>"}, {"rank": 2, "token_str": "</s>"}]
    tekken = {"config": settings, "vocab": entries, "special_tokens": special}
    write("ranks", "tekken", json.dumps(tekken).encode() + b"\0" + TEXT)
    model = json.loads((golden / "falcon" / "tokenizer.json").read_text())["model"]
    merges = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"][:40])
    vocab = json.dumps(model["vocab"]).encode()
    write("vocab_files", "gpt2", vocab + b"\0" + merges.encode() + b"\0" + TEXT)
    write("vocab_files", "three_in_a_line", vocab[:2000] + b"\0a b c\n\0abc")
    write("vocab_files", "small", b'{"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}\0a b\r\n\nb b\n\0abab<|endoftext|>')
    write("vocab_files", "not_there", b'{"a": 0}\0a b\n\0ab')
    words = json.loads((golden / "bert" / "tokenizer.json").read_text())["model"]["vocab"]
    write("vocab_files", "bert", "\n".join(words).encode() + b"\n\0\0" + TEXT)
    write("vocab_files", "bert_small", b"[UNK]\r\n[CLS]\n[SEP]\na\n##b\n\n##\xff\0\0ab \xff b")
    zero = b"\x0a\x07\x0a\x05<unk>"
    write("sentencepiece", "no_unknown", zero)
    write("sentencepiece", "cut", model_bytes(golden)[:700])
    write("sentencepiece", "charsmap_small", b"\x0a\x09\x0a\x05<unk>\x18\x02\x1a\x0e\x12\x0c\x08\0\0\0\0\x04\0\0\xff\xff\xff\xff\x0a\x05\x0a\x01a\x18\x05")


def model_bytes(golden):
    return (golden / "sp_bpe" / "tokenizer.model").read_bytes()


if __name__ == "__main__":
    main()
