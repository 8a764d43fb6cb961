#!/usr/bin/env python3
"""Recomputes sample orders, samples and masks with NumPy and compares them with `qianli data inspect`.

    check_gpt_order.py QIANLI [--trials N]

Random corpora are written here, by this script; nothing of the program under test is used but its
output. Exits with 1 at the first difference.
"""
import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

EXTRA = 1
EOD = 256


def byte_alphabet():
    """The characters that stand for bytes 0..255 in byte-level BPE."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def write_tokenizer(folder):
    """One token per byte, and an end token: enough to tell the program which token ends documents."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    end = {"id": EOD, "content": "<end>", "single_word": False, "lstrip": False, "rstrip": False}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [end | {"normalized": False, "special": True}],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "vocab": {c: i for i, c in enumerate(byte_alphabet())}, "merges": []},
    }
    with open(os.path.join(folder, "tokenizer.json"), "w") as f:
        json.dump(tokenizer, f)
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump({"eos_token": "<end>"}, f)


def write_corpus(prefix, documents, dtype):
    code = {np.int32: 4, np.uint16: 8}[dtype]
    lengths = np.array([len(d) for d in documents], np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths[:-1], dtype=np.int64)]) * np.dtype(dtype).itemsize
    with open(prefix + ".bin", "wb") as f:
        for document in documents:
            f.write(np.asarray(document, dtype).tobytes())
    with open(prefix + ".idx", "wb") as f:
        f.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(documents), len(documents) + 1))
        f.write(lengths.tobytes() + offsets.astype(np.int64).tobytes())
        f.write(np.arange(len(documents) + 1, dtype=np.int64).tobytes())


def split_ranges(text, count):
    parts = [float(x) for x in text.split(",")]
    parts = [p / sum(parts) for p in parts]
    edges = [0.0]
    for p in parts:
        edges.append(edges[-1] + p)
    return [(int(round(a * float(count))), int(round(b * float(count)))) for a, b in zip(edges, edges[1:])]


def order(lengths, begin, end, length, samples, seed):
    ids = np.arange(begin, end, dtype=np.int32)
    per_epoch = int(lengths[ids].sum())
    epochs = 1
    if samples is not None:
        while epochs * per_epoch < samples * length + EXTRA:
            epochs += 1
    separate = False
    if epochs > 1:
        before = ((epochs - 1) * per_epoch - EXTRA) // length
        separate = samples - before < int(0.80 * ((per_epoch - EXTRA) // length))
    random = np.random.RandomState(seed)
    if separate:
        first, last = np.tile(ids, epochs - 1), ids.copy()
        random.shuffle(first)
        random.shuffle(last)
        documents = np.concatenate([first, last])
    else:
        documents = np.tile(ids, epochs)
        random.shuffle(documents)
    total = (epochs * per_epoch - EXTRA) // length
    # A sample begins where the running number of tokens says; a boundary that falls on the end of a
    # document is written as its last token, which both samples share.
    ends = np.cumsum(lengths[documents], dtype=np.int64)
    rows = [(0, 0)]
    for k in range(1, total + 1):
        place = int(np.searchsorted(ends, k * length, side="right"))
        rows.append((place, k * length - (int(ends[place - 1]) if place else 0)))
    if separate:
        first, last = np.arange(before), np.arange(before, total)
        random.shuffle(first)
        random.shuffle(last)
        shuffle = np.concatenate([first, last])
    else:
        shuffle = np.arange(total)
        random.shuffle(shuffle)
    return documents, rows, shuffle


def masks(text, length, flags):
    tokens, labels = text[:length], text[1 : length + 1]
    loss = [0.0 if flags["eod_mask_loss"] and t == EOD else 1.0 for t in tokens]
    positions, position, ends = [], 0, []
    for i, t in enumerate(tokens):
        positions.append(position)
        position = 0 if t == EOD and flags["reset_position_ids"] else position + 1
        if flags["reset_attention_mask"] and (t == EOD or i + 1 == length):
            ends.append(i + 1)
    return {"tokens": tokens, "labels": labels, "loss_mask": loss, "positions": positions, "segment_ends": ends}


def inspect(program, *arguments):
    out = subprocess.run([program, "data", "inspect", *arguments, "--json", "--order"], capture_output=True, text=True)
    if out.returncode != 0:
        sys.exit(f"{' '.join(arguments)}: {out.stderr}")
    return json.loads(out.stdout)


def same(name, got, expected):
    expected = np.asarray(expected).tolist()
    if np.asarray(got).tolist() != expected:
        sys.exit(f"{name} differs:\n  program   {got[:20]}\n  reference {expected[:20]}")


def one_trial(program, folder, trial):
    rng = np.random.default_rng(trial)
    documents = [
        list(rng.integers(0, EOD, rng.integers(0, 60))) + [EOD] for _ in range(int(rng.integers(12, 80)))
    ]
    prefix = os.path.join(folder, f"corpus{trial}")
    write_corpus(prefix, documents, np.uint16 if trial % 2 else np.int32)
    lengths = np.array([len(d) for d in documents], np.int32)
    length, seed = int(rng.integers(1, 50)), int(rng.integers(0, 2**32))
    split, which = ["6,3,1", "949,50,1", "1,1,1"][trial % 3], int(rng.integers(0, 2))
    samples = None if trial % 5 == 0 else int(rng.integers(1, 200))
    begin, end = split_ranges(split, len(documents))[which]
    if begin == end:
        return
    docs, rows, shuffle = order(lengths, begin, end, length, samples, seed)
    if len(shuffle) == 0:
        return
    index = int(rng.integers(0, len(shuffle)))
    arguments = [prefix, "--tokenizer", folder, "--sequence-length", str(length), "--seed", str(seed), "--split", split]
    arguments += ["--part", ["train", "valid", "test"][which], "--sample", str(index)]
    if samples is not None:
        arguments += ["--num-samples", str(samples)]
    flags = {f: bool(rng.integers(0, 2)) for f in ("eod_mask_loss", "reset_position_ids", "reset_attention_mask")}
    arguments += ["--" + flag.replace("_", "-") for flag, on in flags.items() if on]
    got = inspect(program, *arguments)
    same("document index", got["order"]["document_index"], docs)
    same("sample index", got["order"]["sample_index"], rows)
    same("shuffle index", got["order"]["shuffle_index"], shuffle)
    stream = np.concatenate([documents[d] for d in docs]).astype(int).tolist()
    start = int(shuffle[index]) * length
    for name, expected in masks(stream[start : start + length + EXTRA], length, flags).items():
        same(name, got["sample"][name], expected)


def blend_trial(program, folder, trial):
    rng = np.random.default_rng(1000 + trial)
    weights = rng.random(int(rng.integers(2, 12))) + 0.01
    arguments = []
    for i, w in enumerate(weights):
        prefix = os.path.join(folder, f"blend{trial}-{i}")
        write_corpus(prefix, [rng.integers(0, 500, 40) for _ in range(20)], np.int32)
        arguments += [repr(float(w)), prefix]
    samples = int(rng.integers(10, 300))
    got = inspect(program, *arguments, "--sequence-length", "8", "--num-samples", str(samples))
    share = weights / weights.sum()
    size = int(sum(np.ceil(samples * w) for w in share))
    share = share / share.sum()
    used = np.zeros(len(share), np.int64)
    datasets, numbers = [], []
    for k in range(size):
        best = int(np.argmax(share * max(k, 1.0) - used))
        datasets.append(best)
        numbers.append(int(used[best]))
        used[best] += 1
    same("dataset index", got["order"]["dataset_index"], datasets)
    same("dataset sample index", got["order"]["dataset_sample_index"], numbers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qianli")
    parser.add_argument("--trials", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(folder)
        for trial in range(options.trials):
            one_trial(options.qianli, folder, trial)
            blend_trial(options.qianli, folder, trial)
    print(f"{options.trials} corpora and {options.trials} blends: the orders are equal")


if __name__ == "__main__":
    main()
