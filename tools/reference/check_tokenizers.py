"""Compares `qianli tokenizer encode` and `decode` with the `tokenizers` library on files and on random Unicode.

usage: check_tokenizers.py QIANLI MODEL... [--data DIR] [--random N] [--seed S] [--max-bytes N]

QIANLI is the program, MODEL a folder with tokenizer.json or tokenizer.json.gz (or such a file). Every text file under
DIR (.txt .json .jsonl .csv .py .md, gzip too) is compared line by line and as one text; then N random lines, and lines
of random bytes, which the library gets decoded with U+FFFD for what is not UTF-8. Prints every kind of mismatch with
the shortest line that shows it, and exits with 1 if there is one.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer

from random_text import random_bytes_lines, random_lines

TEXT_SUFFIXES = {".txt", ".json", ".jsonl", ".csv", ".md", ".py"}


def unpacked(path):
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def load_reference(model):
    path = Path(model)
    if path.is_dir():
        path = path / "tokenizer.json" if (path / "tokenizer.json").exists() else path / "tokenizer.json.gz"
    return Tokenizer.from_str(unpacked(path).decode())


def text_files(root):
    for path in sorted(Path(root).rglob("*")):
        suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
        if path.is_file() and suffix in TEXT_SUFFIXES and not path.name.startswith("tokenizer"):
            yield path


def run(arguments):
    result = subprocess.run(arguments, capture_output=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, arguments))}: {result.stderr.decode(errors='replace')}")
    return json.loads(result.stdout)


class Checker:
    def __init__(self, program, model, folder):
        self.program, self.model, self.folder = program, model, Path(folder)
        self.reference = load_reference(model)
        self.mismatches = 0
        self.texts = self.bytes = self.tokens = 0

    def report(self, what, name, text, ours, theirs):
        self.mismatches += 1
        if self.mismatches <= 20:
            print(f"MISMATCH {what} {name}: {text[:200]!r}\n  qianli     {ours[:40]}\n  tokenizers {theirs[:40]}")

    def encode(self, name, data, flag):
        """`data` is a list of byte strings without newlines; with flag --jsonl they travel as JSON."""
        source = self.folder / "input"
        texts = [item.decode("utf-8", errors="replace") for item in data]
        if flag == "--jsonl":
            source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        else:
            source.write_bytes(b"".join(item + b"\n" for item in data))
        command = [self.program, "tokenizer", "encode", self.model, "--input", source, "--json"]
        ours = run(command + ([flag] if flag else []))
        theirs = [encoding.ids for encoding in self.reference.encode_batch_fast(texts)]
        assert len(ours) == len(texts), (name, len(ours), len(texts))
        for text, a, b in zip(texts, ours, theirs):
            if a != b:
                at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
                self.report("encode", f"{name} token {at}", text, a[max(0, at - 2) :], b[max(0, at - 2) :])
        self.texts += len(texts)
        self.bytes += sum(map(len, data))
        self.tokens += sum(map(len, theirs))
        return theirs

    def decode(self, name, lists):
        source = self.folder / "ids"
        source.write_text(json.dumps(lists) if lists else "")
        for skip in (False, True):
            command = [self.program, "tokenizer", "decode", self.model, "--input", source, "--json"]
            ours = run(command + (["--skip-special-tokens"] if skip else []))
            theirs = self.reference.decode_batch(lists, skip_special_tokens=skip)
            for ids, a, b in zip(lists, ours, theirs):
                if a != b:
                    self.report("decode", f"{name} skip={skip} {ids[:20]}", "", a, b)


def check(checker, arguments):
    for path in text_files(arguments.data) if arguments.data else []:
        data = unpacked(path)[: arguments.max_bytes]
        checker.decode(path.name, checker.encode(path.name, data.split(b"\n"), None)[:2000])
        checker.encode(f"{path.name} as one text", [data], "--jsonl")
    if arguments.random:
        contents = [token.content for token in checker.reference.get_added_tokens_decoder().values()]
        lines = random_lines(arguments.random, arguments.seed, contents)
        encoded = checker.encode("random", [line.encode() for line in lines], "--jsonl")
        checker.decode("random", encoded)
        size = checker.reference.get_vocab_size()
        mixed = [[(i * 7919 + j * j * 104729 + i * j) % size for j in range(i % 40)] for i in range(2000)]
        checker.decode("arbitrary ids", mixed)
        checker.encode("random bytes", random_bytes_lines(arguments.random // 4, arguments.seed), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data")
    parser.add_argument("--random", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-bytes", type=int, default=1 << 24)
    arguments = parser.parse_args()
    failed = False
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            checker = Checker(arguments.program, model, folder)
            check(checker, arguments)
        print(
            f"{model}: {checker.texts} texts, {checker.bytes} bytes, {checker.tokens} tokens, "
            f"{checker.mismatches} mismatches",
            flush=True,
        )
        failed |= checker.mismatches > 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
