#!/usr/bin/env python3
"""Checks `qianli convert --adapter` against PEFT's merge_and_unload.

    check_adapter.py PROGRAM WORK_FOLDER MODELS_FOLDER

MODELS_FOLDER holds tiny Hugging Face folders (tests/golden/models). For a number of settings: LoRA,
rsLoRA, DoRA, patterns of ranks and alphas, modules that are saved whole, embeddings, GPT-2's Conv1D,
float32 and bf16. Says for each how many elements differ from PEFT's, and by how much at most.

Then LoRA in Megatron's rank files, cut here over tensor and pipeline ranks as MindSpeed-LLM trains it: PEFT loads what
`--to peft` writes, and what it merges must be what `qianli convert` makes of the rank files.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "lora": ("llama2", torch.float32, dict(r=4, lora_alpha=8, target_modules=LINEAR)),
    "rslora": ("qwen2", torch.float32, dict(r=6, lora_alpha=9, use_rslora=True, target_modules="all-linear")),
    "dora": ("qwen3", torch.float32, dict(r=4, lora_alpha=8, use_dora=True, target_modules=LINEAR)),
    "patterns": ("llama2", torch.float32, dict(
        r=4, lora_alpha=8, target_modules=r".*\.(q|v|down)_proj", rank_pattern={"q_proj": 2, r"layers\.1\..*v_proj": 7},
        alpha_pattern={"self_attn.q_proj": 5, "^model.layers.0.mlp.down_proj": 3})),
    "saved": ("llama2", torch.float32, dict(
        r=3, lora_alpha=3, target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"])),
    "embedding": ("llama2", torch.float32, dict(r=4, lora_alpha=8, target_modules=["embed_tokens", "v_proj", "lm_head"])),
    "biases": ("qwen2", torch.float32, dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], bias="all")),
    "conv1d": ("gpt2", torch.float32, dict(r=4, lora_alpha=8, target_modules=["c_attn", "c_proj", "c_fc"])),
    "conv1d_dora": ("gpt2", torch.float32, dict(r=4, lora_alpha=8, use_dora=True, target_modules=["c_attn", "c_proj"])),
    "bf16": ("llama2", torch.bfloat16, dict(r=16, lora_alpha=32, target_modules=LINEAR)),
}


def shake(model: PeftModel) -> None:
    """Adapters start as nothing: gives every trained tensor random values."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        noise = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        parameter.data.copy_(parameter.data + 0.05 * noise if "magnitude" not in name else parameter.data * (1 + 0.1 * noise))


def check(program: str, work: Path, name: str, models: Path) -> None:
    golden, dtype, options = CASES[name]
    folder = work / name
    shutil.rmtree(folder, ignore_errors=True)
    base, adapter, merged, ours = (folder / part for part in ("base", "adapter", "merged", "ours"))
    AutoModelForCausalLM.from_pretrained(models / golden, dtype=dtype).save_pretrained(base)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=dtype),
                           LoraConfig(task_type="CAUSAL_LM", **options), autocast_adapter_dtype=False)
    shake(model)
    model.save_pretrained(adapter)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), adapter,
                                       autocast_adapter_dtype=False)
    loaded.merge_and_unload().save_pretrained(merged)
    subprocess.run([program, "convert", base, ours, "--to", "hf", "--adapter", adapter, "--verify"], check=True,
                   capture_output=True)
    theirs, mine = load_file(merged / "model.safetensors"), load_file(ours / "model.safetensors")
    if theirs.keys() != mine.keys():
        raise SystemExit(f"{name}: names differ: {sorted(theirs.keys() ^ mine.keys())[:4]}")
    total = different = 0
    worst = changed = 0.0
    original = load_file(base / "model.safetensors")
    for key, value in theirs.items():
        if value.dtype != mine[key].dtype:
            raise SystemExit(f"{name}: {key} is {mine[key].dtype}, expected {value.dtype}")
        difference = (value.double() - mine[key].double()).abs()
        total += value.numel()
        different += int((difference > 0).sum())
        worst = max(worst, float((difference / value.double().abs().max().clamp(min=1e-30)).max()))
        changed = max(changed, float((value.double() - original[key].double()).abs().max()))
    epsilon = torch.finfo(dtype).eps
    print(f"{name}: {different} of {total} elements differ from PEFT's, by up to {worst / epsilon:.2f} epsilon of the "
          f"tensor's largest; the adapter changed weights by up to {changed:.3f}")
    # PEFT takes DoRA's norms in float32, we take them in float64; in bf16 it rounds twice, we once.
    bound = 3 if options.get("use_dora") else 1 if dtype == torch.bfloat16 else 0
    if worst > bound * epsilon or changed < 0.01:
        raise SystemExit(f"{name}: expected no difference beyond rounding")


def compare(name: str, theirs: Path, mine: Path) -> None:
    theirs, mine = load_file(theirs / "model.safetensors"), load_file(mine / "model.safetensors")
    if theirs.keys() != mine.keys():
        raise SystemExit(f"{name}: names differ: {sorted(theirs.keys() ^ mine.keys())[:4]}")
    different = sum(int((theirs[key] != mine[key]).sum()) for key in theirs)
    print(f"{name}: {different} of {sum(t.numel() for t in theirs.values())} elements differ from PEFT's")
    if different:
        raise SystemExit(f"{name}: expected none")


class Cut:
    """Random adapters of a llama's layers, and what tensor rank `rank` of `size` holds of them."""

    def __init__(self, config, rank_of_lora: int) -> None:
        self.config, self.r = config, rank_of_lora
        self.generator = torch.Generator().manual_seed(5)
        self.layers = [self.layer() for _ in range(config.num_hidden_layers)]

    def matrix(self, rows: int, columns: int) -> torch.Tensor:
        return 0.1 * torch.randn(rows, columns, generator=self.generator)

    def layer(self) -> dict:
        c, h, f = self.config, self.config.hidden_size, self.config.intermediate_size
        q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        return {
            "qkv": (self.matrix(self.r, h), [self.matrix(rows, self.r) for rows in (q, kv, kv)]),
            "proj": (self.matrix(self.r, q), self.matrix(h, self.r)),
            "fc1": (self.matrix(self.r, h), [self.matrix(f, self.r) for _ in range(2)]),
            "fc2": (self.matrix(self.r, f), self.matrix(h, self.r)),
        }

    def of_rank(self, layer: int, rank: int, size: int) -> dict:
        adapters, groups = self.layers[layer], self.config.num_key_value_heads
        a, (q, k, v) = adapters["qkv"]
        by_group = [part.view(groups, -1, self.r) for part in (q, k, v)]
        woven = torch.cat(by_group, dim=1).chunk(size)[rank].reshape(-1, self.r)
        fc1_a, branches = adapters["fc1"]
        out = {"self_attention.linear_qkv": (a, woven),
               "mlp.linear_fc1": (fc1_a, torch.cat([branch.chunk(size)[rank] for branch in branches]))}
        for name, module in (("proj", "self_attention.linear_proj"), ("fc2", "mlp.linear_fc2")):
            a, b = adapters[name]
            out[module] = (a.chunk(size, dim=1)[rank], b)
        return {module: tuple(t.clone() for t in pair) for module, pair in out.items()}


def check_megatron(program: str, work: Path, models: Path, tensor: int, pipeline: int) -> None:
    name = f"megatron tensor {tensor} pipeline {pipeline}"
    folder = work / name.replace(" ", "_")
    shutil.rmtree(folder, ignore_errors=True)
    base, ranks, adapter, merged, ours = (folder / p for p in ("base", "ranks", "adapter", "merged", "ours"))
    model = AutoModelForCausalLM.from_pretrained(models / "llama2", dtype=torch.float32)
    model.save_pretrained(base)

    def convert(*arguments) -> None:
        subprocess.run([program, "convert", *arguments], check=True, capture_output=True)

    convert(base, ranks, "--to", "mindspeed", "--tensor", str(tensor), "--pipeline", str(pipeline))
    cut = Cut(model.config, 4)
    for file in sorted(ranks.glob("iter_*/mp_rank_*/model_optim_rng.pt")):
        numbers = [int(n) for n in file.parent.name.split("_")[2:]] + [0]
        saved = torch.load(file, weights_only=False)
        local = model.config.num_hidden_layers // pipeline
        for layer in range(local):
            for module, (a, b) in cut.of_rank(numbers[1] * local + layer, numbers[0], tensor).items():
                key = f"decoder.layers.{layer}.{module}"
                saved["model"][f"{key}.base_layer.weight"] = saved["model"].pop(f"{key}.weight")
                saved["model"][f"{key}.lora_A.default.weight"] = a
                saved["model"][f"{key}.lora_B.default.weight"] = b
        saved["args"].lora_r, saved["args"].lora_alpha = 4, 8
        torch.save(saved, file)
    convert(ranks, adapter, "--to", "peft", "--verify")
    convert(ranks, ours, "--to", "hf", "--verify")
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    loaded.merge_and_unload().save_pretrained(merged)
    compare(name, merged, ours)


def main() -> None:
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    for name in CASES:
        check(sys.argv[1], Path(sys.argv[2]), name, Path(sys.argv[3]))
    for tensor, pipeline in ((1, 1), (2, 1), (2, 2)):
        check_megatron(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), tensor, pipeline)


if __name__ == "__main__":
    main()
