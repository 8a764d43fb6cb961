"""Encoding speed of one thread, Qianli beside the original libraries in one run.

usage: bench_tokenizers.py TOKENIZER_BENCH FILE MODEL...

TOKENIZER_BENCH is build/bin/tokenizer_bench, MODEL as for check_tokenizers.py. Every line of FILE is a text. Prints
megabytes a second (the best of five rounds) and the seconds that opening took.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

from check_tokenizers import TokenizersReference, load_reference  # noqa: E402


def library_speed(reference, lines, size):
    """The library's own loop over texts where it has one."""
    best = 1e9
    for _ in range(5):
        begin = time.perf_counter()
        if isinstance(reference, TokenizersReference):
            reference.tokenizer.encode_batch_fast(lines, add_special_tokens=False)
        else:
            reference.encode(lines)
        best = min(best, time.perf_counter() - begin)
    return size / best / 1e6


def main():
    program, file, models = sys.argv[1], sys.argv[2], sys.argv[3:]
    data = Path(file).read_bytes()
    lines = data.decode(errors="replace").split("\n")
    for model in models:
        ours = json.loads(subprocess.run([program, model, file], check=True, capture_output=True).stdout)
        begin = time.perf_counter()
        reference = load_reference(model)
        load = time.perf_counter() - begin
        theirs = library_speed(reference, lines, len(data))
        ratio = ours["mb_per_second"] / theirs
        print(
            f"{Path(model).name:20} qianli {ours['mb_per_second']:7.2f} MB/s (open {ours['load_seconds']:.3f} s)  "
            f"{reference.name:13} {theirs:7.2f} MB/s (open {load:.3f} s)  ratio {ratio:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
