"""Goldens for tests/text: how the `tokenizers` library (Oniguruma) splits texts at regular expressions.

usage: golden_regexes.py OUT

OUT is tests/golden/tokenizer/regex_cases.json: a list of [expression, text, pieces], of Split with "isolated". What is
listed has meanings of its own in Ruby's syntax; the rest is put together by chance out of small parts.
"""

import json
import random
import sys

from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
LISTED = [
    (BLOOM, "Hello world, (it's|me). 你好，世界。 a  b।c"),
    (r"\p{N}{1,3}+", "12345 67"), (r"a{,2}", "aaaa"), (r"a{1,2}{2}", "aaaaa"), (r"a**", "aab"), (r"a{,}", "xa{,}"),
    (r"a{x", "a{x"), (r"(?:a{1,2})+?b", "aaab"), ("^", "a\nb\n"), ("$", "a\nb\n"), ("^.", "ab\ncd\n"),
    (r".$", "ab\ncd\n"), (r"\b", "ab cd"), (r"\B", "ab cd"), (r"\b\w", "ab c² ñ_d"), (r"\Z", "ab\n"), (r"b\z", "abab"),
    ("(?=[A-Z])", "HelloWorldFoo"), ("x*", "axxb"), (r"x(?i)b|c", "xBxCxc"), ("(?i)b|c", "xBxCx"), ("(?m:a.b)", "a\nb"),
    ("(?x: a b # c\n)", "ab a b"), ("(?x)a b", "ab a b"), ("(?x:a+ +)b", "aaab"), ("(?x:[ ])", "a b"),
    ("(?x:(?: a ) +)", "aa"), (r"[[a-c]x]+", "abxd"), (r"[^[a-c]x]+", "abxdef"), (r"[[^a-c]b]+", "abcde"),
    (r"[^[^a-c]b]+", "abcde"), (r"[^a-c&&[a-b]]", "abcd"), (r"[a-z&&[^aeiou]]+", "hello"), ("[a-z-9]+", "a-9_"),
    ("[--9]+", "a-9"), (r"[\b]", "a\b"), (r"[^\W]+", "a b"), (r"[\W1]+", "a 1"), (r"\p{^L}", "a1"), (r"\P{C}+", "a\u0000b"),
    *((f"[[:{name}:]]+", "aB1 é²中$+.,_\t\n\u0000\u0301\u2160\u00bd\u3000") for name in (
        "alpha", "alnum", "digit", "space", "punct", "upper", "lower", "word", "xdigit", "cntrl", "blank", "^alpha")),
    (r"\p{Han}+", "中\U00031350\u3001a"), (r"\p{Latin}+", "aé\ua7dcα"), (r"\p{Punct}+", "a$.,"),
]
ATOMS = ["a", "b", ".", r"\s", r"\w", r"\W", "[ab]", "[^a]", r"[a[b\s]]", "[^[^a]b]", r"[\W1]", r"[^(\s|[.,]])]", r"\d",
         "é", "中", "[[:punct:]]", "[^[:upper:]]", "[[:^digit:]a]", "[a-c&&[^b]]", "[^a-c&&[b]]", "(?:ab|c)", "(?:a|)",
         "(?m:.)", "(?x: a b )", r"\p{Lu}", r"\P{L}", r"\p{^N}", "(?>a+)", "A", "1", "\n", " "]
PLACES = ["^", "$", r"\b", r"\B", r"\z", r"\Z", r"\A", "(?=[A-Z])", "(?!a)", "(?<=a)", "(?<!b)"]
TIMES = ["", "", "", "", "*", "+", "?", "{1,2}", "{2}", "{,2}", "{2,}", "*?", "+?", "??", "*+", "++", "?+", "{1,2}+",
         "{1,2}?", "{1,3}+", "**", "+*", "{1,2}*"]
LETTERS = ["a", "b", "A", "B", " ", "\n", "1", "é", "中", ".", ",", "$", "c"]


def expression(chance, depth=0):
    out = ""
    for _ in range(chance.randint(1, 3)):
        kind = chance.random()
        if kind < 0.15:
            out += chance.choice(PLACES)
        elif kind < 0.3 and depth < 2:
            out += "(" + chance.choice(["?:", "", "?>"]) + expression(chance, depth + 1) + "|a)"
            out += chance.choice(["", "?", "{1,2}", "+"])
        else:
            out += chance.choice(ATOMS) + chance.choice(TIMES)
        if chance.random() < 0.12:
            out += "|"
    return out


def main():
    chance = random.Random(1)
    cases = list(LISTED)
    for _ in range(300):
        made = expression(chance)
        cases += [(made, "".join(chance.choices(LETTERS, k=chance.randint(1, 9)))) for _ in range(2)]
    lines = []
    for regex, text in cases:
        try:
            splitter = Split(Regex(regex), "isolated")
        except Exception:  # what Oniguruma refuses
            continue
        lines.append(json.dumps([regex, text, [piece for piece, _ in splitter.pre_tokenize_str(text)]]))
    with open(sys.argv[1], "w") as file:
        file.write("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
