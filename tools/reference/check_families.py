"""Checks every family against its reference and writes the table of docs/models.md.

usage: check_families.py MODEL_CHECK [--out docs/models.md] [--work DIR] [NAME ...]

Makes the tiny models of family_goldens.py in DIR (a temporary folder by default), runs the program MODEL_CHECK on them,
and fails where logits differ by more than 1e-5 or a gradient by more than 1e-4 in float32, relative to the largest value.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import family_configs
import family_goldens
import plain_families
import tiny_models

LOGITS, GRADIENTS = 1e-5, 1e-4


def reference_of(name):
    if name in family_configs.WITH_HEADS:
        return f"transformers {tiny_models.versions()['transformers']} and prediction_heads.py"
    return "plain_families.py" if name in plain_families.FAMILIES else f"transformers {tiny_models.versions()['transformers']}"


def check(program, work, names):
    family_goldens.make(work, names)
    output = subprocess.run([program, *(work / name for name in names)], capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def row(result, facts):
    name = result["name"]
    if "error" in result:
        return f"| {name} | {facts['model_type']} | {reference_of(name)} | {result['error']} | | | |"
    single, double = result["fp32"], result["fp64"]
    return (f"| {name} | {facts['model_type']} | {reference_of(name)} | {single['logits']:.1e} | {single['gradients']:.1e} "
            f"| {double['logits']:.1e} | {double['gradients']:.1e} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", metavar="MODEL_CHECK")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    names = arguments.names or family_goldens.all_names()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        results = check(arguments.program, work, names)
        facts = {name: json.loads((work / name / "golden.json").read_text()) for name in names}
    lines = ["| model | model_type | reference | logits | gradients | logits, fp64 | gradients, fp64 |",
             "|---|---|---|---:|---:|---:|---:|", *(row(result, facts[result["name"]]) for result in results)]
    print("\n".join(lines))
    if arguments.out:
        text = arguments.out.read_text()
        begin, end = "<!-- checked:begin -->\n", "<!-- checked:end -->"
        first, rest = text.split(begin)
        arguments.out.write_text(first + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1])
    bad = [r["name"] for r in results
           if "error" in r or r["fp32"]["logits"] > LOGITS or r["fp32"]["gradients"] > GRADIENTS]
    if bad:
        sys.exit(f"beyond the bounds or refused: {', '.join(bad)}")


if __name__ == "__main__":
    main()
