"""Makes tests/golden/moe: per family the mixture-of-experts block of transformers, with random weights, and its
exact answers.

usage: golden_moe.py OUT_DIR [FAMILY ...]

OUT_DIR/<family>.safetensors holds, in float64,
  x, grad_y [T, h]     the input and the gradient of the output
  y [T, h]             the output, grad.x that of the input
  <name>, grad.<name>  every parameter in the layout of Qianli's parameter table (router.weight,
                       experts.linear_fc1.weight [E, 2 m, h] with all gate rows first, ...), and its gradient
  aux_loss [1], aux_grad.router.weight
                       mixtral only: the load balancing loss of transformers divided by k (transformers sums
                       over the k choices, Megatron averages) and its gradient
Weights and inputs are random numbers rounded to float32, so that both precisions can start from the same ones.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    DbrxConfig,
    DeepseekV2Config,
    DeepseekV3Config,
    Glm4MoeConfig,
    GptOssConfig,
    LongcatFlashConfig,
    MixtralConfig,
    PhimoeConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)
from transformers.models.dbrx.modeling_dbrx import DbrxFFN
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeMoE
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP
from transformers.models.longcat_flash.modeling_longcat_flash import LongcatFlashMoE
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func
from transformers.models.phimoe.modeling_phimoe import PhimoeSparseMoeBlock
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

import tiny_models

HIDDEN, WIDTH, EXPERTS, TOKENS = 12, 6, 8, 21
_SHARED = dict(hidden_size=HIDDEN, num_attention_heads=4, experts_implementation="eager")
FLOAT32 = torch.float32  # inside float64_everywhere the name means float64


def _deepseek(config, **more):
    return config(
        **_SHARED,
        moe_intermediate_size=WIDTH,
        n_routed_experts=EXPERTS,
        num_local_experts=EXPERTS,
        num_experts=EXPERTS,
        n_group=4,
        topk_group=2,
        **more,
    )


FAMILIES = {
    "mixtral": lambda: MixtralSparseMoeBlock(
        MixtralConfig(**_SHARED, intermediate_size=WIDTH, num_local_experts=EXPERTS, num_experts_per_tok=2)
    ),
    "qwen2_moe": lambda: Qwen2MoeSparseMoeBlock(
        Qwen2MoeConfig(
            **_SHARED,
            moe_intermediate_size=WIDTH,
            shared_expert_intermediate_size=10,
            num_experts=EXPERTS,
            num_experts_per_tok=3,
            norm_topk_prob=False,
        )
    ),
    "qwen3_moe": lambda: Qwen3MoeSparseMoeBlock(
        Qwen3MoeConfig(
            **_SHARED, moe_intermediate_size=WIDTH, num_experts=EXPERTS, num_experts_per_tok=3, norm_topk_prob=True
        )
    ),
    "deepseek_v2": lambda: DeepseekV2Moe(
        _deepseek(
            DeepseekV2Config,
            num_experts_per_tok=3,
            n_shared_experts=2,
            topk_method="group_limited_greedy",
            routed_scaling_factor=16.0,
        )
    ),
    "deepseek_v3": lambda: DeepseekV3MoE(
        _deepseek(
            DeepseekV3Config,
            num_experts_per_tok=3,
            n_shared_experts=1,
            norm_topk_prob=True,
            routed_scaling_factor=2.5,
        )
    ),
    "glm4_moe": lambda: Glm4MoeMoE(
        Glm4MoeConfig(
            **_SHARED,
            moe_intermediate_size=WIDTH,
            n_routed_experts=EXPERTS,
            num_local_experts=EXPERTS,
            num_experts_per_tok=4,
            n_shared_experts=1,
            n_group=1,
            topk_group=1,
            norm_topk_prob=True,
            routed_scaling_factor=1.5,
        )
    ),
    "gpt_oss": lambda: GptOssMLP(
        GptOssConfig(**_SHARED, intermediate_size=WIDTH, num_local_experts=EXPERTS, num_experts_per_tok=4)
    ),
    "phimoe": lambda: PhimoeSparseMoeBlock(
        PhimoeConfig(
            **_SHARED,
            intermediate_size=WIDTH,
            num_local_experts=EXPERTS,
            num_experts_per_tok=2,
            router_jitter_noise=0.1,
        )
    ),
    "dbrx": lambda: DbrxFFN(
        DbrxConfig(
            d_model=HIDDEN,
            ffn_config=dict(
                ffn_act_fn={"name": "silu"},
                ffn_hidden_size=WIDTH,
                hidden_size=HIDDEN,
                moe_num_experts=EXPERTS,
                moe_top_k=3,
                moe_normalize_expert_weights=1.0,
            ),
        )
    ),
    "longcat": lambda: LongcatFlashMoE(
        LongcatFlashConfig(
            **_SHARED,
            expert_ffn_hidden_size=WIDTH,
            n_routed_experts=EXPERTS,
            num_local_experts=EXPERTS,
            zero_expert_num=4,
            moe_topk=4,
            num_experts_per_tok=4,
            routed_scaling_factor=6.0,
        )
    ),
}


def randomize(module, generator):
    """Every weight and buffer random, of the size that keeps activations near 1; values are float32's."""
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            scale = 0.3 if tensor.dim() > 1 else 0.2
            tensor.copy_((scale * torch.randn(tensor.shape, generator=generator, dtype=FLOAT32)).double())
        for name, parameter in module.named_parameters():
            if name.endswith(("gate.weight", "router.weight", "classifier.weight", "layer.weight")):
                parameter *= 1.5  # decided, but no longer so when the sparse mixer looks for near ones
                parameter.copy_(parameter.to(FLOAT32).double())


def by_gate(tensor):
    """gpt-oss weaves gate and up rows."""
    return torch.cat([tensor[:, ::2], tensor[:, 1::2]], dim=1)


def linear(weight):
    return weight.transpose(1, 2)


def parameter_map(family, module):
    """Our name -> (module parameter or buffer names, transform of their values or gradients)."""
    stacked = {
        "experts.linear_fc1.weight": (["experts.gate_up_proj"], lambda w: w),
        "experts.linear_fc2.weight": (["experts.down_proj"], lambda w: w),
    }
    gate = {"router.weight": (["gate.weight"], lambda w: w)}
    shared = {
        "shared_experts.linear_fc1.weight": (
            ["shared_experts.gate_proj.weight", "shared_experts.up_proj.weight"],
            lambda g, u: torch.cat([g, u]),
        ),
        "shared_experts.linear_fc2.weight": (["shared_experts.down_proj.weight"], lambda w: w),
    }
    bias = {"router.expert_bias": (["gate.e_score_correction_bias"], lambda w: w)}
    if family in ("mixtral", "qwen3_moe"):
        return gate | stacked
    if family == "qwen2_moe":
        one = {name: ([n.replace("shared_experts", "shared_expert") for n in names], f) for name, (names, f) in shared.items()}
        return gate | stacked | one | {"shared_experts.gate_weight": (["shared_expert_gate.weight"], lambda w: w)}
    if family == "deepseek_v2":
        return gate | stacked | shared
    if family in ("deepseek_v3", "glm4_moe"):
        return gate | stacked | shared | bias
    if family == "phimoe":
        return {"router.weight": (["router.weight"], lambda w: w)} | stacked
    if family == "gpt_oss":
        return {
            "router.weight": (["router.weight"], lambda w: w),
            "router.bias": (["router.bias"], lambda w: w),
            "experts.linear_fc1.weight": (["experts.gate_up_proj"], lambda w: by_gate(linear(w))),
            "experts.linear_fc1.bias": (["experts.gate_up_proj_bias"], by_gate),
            "experts.linear_fc2.weight": (["experts.down_proj"], linear),
            "experts.linear_fc2.bias": (["experts.down_proj_bias"], lambda w: w),
        }
    if family == "dbrx":
        split = lambda w: w.view(EXPERTS, WIDTH, HIDDEN)
        return {
            "router.weight": (["router.layer.weight"], lambda w: w),
            "experts.linear_fc1.weight": (
                ["experts.mlp.w1", "experts.mlp.v1"],
                lambda g, u: torch.cat([split(g), split(u)], dim=1),
            ),
            "experts.linear_fc2.weight": (["experts.mlp.w2"], lambda w: linear(split(w))),
        }
    if family == "longcat":
        return {
            "router.weight": (["router.classifier.weight"], lambda w: w),
            "router.expert_bias": (["router.e_score_correction_bias"], lambda w: w),
            "experts.linear_fc1.weight": (["experts.gate_up_proj"], lambda w: w[:EXPERTS]),
            "experts.linear_fc2.weight": (["experts.down_proj"], lambda w: w),
        }
    raise ValueError(family)


def tensors_of(family, module):
    found = dict(module.named_parameters()) | dict(module.named_buffers())
    values = {}
    for ours, (names, transform) in parameter_map(family, module).items():
        values[ours] = transform(*[found[name].detach() for name in names])
        if any(name in dict(module.named_buffers()) for name in names):
            continue
        values[f"grad.{ours}"] = transform(*[found[name].grad for name in names])
        assert values[f"grad.{ours}"].abs().max() > 0, ours
    used = {name for names, _ in parameter_map(family, module).values() for name in names}
    assert set(dict(module.named_parameters())) <= used, set(dict(module.named_parameters())) - used
    return values


def write(family, out):
    generator = torch.Generator().manual_seed(tiny_models.SEED)
    with tiny_models.float64_everywhere():
        module = FAMILIES[family]().double().eval()
        randomize(module, generator)
        random = lambda: torch.randn(1, TOKENS, HIDDEN, generator=generator, dtype=FLOAT32).double()
        x, grad_y = random().requires_grad_(True), random()
        y = module(x)
        y = y[0] if isinstance(y, tuple) else y
        assert y.dtype == torch.float64
        y.backward(grad_y)
        golden = {"x": x.detach()[0], "grad_y": grad_y[0], "y": y.detach()[0], "grad.x": x.grad[0]}
        golden |= tensors_of(family, module)
        if family == "mixtral":
            module.zero_grad()
            logits = module.gate(x.detach())[0]
            loss = load_balancing_loss_func((logits,), EXPERTS, 2) / 2
            loss.backward()
            golden |= {"aux_loss": loss.detach().reshape(1), "aux_grad.router.weight": module.gate.weight.grad}
    save_file({name: tensor.contiguous().clone() for name, tensor in golden.items()}, out / f"{family}.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("families", nargs="*", choices=[[], *FAMILIES])
    arguments = parser.parse_args()
    arguments.out_dir.mkdir(parents=True, exist_ok=True)
    for family in arguments.families or FAMILIES:
        write(family, arguments.out_dir)


if __name__ == "__main__":
    main()
