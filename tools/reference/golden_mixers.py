"""Makes tests/golden/mixers.safetensors: recurrent mixers of transformers alone, with every gradient.

usage: golden_mixers.py [OUT]

For each case C: C.x [T, h], C.y [T, h] and C.grad_y, C.grad_x; C.weight.<name> and C.grad.<name> of every parameter.
  delta_net      Qwen3NextGatedDeltaNet, twice as many value as key heads, two chunks of 64
  mamba2         Mamba2Mixer with one group
  mamba2_groups  the same with two groups, which are normed each by itself, as the original implementation
                 and its fused kernels do; transformers' own fallback norms all groups together
Computed in float64 by the fallbacks in PyTorch; weights and inputs are float32 values.
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import Mamba2Config, Qwen3NextConfig
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.nemotron_h.modeling_nemotron_h import Zamba2RMSNormGated
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

from tiny_models import float64_everywhere

HIDDEN = 20
LENGTH = 75
SEED = 20240607


def delta_net():
    config = Qwen3NextConfig(
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=6,
        linear_conv_kernel_dim=4,
        rms_norm_eps=1e-6,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return Qwen3NextGatedDeltaNet(config, 0)


def mamba2(groups):
    config = Mamba2Config(
        hidden_size=HIDDEN,
        num_hidden_layers=1,
        expand=2,
        num_heads=4,
        head_dim=10,
        n_groups=groups,
        state_size=12,
        conv_kernel=4,
        chunk_size=16,
        use_conv_bias=True,
        use_bias=False,
        layer_norm_epsilon=1e-5,
    )
    mixer = Mamba2Mixer(config, 0)
    if groups > 1:
        inner = mixer.intermediate_size
        mixer.norm = Zamba2RMSNormGated(inner, group_size=inner // groups, eps=config.layer_norm_epsilon)
    return mixer


CASES = {"delta_net": delta_net, "mamba2": lambda: mamba2(1), "mamba2_groups": lambda: mamba2(2)}


@torch.no_grad()
def fill(mixer, generator):
    """Random values in every parameter; no tensor is trivial."""
    for name, parameter in sorted(mixer.named_parameters()):
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
        scale = {"norm.weight": 0.3, "A_log": 0.5, "dt_bias": 0.5, "D": 0.5}.get(name, parameter.shape[-1] ** -0.5)
        parameter.copy_(1.0 + scale * values if name == "norm.weight" else scale * values)


def answers(case, make):
    generator = torch.Generator().manual_seed(SEED)
    with float64_everywhere():
        mixer = make().double()
        fill(mixer, generator)
        x = torch.randn(1, LENGTH, HIDDEN, generator=generator, dtype=torch.get_default_dtype())
        x = x.to(torch.float16).double().requires_grad_(True)
        grad_y = torch.randn(x.shape, generator=generator, dtype=torch.get_default_dtype())
        y = mixer(x)
        assert y.dtype == torch.float64
        y.backward(grad_y)
    golden = {"x": x[0], "y": y[0], "grad_y": grad_y[0], "grad_x": x.grad[0]}
    for name, parameter in mixer.named_parameters():
        assert parameter.grad.abs().max() > 0, name
        golden[f"weight.{name}"] = parameter
        golden[f"grad.{name}"] = parameter.grad
    return {f"{case}.{name}": value.detach().contiguous() for name, value in golden.items()}


def main():
    torch.set_num_threads(1)
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/mixers.safetensors")
    golden = {}
    for case, make in CASES.items():
        golden |= answers(case, make)
    save_file(golden, out)
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
