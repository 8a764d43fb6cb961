#!/usr/bin/env python3
"""Checks that torch itself reads rank files that Qianli wrote.

    qianli convert HF MCORE --to mcore --args-beside [--tensor N ...]
    python tools/reference/check_megatron.py MCORE

With torch.load(weights_only=True), torch's default, every rank's file must hold tensors and plain
types alone; the argparse.Namespace stands in arguments.pt, with the sizes that the tensors have.
"""
import argparse
import sys
from pathlib import Path

import torch


def check(folder: Path) -> None:
    iteration = folder / f"iter_{int((folder / 'latest_checkpointed_iteration.txt').read_text()):07}"
    args = torch.load(iteration / "arguments.pt", weights_only=False)["args"]
    if not isinstance(args, argparse.Namespace):
        raise SystemExit(f"{iteration}: args is {type(args)}")
    files = sorted(iteration.glob("mp_rank_*/model_optim_rng.pt"))
    count = args.tensor_model_parallel_size * args.pipeline_model_parallel_size * args.expert_model_parallel_size
    if len(files) != count:
        raise SystemExit(f"{iteration}: {len(files)} files, args tell {count}")
    elements = 0
    for path in files:
        state = torch.load(path, weights_only=True)
        if "args" in state or state["checkpoint_version"] != 3.0:
            raise SystemExit(f"{path}: {[key for key in state if not key.startswith('model')]}")
        for chunk in (value for key, value in state.items() if key.startswith("model")):
            for name, tensor in chunk.items():
                if name.endswith("word_embeddings.weight"):
                    rows = args.padded_vocab_size // args.tensor_model_parallel_size
                    if tuple(tensor.shape) != (rows, args.hidden_size):
                        raise SystemExit(f"{path}: {name} is {tuple(tensor.shape)}")
                elements += 0 if tensor is None else tensor.numel()
    print(f"{folder}: {len(files)} rank files, {elements} elements, read with weights_only=True")


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    for folder in sys.argv[1:]:
        check(Path(folder))


if __name__ == "__main__":
    main()
