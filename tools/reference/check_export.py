#!/usr/bin/env python3
"""Checks that transformers loads an exported folder as the model it was made from.

    check_export.py SOURCE EXPORTED [SOURCE EXPORTED ...]

SOURCE is the Hugging Face folder whose weights were loaded, EXPORTED what the program wrote from it.
No tensor may be missing, unexpected or of another shape, and the logits must be identical: in
float32 those of SOURCE, in a narrower type those of SOURCE rounded to it.
"""

import sys

import torch
from transformers import AutoModelForCausalLM


def load(folder: str, dtype: torch.dtype | str):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, output_loading_info=True, local_files_only=True
    )
    problems = {key: value for key, value in info.items() if value}
    if problems:
        raise SystemExit(f"{folder}: {problems}")
    return model.eval()


def check(source: str, exported: str) -> None:
    model = load(exported, "auto")
    original = load(source, model.dtype)
    generator = torch.Generator().manual_seed(7)
    length = min(24, original.config.max_position_embeddings)
    tokens = torch.randint(0, original.config.vocab_size, (2, length), generator=generator)
    with torch.no_grad():
        expected, actual = original(tokens).logits, model(tokens).logits
    if not torch.equal(expected, actual):
        worst = (expected.double() - actual.double()).abs().max().item()
        raise SystemExit(f"{exported}: logits differ from those of {source} by up to {worst}")
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        a, b = getattr(original.config, key), getattr(model.config, key)
        if a != b:
            raise SystemExit(f"{exported}: {key} is {b}, that of {source} is {a}")
    print(f"{exported}: {sum(p.numel() for p in model.parameters())} parameters, {model.dtype}, identical logits")


def main() -> None:
    folders = sys.argv[1:]
    if not folders or len(folders) % 2:
        raise SystemExit(__doc__)
    for source, exported in zip(folders[::2], folders[1::2]):
        check(source, exported)


if __name__ == "__main__":
    main()
