"""Speed of transformers' mixture-of-experts blocks on the CPU in float32, forward and backward: the peer of moe_bench.

usage: bench_moe.py [--shapes NAME ...] [--implementations NAME ...] [--seconds S] [--threads N]

Prints one JSON line per shape and experts implementation ("eager" loops over the experts, "grouped_mm" calls
torch._grouped_mm). Shapes are those of bench/moe_bench.cpp. The median of the repetitions counts.
"""

import argparse
import json
import statistics
import time

import torch
from transformers import MixtralConfig, Qwen3MoeConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

# name: family, tokens, hidden, width of an expert, experts, choices
SHAPES = {
    "mixtral-tiny": ("mixtral", 1024, 512, 1024, 8, 2),
    "mixtral-small": ("mixtral", 1024, 1024, 2048, 8, 2),
    "qwen3-tiny": ("qwen3_moe", 1024, 512, 256, 64, 8),
    "qwen3-small": ("qwen3_moe", 1024, 1024, 384, 128, 8),
}


def make_block(family, hidden, width, experts, choices, implementation):
    shared = dict(hidden_size=hidden, num_experts_per_tok=choices, experts_implementation=implementation)
    if family == "mixtral":
        return MixtralSparseMoeBlock(MixtralConfig(**shared, intermediate_size=width, num_local_experts=experts))
    return Qwen3MoeSparseMoeBlock(
        Qwen3MoeConfig(**shared, moe_intermediate_size=width, num_experts=experts, norm_topk_prob=True)
    )


def measure(name, implementation, seconds):
    family, tokens, hidden, width, experts, choices = SHAPES[name]
    torch.manual_seed(1)
    block = make_block(family, hidden, width, experts, choices, implementation).train()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.02)
    x = torch.randn(1, tokens, hidden, requires_grad=True)
    grad = torch.randn(1, tokens, hidden)

    def step():
        for tensor in [x, *block.parameters()]:
            tensor.grad = None
        start = time.perf_counter()
        block(x).backward(grad)
        return time.perf_counter() - start

    step()
    times, begin = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begin < seconds:
        times.append(step())
    return {
        "shape": name,
        "side": implementation,
        "threads": torch.get_num_threads(),
        "seconds": statistics.median(times),
        "best_seconds": min(times),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--implementations", nargs="*", default=["eager", "grouped_mm"])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for shape in arguments.shapes:
        for implementation in arguments.implementations:
            print(json.dumps(measure(shape, implementation, arguments.seconds)), flush=True)


if __name__ == "__main__":
    main()
