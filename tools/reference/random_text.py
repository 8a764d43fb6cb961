"""Random texts that look for trouble: mixed scripts, marks, emoji, control characters, odd white space."""

import random

RANGES = [
    (0x20, 0x7E), (0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x00, 0x1F), (0x7F, 0x24F), (0x300, 0x36F),
    (0x370, 0x52F), (0x590, 0x6FF), (0x700, 0xDFF), (0xE00, 0xFFF), (0x1000, 0x11FF), (0x1AB0, 0x1AFF),
    (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x2BFF), (0x3000, 0x30FF), (0x3400, 0x9FFF), (0xA000, 0xABFF),
    (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xF900, 0xFFFF), (0x10000, 0x107FF), (0x10800, 0x11FFF), (0x12000, 0x1AFFF),
    (0x1B000, 0x1D0FF), (0x1D100, 0x1D7FF), (0x1D800, 0x1F2FF), (0x1F300, 0x1FAFF), (0x1FB00, 0x3FFFF),
    (0xE0000, 0xE01EF), (0x0, 0x10FFFF),
]
SPACES = list(" \t\r\n\v\f\u0085\u00a0\u1680\u2000\u2003\u2007\u2028\u2029\u202f\u205f\u3000\u180e\u200b\u200d\ufeff\u001c")
PIECES = [
    "'s", "'S", "'\u017f", "'t", "'re", "'RE", "'ll", "'lL", "'ve", "'m", "'d", "''", "n't", "'L", "'\u212a", "\u2581", "\u2581\u2581",
    "don't", "123", "1234567", "\u0661\u0662\u0663\u0664", "\u00bd\u00b2", "\u2167", "...", "!?!", "://", "  ", "\n\n", " \n ", "\r\n", "\t\t",
    "e\u0301", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u0f71\u0f72", "\u1e9b\u0323", "\u212b", "\u0958", "\u2126", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0001f44d\U0001f3fd", "\U0001f1e8\U0001f1f3", "\u4f60\u597d", "\u3053\u3093", "hello", "World", "HELLO", "the", "ing", "<0x41>", "</s>", "<s>", "<unk>",
    "\u0130", "\u00df", "\ufb01", "\uff21", "\u30ab\u3099", "\u304b\u309a", "\x00", "\u0345", "\u0315\u0300\u0334", "\u1dfa\u0301", "\u0898\u0334",
]  # fmt: skip


def random_character(generator):
    low, high = generator.choice(RANGES)
    while True:
        code = generator.randint(low, high)
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def random_lines(count, seed, contents=()):
    """`contents`: added tokens, which appear whole, cut short, and beside spaces and letters."""
    generator = random.Random(seed)
    contents = list(contents)
    lines = []
    for _ in range(count):
        parts = []
        for _ in range(generator.randint(0, 30)):
            kind = generator.random()
            if kind < 0.3:
                parts.append("".join(random_character(generator) for _ in range(generator.randint(1, 6))))
            elif kind < 0.5:
                parts.append("".join(generator.choice(SPACES) for _ in range(generator.randint(1, 4))))
            elif kind < 0.55 and contents:
                content = generator.choice(contents)
                parts.append(content if generator.random() < 0.8 else content[: generator.randint(0, len(content))])
            elif kind < 0.75:
                parts.append(" ")
            else:
                parts.append(generator.choice(PIECES))
        lines.append("".join(parts))
    return lines


def random_bytes_lines(count, seed):
    """Lines of bytes, mostly not UTF-8: good text with damage."""
    generator = random.Random(seed + 1)
    lines = []
    for line in random_lines(count, seed + 2):
        data = bytearray(line.encode().replace(b"\n", b" "))
        for _ in range(generator.randint(1, 6)):
            at = generator.randint(0, len(data))
            change = generator.random()
            if change < 0.4:
                data[at:at] = bytes([generator.choice([0x80, 0xBF, 0xC0, 0xC3, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xF8, 0xFF])])
            elif change < 0.8:
                del data[at : at + 1]
            else:
                data[at:at] = bytes([generator.randint(0x7F, 0xFF)])
        lines.append(bytes(data).replace(b"\n", b" "))
    return lines
