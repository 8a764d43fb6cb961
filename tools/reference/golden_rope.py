"""Makes tests/golden/rope.json: rotary frequencies of transformers in float64 for settings of public models.

usage: golden_rope.py OUT.json

Each case has the config keys that matter (head_dim, max_position_embeddings, rope_parameters), the sequence length
where the rule depends on it (null otherwise), and the answer: inv_freq [rotated / 2] and attention_factor,
by which cos and sin are multiplied.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import tiny_models


def case(name, head_dim, positions, length=None, **rope):
    return {
        "name": name,
        "head_dim": head_dim,
        "max_position_embeddings": positions,
        "sequence_length": length,
        "rope_parameters": rope,
    }


def long_factors(count):
    return [1.0 + 0.75 * i for i in range(count)], [1.0 + 0.0625 * (i // 4) for i in range(count)]


def longrope(name, length):
    long_factor, short_factor = long_factors(48)
    return case(
        name,
        96,
        131072,
        length,
        rope_type="longrope",
        rope_theta=10000.0,
        original_max_position_embeddings=4096,
        long_factor=long_factor,
        short_factor=short_factor,
    )


def cases():
    llama3 = dict(rope_type="llama3", rope_theta=500000.0, low_freq_factor=1.0, high_freq_factor=4.0)
    yarn = dict(rope_type="yarn", rope_theta=1000000.0, factor=4.0, original_max_position_embeddings=32768)
    deepseek = dict(rope_type="yarn", rope_theta=10000.0, factor=40.0, original_max_position_embeddings=4096)
    dynamic = dict(rope_type="dynamic", rope_theta=10000.0, factor=6.0)
    return [
        case("default", 64, 8192, rope_type="default", rope_theta=100000.0),
        case("linear", 128, 16384, rope_type="linear", rope_theta=10000.0, factor=4.0),
        case("dynamic, short", 128, 2048, 2048, **dynamic),
        case("dynamic, long", 128, 2048, 5000, **dynamic),
        case("llama3.1", 128, 131072, **llama3, factor=8.0, original_max_position_embeddings=8192),
        case("llama3.2-1b", 64, 131072, **llama3, factor=32.0, original_max_position_embeddings=8192),
        case("yarn, qwen2.5", 128, 131072, **yarn),
        case("yarn, attention_factor given", 128, 131072, **yarn, attention_factor=1.25),
        case("yarn, betas given", 128, 131072, **yarn, beta_fast=16.0, beta_slow=2.0),
        case("yarn, equal mscales", 64, 163840, **deepseek, mscale=1.0, mscale_all_dim=1.0),
        case("yarn, two mscales", 64, 163840, **deepseek, mscale=0.707, mscale_all_dim=0.5),
        case(
            "yarn, not truncated",
            64,
            131072,
            rope_type="yarn",
            rope_theta=150000.0,
            factor=32.0,
            original_max_position_embeddings=4096,
            truncate=False,
        ),
        longrope("longrope, short", 4096),
        longrope("longrope, long", 4097),
    ]


def llama_config(case):
    return LlamaConfig(
        hidden_size=4 * case["head_dim"],
        num_attention_heads=4,
        head_dim=case["head_dim"],
        max_position_embeddings=case["max_position_embeddings"],
        rope_parameters=dict(case["rope_parameters"]),
    )


def default_frequencies(config):
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    return config.rope_parameters["rope_theta"] ** -exponents, 1.0


def answer(case):
    config = llama_config(case)
    rule = case["rope_parameters"]["rope_type"]
    if rule == "default":
        frequencies, factor = default_frequencies(config)
    else:
        with tiny_models.float64_everywhere():
            frequencies, factor = ROPE_INIT_FUNCTIONS[rule](config, seq_len=case["sequence_length"])
    assert frequencies.dtype == torch.float64
    return case | {"inv_freq": frequencies.tolist(), "attention_factor": float(factor)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    answers = [answer(case) for case in cases()]
    golden = {"script": "tools/reference/golden_rope.py", "versions": tiny_models.versions(), "cases": answers}
    arguments.out.write_text(json.dumps(golden, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")
    for one in answers:
        print(f"{one['name']}: attention factor {one['attention_factor']:.6f}, last {one['inv_freq'][-1]:.3e}")


if __name__ == "__main__":
    main()
