"""Makes tests/golden/lora: adapters of tiny models trained by PEFT, exactly.

usage: golden_lora.py MODELS_DIR OUT_DIR

Starts from the weights of MODELS_DIR (made by golden_models.py). Each case is a folder:
  adapter_config.json, adapter_model.safetensors   where it starts, as PEFT saves it: A and B drawn, float32
  run.safetensors
    tokens [30, 4, 33] int32, loss, grad_norm, lr [30]   as in golden_training.py, float64
    prompt [2, 16] int32, logits [2, 16, vocabulary]     of the start, float64
    final.<tensor>                                       of the adapter after the run, float64, by its name in a PEFT folder

Batches, optimizer (AdamW, decay on matrices), clipping and schedule are those of golden_training.py; what the
adapter does not name is frozen.
"""

import argparse
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import golden_training
import tiny_models

LLAMA_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# name: (model, options of LoraConfig)
CASES = {
    "llama2": ("llama2", dict(r=4, lora_alpha=8, target_modules=LLAMA_LINEARS)),
    "llama2_some": ("llama2", dict(r=2, lora_alpha=8, use_rslora=True, target_modules=["k_proj", "up_proj"])),
    "llama2_dora": ("llama2", dict(r=3, lora_alpha=6, use_dora=True, target_modules=LLAMA_LINEARS)),
    "gpt2": ("gpt2", dict(r=3, lora_alpha=6, target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True)),
    "qwen3": ("qwen3", dict(r=4, lora_alpha=4, target_modules=LLAMA_LINEARS, modules_to_save=["norm", "q_norm"])),
}


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


def golden_case(models_dir, family, options, folder):
    single = AutoModelForCausalLM.from_pretrained(models_dir / family, attn_implementation="eager", dtype=torch.float32)
    model = get_peft_model(tiny_models.to_float64(single.eval()), LoraConfig(task_type="CAUSAL_LM", **options)).eval()
    model = model.double()
    draw_adapter(model, tiny_models.SEED)
    start = {name: value.detach().float().contiguous().clone() for name, value in get_peft_model_state_dict(model).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(start, folder / "adapter_model.safetensors")
    config = model.peft_config["default"]
    config.base_model_name_or_path = family
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(folder)
    tokens = golden_training.markov_tokens(tiny_models.SEED)
    prompt = tokens[0, :2, :16]
    with torch.no_grad():
        logits = tiny_models.forward(model, prompt)
    loss, norm, lr = golden_training.train(model, tokens)
    golden = {"tokens": tokens.int(), "loss": loss, "grad_norm": norm, "lr": lr, "prompt": prompt.int(), "logits": logits}
    final = {f"final.{name}": value.detach() for name, value in get_peft_model_state_dict(model).items()}
    save_file({n: v.contiguous().clone() for n, v in (golden | final).items()}, folder / "run.safetensors")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"{trained} trained, loss {loss[0]:.4f} -> {loss[-1]:.4f}, norm {norm[0]:.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, (family, options) in CASES.items():
        print(f"{name}: {golden_case(arguments.models_dir, family, options, arguments.out_dir / name)}")


if __name__ == "__main__":
    main()
