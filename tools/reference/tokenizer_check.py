"""Token ids by the `tokenizers` library, to compare with `qianli tokenizer encode MODEL --input FILE --json`.

usage: tokenizer_check.py encode MODEL FILE [--special]     prints a JSON list: the ids of every line
       tokenizer_check.py lines COUNT [--seed N]            prints COUNT lines of random Unicode

MODEL is a folder with tokenizer.json or that file. Lines end at \\n only and are encoded without it, as UTF-8 text;
--special lets the tokenizer's post-processor add its special tokens.
"""

import argparse
import json
import random
import sys
from pathlib import Path

from tokenizers import Tokenizer

# First and last code point of scripts and oddities that split rules and normalisers treat differently.
RANGES = {
    "ascii": (0x20, 0x7E),
    "latin": (0xA1, 0x24F),
    "combining": (0x300, 0x36F),
    "greek": (0x370, 0x3FF),
    "cyrillic": (0x400, 0x4FF),
    "hebrew": (0x5D0, 0x5EA),
    "arabic": (0x620, 0x669),
    "devanagari": (0x900, 0x97F),
    "thai": (0xE01, 0xE5B),
    "hangul": (0xAC00, 0xD7A3),
    "kana": (0x3041, 0x30FF),
    "han": (0x4E00, 0x9FFF),
    "fullwidth": (0xFF01, 0xFF5E),
    "numbers": (0x2150, 0x218B),
    "punctuation": (0x2010, 0x2027),
    "emoji": (0x1F300, 0x1F6FF),
    "mathematical": (0x1D400, 0x1D7FF),
    "private": (0xE000, 0xE0FF),
    "anything": (0x21, 0x10FFFF),
}
SPACES = [" ", "  ", "   ", "\t", "\u00a0", "\u2003", "\u3000", "\r", "\u200b", "\ufeff", "\u0085", "\u2028"]
PIECES = ["don't", "WE'LL", "it\u2019s", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "e\u0301", "\u1e9b\u0323"]
PIECES += ["3.14", "1,000,000", "x86_64", "https://a.b/c?d=e", "\u00df\u017f\u0130", "<|endoftext|>", "</s>", "[INST]"]


def random_character(generator, low, high):
    while True:
        code = generator.randint(low, high)
        if not 0xD800 <= code <= 0xDFFF and code != 0x0A:
            return chr(code)


def random_word(generator):
    if generator.random() < 0.15:
        return generator.choice(PIECES)
    low, high = RANGES[generator.choice(list(RANGES))]
    return "".join(random_character(generator, low, high) for _ in range(generator.randint(1, 9)))


def random_line(generator):
    parts = []
    for _ in range(generator.randint(0, 12)):
        if generator.random() < 0.8:
            parts.append(" " if generator.random() < 0.7 else generator.choice(SPACES))
        parts.append(random_word(generator))
    if generator.random() < 0.1:
        parts.append(generator.choice(SPACES))
    return "".join(parts)


def random_lines(count, seed):
    generator = random.Random(seed)
    return [random_line(generator) for _ in range(count)]


def read_lines(path):
    """Lines of a UTF-8 file split at \\n alone; a last line without \\n counts."""
    text = Path(path).read_bytes().decode("utf-8")
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def load_tokenizer(model):
    path = Path(model)
    return Tokenizer.from_file(str(path / "tokenizer.json" if path.is_dir() else path))


def encode(arguments):
    tokenizer = load_tokenizer(arguments.model)
    lines = read_lines(arguments.file)
    ids = [tokenizer.encode(line, add_special_tokens=arguments.special).ids for line in lines]
    print(json.dumps(ids))


def lines(arguments):
    for line in random_lines(arguments.count, arguments.seed):
        sys.stdout.buffer.write(line.encode("utf-8") + b"\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("encode")
    command.add_argument("model")
    command.add_argument("file")
    command.add_argument("--special", action="store_true")
    command.set_defaults(run=encode)
    command = commands.add_parser("lines")
    command.add_argument("count", type=int)
    command.add_argument("--seed", type=int, default=1)
    command.set_defaults(run=lines)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
