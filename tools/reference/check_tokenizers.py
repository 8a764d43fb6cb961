"""Compares `qianli tokenizer encode` and `decode` with the original libraries on files and on random Unicode.

usage: check_tokenizers.py QIANLI MODEL... [--data DIR] [--random N] [--seed S] [--max-bytes N]

QIANLI is the program, MODEL a folder with tokenizer.json or tokenizer.json.gz (or such a file), compared with
`tokenizers`; with tokenizer.model, compared with `sentencepiece`; or with a *.tiktoken file, compared with `tiktoken`
and the split pattern that its name says; with tekken.json, compared with `mistral_common`; with a tokenizer.model of
ranks, compared with `llama_models` (Llama 3). small_tokenizers.py makes such folders. Every text file under DIR (.txt .json .jsonl .csv .py .md, gzip too) is compared line by line and as one text; then N random lines, and lines
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

import sentencepiece
import tiktoken
import tiktoken.load
from tokenizers import Tokenizer, normalizers

from random_text import random_bytes_lines, random_lines

TEXT_SUFFIXES = {".txt", ".json", ".jsonl", ".csv", ".md", ".py"}


def unpacked(path):
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


class TokenizersReference:
    name = "tokenizers"
    encode_flags = []
    skips = (False, True)  # with and without special tokens decoding is compared

    def __init__(self, path):
        self.tokenizer = Tokenizer.from_str(unpacked(path).decode())
        self.contents = [token.content for token in self.tokenizer.get_added_tokens_decoder().values()]
        self.ids = list(range(self.tokenizer.get_vocab_size()))
        # transformers lets the configuration of these classes override the file's template.
        config = path.parent / "tokenizer_config.json"
        settings = json.loads(config.read_text()) if config.exists() else {}
        llama = settings.get("tokenizer_class", "").removesuffix("Fast") == "LlamaTokenizer"
        if llama and ("add_bos_token" in settings or "add_eos_token" in settings):
            self.encode_flags = ["--no-special-tokens"]

    def encode(self, texts):
        special = not self.encode_flags
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=special)]

    def decode(self, lists, skip):
        return self.tokenizer.decode_batch(lists, skip_special_tokens=skip)


class SentencePieceReference:
    name = "sentencepiece"
    encode_flags = ["--no-special-tokens"]
    skips = (True,)  # it never writes control pieces

    def __init__(self, path):
        self.processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.ids = list(range(self.processor.vocab_size()))
        self.contents = [self.processor.id_to_piece(i) for i in self.ids if not self.processor.is_byte(i)][:20]

    def encode(self, texts):
        return [self.processor.encode(text) for text in texts]

    def decode(self, lists, skip):
        return [self.processor.decode(ids) for ids in lists]


class TiktokenReference:
    name = "tiktoken"
    encode_flags = ["--no-special-tokens"]
    skips = (False,)

    def __init__(self, path):
        ranks = tiktoken.load.load_tiktoken_bpe(str(path))
        pattern, special = tiktoken_family(path.stem, len(ranks))
        # QWenTokenizer does this before it calls tiktoken; the form of the other library's tables.
        self.normalize = normalizers.NFC().normalize_str if path.stem == "qwen" else str
        self.encoding = tiktoken.Encoding(path.stem, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
        self.contents = list(special)
        self.ids = [*ranks.values(), *special.values()]

    def encode(self, texts):
        return [self.encoding.encode(self.normalize(text), allowed_special="all") for text in texts]

    def decode(self, lists, skip):
        return [self.encoding.decode(ids, errors="replace") for ids in lists]


class TekkenReference:
    name = "mistral_common"
    encode_flags = ["--no-special-tokens"]
    skips = (True,)

    def __init__(self, path):
        from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer

        self.policy = SpecialTokenPolicy.IGNORE
        self.tokenizer = Tekkenizer.from_file(path)
        self.contents = []  # texts never become special tokens there
        self.ids = list(range(self.tokenizer.n_words))

    def encode(self, texts):
        return [self.tokenizer.encode(text, bos=False, eos=False) for text in texts]

    def decode(self, lists, skip):
        return [self.tokenizer.decode(ids, special_token_policy=self.policy) for ids in lists]


class LlamaReference:
    name = "llama_models"
    encode_flags = ["--no-special-tokens"]
    skips = (False,)

    def __init__(self, path):
        from llama_models.llama3.tokenizer import Tokenizer

        self.tokenizer = Tokenizer(path)
        self.contents = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        self.ids = list(range(self.tokenizer.n_words - 256))

    def encode(self, texts):
        # Its own encode cuts texts of more than 400,000 characters into pieces.
        return [self.tokenizer.model.encode(text, allowed_special="all") for text in texts]

    def decode(self, lists, skip):
        return [self.tokenizer.model.decode(ids, errors="replace") for ids in lists]


def tiktoken_family(name, num_ranks):
    """Pattern and special tokens; of the library where it has them, else of the model family's own code."""
    from tiktoken_ext import openai_public

    known = {"r50k_base", "p50k_base", "cl100k_base", "o200k_base"}
    if name in known:
        loaders = {"load_tiktoken_bpe": lambda *_, **__: {}, "data_gym_to_mergeable_bpe_ranks": lambda **_: {}}
        vars(openai_public).update(loaders)
        made = openai_public.ENCODING_CONSTRUCTORS[name]()
        return made["pat_str"], made["special_tokens"]
    qwen = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    if name == "qwen":
        names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{i}|>" for i in range(205)]
        return qwen, {content: num_ranks + i for i, content in enumerate(names)}
    sys.exit(f"no tiktoken family is known by the name {name}")


def load_reference(model):
    path = Path(model)
    if path.is_dir():
        names = ["tokenizer.json", "tokenizer.json.gz", "tekken.json", "tokenizer.model"]
        found = [path / name for name in names if (path / name).exists()] + sorted(path.glob("*.tiktoken"))
        path = found[0]
    if path.suffix == ".tiktoken":
        return TiktokenReference(path)
    if path.name == "tekken.json":
        return TekkenReference(path)
    if path.suffix == ".model" and b"=" in path.read_bytes()[:64]:
        return LlamaReference(path)
    return SentencePieceReference(path) if path.suffix == ".model" else TokenizersReference(path)


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
            print(f"MISMATCH {what} {name}: {text[:200]!r}")
            print(f"  {'qianli':14}{ours[:40]}\n  {self.reference.name:14}{theirs[:40]}")

    def encode(self, name, data, flag):
        """`data` is a list of byte strings without newlines; with flag --jsonl they travel as JSON."""
        source = self.folder / "input"
        texts = [item.decode("utf-8", errors="replace") for item in data]
        if flag == "--jsonl":
            source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        else:
            source.write_bytes(b"".join(item + b"\n" for item in data))
        command = [self.program, "tokenizer", "encode", self.model, "--input", source, "--json"]
        ours = run(command + self.reference.encode_flags + ([flag] if flag else []))
        theirs = self.reference.encode(texts)
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
        for skip in self.reference.skips:
            command = [self.program, "tokenizer", "decode", self.model, "--input", source, "--json"]
            ours = run(command + (["--skip-special-tokens"] if skip else []))
            theirs = self.reference.decode(lists, skip)
            for ids, a, b in zip(lists, ours, theirs):
                if a != b:
                    self.report("decode", f"{name} skip={skip} {ids[:20]}", "", a, b)


def check(checker, arguments):
    for path in text_files(arguments.data) if arguments.data else []:
        data = unpacked(path)[: arguments.max_bytes]
        checker.decode(path.name, checker.encode(path.name, data.split(b"\n"), None)[:2000])
        checker.encode(f"{path.name} as one text", [data], "--jsonl")
    if arguments.random:
        lines = random_lines(arguments.random, arguments.seed, checker.reference.contents)
        encoded = checker.encode("random", [line.encode() for line in lines], "--jsonl")
        checker.decode("random", encoded)
        known = checker.reference.ids
        mixed = [[known[(i * 7919 + j * j * 104729 + i * j) % len(known)] for j in range(i % 40)] for i in range(2000)]
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
