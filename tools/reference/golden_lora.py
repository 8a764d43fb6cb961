"""Makes tests/golden/lora: adapters of tiny models trained by PEFT, exactly.

usage: golden_lora.py GOLDEN_DIR [CASE...]

Starts from the weights of GOLDEN_DIR/models (made by golden_models.py) and GOLDEN_DIR/sft (by golden_sft.py). Each case is a
folder of GOLDEN_DIR/lora:
  adapter_config.json, adapter_model.safetensors   where it starts, as PEFT saves it: A and B drawn, float32
  run.safetensors
    tokens [30, 4, 33] int32, loss, grad_norm, lr [30]   as in golden_training.py, float64
    prompt [2, 16] int32, logits [2, 16, vocabulary]     of the start, float64
    final.<tensor>                                       of the adapter after the run, float64, by its name in a PEFT folder

Batches, optimizer (AdamW, decay on matrices), clipping and schedule are those of golden_training.py; what the
adapter does not name is frozen. Experts, which transformers keeps in one tensor, are taken apart into linear layers first, as
their files name them; PEFT then makes an adapter for each. With target_parameters they stay as they are; `final` has their
matrices one by one.
"""

import argparse
from pathlib import Path
from unittest import mock

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import golden_training
import tiny_models

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LATENT_ATTENTION = ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
LLAMA_LINEARS = ATTENTION + MLP
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
# name: (model, options of LoraConfig)
CASES = {
    "llama2": ("models/llama2", dict(r=4, lora_alpha=8, target_modules=LLAMA_LINEARS)),
    "llama2_some": ("models/llama2", dict(r=2, lora_alpha=8, use_rslora=True, target_modules=["k_proj", "up_proj"])),
    "llama2_dora": ("models/llama2", dict(r=3, lora_alpha=6, use_dora=True, target_modules=LLAMA_LINEARS)),
    "gpt2": ("models/gpt2", dict(r=3, lora_alpha=6, target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True)),
    "qwen3": ("models/qwen3", dict(r=4, lora_alpha=4, target_modules=LLAMA_LINEARS, modules_to_save=["norm", "q_norm"])),
    "qwen3_moe": ("sft/qwen3_moe", dict(r=2, lora_alpha=6, target_modules=ATTENTION + MLP)),
    "deepseek_v2": ("sft/deepseek_v2", dict(r=2, lora_alpha=4, target_modules=LATENT_ATTENTION + MLP)),
    "gpt_oss": ("sft/gpt_oss", dict(r=2, lora_alpha=4, target_modules=ATTENTION, target_parameters=EXPERTS)),
    "gpt_oss_down": ("sft/gpt_oss", dict(r=3, lora_alpha=6, target_modules=[], target_parameters=EXPERTS[1:])),
    "qwen3_moe_stacked": ("sft/qwen3_moe", dict(r=2, lora_alpha=6, target_modules=["q_proj"], target_parameters=EXPERTS)),
}


class Expert(torch.nn.Module):
    def __init__(self, gate_up, down, activation):
        super().__init__()
        gate, up = gate_up.chunk(2)
        self.activation = activation
        for name, weight in (("gate_proj", gate), ("up_proj", up), ("down_proj", down)):
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
            linear.weight.data.copy_(weight)
            setattr(self, name, linear)

    def forward(self, x):
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class SeparateExperts(torch.nn.ModuleList):
    """In the place of a module that holds gate_up_proj [E, 2 f, h] and down_proj [E, h, f]."""

    def __init__(self, fused):
        super().__init__(Expert(*weights, fused.act_fn) for weights in zip(fused.gate_up_proj, fused.down_proj))

    def forward(self, hidden, chosen, weights):
        every = torch.stack([expert(hidden) for expert in self])  # [E, T, h]
        return sum(every[chosen[:, k], torch.arange(len(hidden))] * weights[:, k, None] for k in range(chosen.shape[1]))


def take_experts_apart(model):
    for module in list(model.modules()):
        experts = getattr(module, "experts", None)
        if isinstance(getattr(experts, "gate_up_proj", None), torch.nn.Parameter):
            module.experts = SeparateExperts(experts)
    return model


def draw_adapter(model, seed):
    """B is not zero, so that every gradient is there from the first step on; float32 holds every number."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "magnitude" in name:
            parameter.data.copy_(parameter.data.float())
        if "lora_A" not in name and "lora_B" not in name:
            continue
        values = torch.randn(parameter.shape, generator=generator) * (0.2 if "lora_A" in name else 0.05)
        parameter.data.copy_(values)


def experts_one_by_one(tensors, config, targets):
    """PEFT's matrices of all experts as those of each: ParamWrapper.get_delta_weight says which rows and columns."""
    experts = getattr(config, "num_local_experts", None) or config.num_experts
    apart = {}
    for name, value in tensors.items():
        head, wrapped, matrix = name.partition(".experts.")
        if not wrapped or matrix.startswith("0."):
            apart[name] = value
            continue
        module = "gate_up_proj" if matrix.startswith("base_layer.") or targets == EXPERTS[:1] else "down_proj"
        down = "lora_A" in matrix
        rank = value.shape[0 if down else 1] // experts
        every = value.reshape(experts, rank, -1) if down else value.reshape(-1, rank, experts).permute(2, 0, 1)
        for e in range(experts):
            apart[f"{head}.experts.{e}.{module}.{matrix.removeprefix('base_layer.')}"] = every[e]
    return apart


def golden_case(base, options, folder):
    single = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager", dtype=torch.float32)
    exact = tiny_models.to_float64(single.eval())
    if "target_parameters" not in options:
        exact = take_experts_apart(exact)
    # PEFT would look for the experts where transformers has them.
    with mock.patch("peft.utils.transformers_weight_conversion.convert_peft_config_for_transformers"):
        model = get_peft_model(exact, LoraConfig(task_type="CAUSAL_LM", **options)).eval()
    model = model.double()
    draw_adapter(model, tiny_models.SEED)
    start = {name: value.detach().float().contiguous().clone() for name, value in get_peft_model_state_dict(model).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(start, folder / "adapter_model.safetensors")
    config = model.peft_config["default"]
    config.base_model_name_or_path = base.name
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(folder)
    tokens = golden_training.markov_tokens(tiny_models.SEED)
    prompt = tokens[0, :2, :16]
    with torch.no_grad():
        logits = tiny_models.forward(model, prompt)
    loss, norm, lr = golden_training.train(model, tokens)
    golden = {"tokens": tokens.int(), "loss": loss, "grad_norm": norm, "lr": lr, "prompt": prompt.int(), "logits": logits}
    trained = get_peft_model_state_dict(model)
    if "target_parameters" in options:
        trained = experts_one_by_one(trained, model.config, options["target_parameters"])
    final = {f"final.{name}": value.detach() for name, value in trained.items()}
    save_file({n: v.contiguous().clone() for n, v in (golden | final).items()}, folder / "run.safetensors")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"{trained} trained, loss {loss[0]:.4f} -> {loss[-1]:.4f}, norm {norm[0]:.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("golden_dir", type=Path)
    parser.add_argument("cases", nargs="*")
    arguments = parser.parse_args()
    golden_dir, names = arguments.golden_dir, arguments.cases
    torch.set_num_threads(1)
    for name, (base, options) in CASES.items():
        if names and name not in names:
            continue
        print(f"{name}: {golden_case(golden_dir / base, options, golden_dir / 'lora' / name)}")


if __name__ == "__main__":
    main()
