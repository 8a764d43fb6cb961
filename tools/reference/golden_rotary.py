"""Writes tests/golden/rotary.json: inverse frequencies, amplitude, and cos and sin at some positions
for several rotary configurations, as transformers computes them in float32 and in float64.

    python golden_rotary.py [OUT]
"""

import json
import pathlib
import sys

import torch
from tiny_models import float64_everywhere, versions
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

POSITIONS = [0, 1, 2, 17, 511, 4095, 8191]


def _llama(name, head_dim, maximum, length=0, **rope):
    config = dict(
        model_type="llama",
        hidden_size=4 * head_dim,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        head_dim=head_dim,
        vocab_size=32,
        max_position_embeddings=maximum,
        rope_parameters=rope,
    )
    return name, config, length


_LLAMA31 = dict(rope_type="llama3", rope_theta=500000.0, low_freq_factor=1.0, high_freq_factor=4.0)
_YARN = dict(rope_type="yarn", rope_theta=1000000.0, factor=4.0, original_max_position_embeddings=32768)

CASES = [
    _llama("default", 128, 4096, rope_type="default", rope_theta=10000.0),
    _llama("qwen3", 128, 40960, rope_type="default", rope_theta=1000000.0),
    _llama("odd half", 10, 64, rope_type="default", rope_theta=500000.0),
    _llama("linear", 64, 4096, rope_type="linear", rope_theta=100000.0, factor=4.0),
    _llama("dynamic within", 64, 4096, length=4096, rope_type="dynamic", rope_theta=10000.0, factor=2.5),
    _llama("dynamic beyond", 64, 4096, length=10000, rope_type="dynamic", rope_theta=10000.0, factor=2.5),
    _llama("llama 3.1", 128, 131072, **_LLAMA31, factor=8.0, original_max_position_embeddings=8192),
    _llama("llama 3.2", 64, 131072, **_LLAMA31, factor=32.0, original_max_position_embeddings=8192),
    _llama("yarn", 128, 131072, **_YARN),
    _llama("yarn untruncated", 64, 131072, **(_YARN | dict(factor=32.0, truncate=False, rope_theta=150000.0))),
    _llama("yarn amplitude", 128, 131072, **_YARN, attention_factor=1.25, beta_fast=16.0, beta_slow=2.0),
    _llama("yarn multipliers", 128, 131072, **_YARN, mscale=1.0, mscale_all_dim=0.5),
    _llama("yarn one dimension", 4, 64, **(_YARN | dict(rope_theta=10000.0, original_max_position_embeddings=16))),
]


def _frequencies(config, length):
    rope_type = config.rope_parameters["rope_type"]
    if rope_type == "default":
        return LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    return ROPE_INIT_FUNCTIONS[rope_type](config, None, seq_len=length or None)


def _case(name, values, length):
    def make():
        return LlamaConfig(**{key: value for key, value in values.items() if key != "model_type"})

    single, amplitude = _frequencies(make(), length)
    assert single.dtype == torch.float32
    with float64_everywhere():
        double, _ = _frequencies(make(), length)
    angles = torch.tensor(POSITIONS).float()[:, None] * single[None, :]
    return {
        "name": name,
        "config": values,
        "length": length,
        "amplitude": float(amplitude),
        "inverse": single.double().tolist(),
        "inverse_float64": double.tolist(),
        "cos": (angles.cos() * amplitude).double().tolist(),
        "sin": (angles.sin() * amplitude).double().tolist(),
    }


def main():
    default = pathlib.Path(__file__).parents[2] / "tests/golden/rotary.json"
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    cases = [_case(*case) for case in CASES]
    out.write_text(json.dumps({"script": "tools/reference/golden_rotary.py", "versions": versions(),
                               "positions": POSITIONS, "cases": cases}) + "\n")


if __name__ == "__main__":
    main()
