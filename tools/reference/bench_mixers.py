"""Forward and backward of mixers of transformers on the CPU in float32; the recurrent ones by their fallbacks in PyTorch.

usage: bench_mixers.py gated_delta_net|mamba2|latent_attention [--steps N] [--threads N]

  gated_delta_net  Qwen3NextGatedDeltaNet: hidden 1024, 8 key and 16 value heads of 128, batch 2 x 1024
  mamba2           Mamba2Mixer: hidden 512, 16 heads of 64, state 128, one group, chunks of 64, batch 2 x 512
  latent_attention DeepseekV3Attention with sdpa: hidden 1024, 16 heads of 64 + 32, values of 64, latents of 384 and 256,
                   batch 2 x 1024
Prints one line of JSON; tokens per second are from the median step after two warm-up steps.
"""

import argparse
import json
import statistics
import time

import torch
from transformers import DeepseekV3Config, Mamba2Config, Qwen3NextConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

WARMUP_STEPS = 2


def gated_delta_net():
    config = Qwen3NextConfig(
        hidden_size=1024,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
        linear_num_key_heads=8,
        linear_num_value_heads=16,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
    )
    return Qwen3NextGatedDeltaNet(config, 0), (2, 1024, 1024)


def mamba2():
    # Longer chunks than 64 need many times the memory: the fallback forms all pairs of positions times heads times state.
    config = Mamba2Config(
        hidden_size=512, num_hidden_layers=1, expand=2, num_heads=16, head_dim=64, n_groups=1, state_size=128, chunk_size=64
    )
    return Mamba2Mixer(config, 0), (2, 512, 512)


class LatentAttention(torch.nn.Module):
    """An attention with the positions that a model would hand it."""

    def __init__(self, config, length):
        super().__init__()
        self.attention = DeepseekV3Attention(config, 0)
        rotary, positions = DeepseekV3RotaryEmbedding(config), torch.arange(length)[None]
        self.position_embeddings = rotary(torch.empty(1, length, 1), positions)

    def forward(self, x):
        return self.attention(x, self.position_embeddings, attention_mask=None)[0]


def latent_attention():
    config = DeepseekV3Config(
        hidden_size=1024, num_hidden_layers=1, num_attention_heads=16, num_key_value_heads=16, q_lora_rank=384,
        kv_lora_rank=256, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64, max_position_embeddings=1024,
    )
    config._attn_implementation = "sdpa"
    return LatentAttention(config, 1024), (2, 1024, 1024)


MIXERS = {"gated_delta_net": gated_delta_net, "mamba2": mamba2, "latent_attention": latent_attention}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mixer", choices=MIXERS)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    mixer, shape = MIXERS[arguments.mixer]()
    x, grad = torch.randn(shape, requires_grad=True), torch.randn(shape)
    seconds = []
    for _ in range(WARMUP_STEPS + arguments.steps):
        mixer.zero_grad()
        x.grad = None
        start = time.perf_counter()
        mixer(x).backward(grad)
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[WARMUP_STEPS:])
    tokens = shape[0] * shape[1]
    facts = {"mixer": arguments.mixer, "threads": torch.get_num_threads(), "step_seconds": round(median, 5)}
    print(json.dumps(facts | {"tokens_per_second": round(tokens / median, 1)}))


if __name__ == "__main__":
    main()
