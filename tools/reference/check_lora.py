#!/usr/bin/env python3
"""Trains adapters with `qianli pretrain` and opens what it writes with PEFT.

    check_lora.py PROGRAM WORK_FOLDER MODELS_FOLDER

MODELS_FOLDER holds tiny Hugging Face folders (tests/golden/models). Models of experts and of latent attention are made here.
For each: trains, stops half way and goes on; `convert --to peft`; PEFT loads that on the base. Logits of PEFT's model, of
`qianli score` on the run, and of `qianli convert --to hf` must be equal; the adapter must have moved them, and lowered the loss of
documents it has seen; and the run in two parts must have left the bits of a run in one.
"""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, DeepseekV3Config, GptOssConfig, MixtralConfig, Qwen3MoeConfig

MIXTRAL = dict(vocab_size=160, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
               num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=128)
QWEN3_MOE = dict(vocab_size=160, hidden_size=32, intermediate_size=48, moe_intermediate_size=24, num_hidden_layers=2,
                 num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=6, num_experts_per_tok=2,
                 max_position_embeddings=128)
DEEPSEEK = dict(vocab_size=160, hidden_size=32, intermediate_size=48, moe_intermediate_size=24, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=4, n_shared_experts=1, n_routed_experts=4, num_experts_per_tok=2,
                n_group=2, topk_group=1, first_k_dense_replace=1, kv_lora_rank=16, q_lora_rank=12, qk_rope_head_dim=8,
                qk_nope_head_dim=8, v_head_dim=8, max_position_embeddings=128)
GPT_OSS = dict(vocab_size=160, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
               num_key_value_heads=2, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=16,
               max_position_embeddings=128, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
ATTENTION = "tune.target_modules=[q_proj,k_proj,v_proj,o_proj]"
# PEFT 0.21 takes gate_proj, up_proj and down_proj of these models for experts alone, and finds no dense ones.
LATENT = "tune.target_modules=[q_a_proj,q_b_proj,kv_a_proj_with_mqa,kv_b_proj,o_proj]"
CASES = {
    "lora": ("llama2", ["tune.r=4"]),
    "rslora": ("qwen2", ["tune.r=4", "tune.use_rslora=true", "tune.target_modules=[q_proj,down_proj]", "tune.layers=1"]),
    "dora": ("qwen3", ["tune.r=4", "tune.use_dora=true"]),
    "conv1d": ("gpt2", ["tune.r=4", "tune.loraplus_lr_ratio=4"]),
    "saved": ("llama2", ["tune.r=2", "tune.modules_to_save=[lm_head,embed_tokens]"]),
    "nf4": ("llama2", ["tune.r=4", "tune.quantization=nf4", "tune.double_quant=true"]),
    "mixtral": (MixtralConfig(**MIXTRAL), ["tune.r=4", ATTENTION]),
    "mixtral_experts": (MixtralConfig(**MIXTRAL), ["tune.r=4", "tune.target_modules=[q_proj,w1,w2,w3]"]),
    "qwen3_moe_experts": (Qwen3MoeConfig(**QWEN3_MOE), ["tune.r=4"]),
    "qwen3_moe_down": (Qwen3MoeConfig(**QWEN3_MOE), ["tune.r=4", "tune.target_modules=[v_proj,down_proj]"]),
    "gpt_oss": (GptOssConfig(**GPT_OSS), ["tune.r=4"]),
    "gpt_oss_some": (GptOssConfig(**GPT_OSS), ["tune.r=4", "tune.target_modules=[q_proj,experts.gate_up_proj]", "tune.layers=1"]),
    "deepseek_v3": (DeepseekV3Config(**DEEPSEEK), ["tune.r=4", LATENT, "optim.lr=0.005"]),
}
LENGTH = 24


def make_base(folder: Path, model, models: Path) -> None:
    if isinstance(model, str):
        shutil.copytree(models / model, folder)
        return
    torch.manual_seed(4)
    AutoModelForCausalLM.from_config(model).float().save_pretrained(folder)


def write_tokens(prefix: Path) -> list:
    """A .bin/.idx pair of the documents returned: walks in which few tokens follow each."""
    import numpy

    generator = random.Random(1)
    documents = [[(7 * i + generator.randrange(3)) % 90 for i in range(200)] for _ in range(40)]
    numpy.array(sum(documents, []), dtype=numpy.int32).tofile(f"{prefix}.bin")
    sizes = numpy.array([len(d) for d in documents], dtype=numpy.int32)
    pointers = numpy.cumsum([0] + [4 * len(d) for d in documents[:-1]]).astype(numpy.int64)
    with open(f"{prefix}.idx", "wb") as index:
        index.write(b"MMIDIDX\x00\x00" + (1).to_bytes(8, "little") + (4).to_bytes(1, "little"))
        index.write(len(documents).to_bytes(8, "little") + (len(documents) + 1).to_bytes(8, "little"))
        index.write(sizes.tobytes() + pointers.tobytes())
        index.write(numpy.arange(len(documents) + 1, dtype=numpy.int64).tobytes())
    return documents


def run(*command) -> None:
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def train(program, folder: Path, name: str, base: Path, steps: int, options, extra=()) -> Path:
    (folder / f"{name}.yaml").write_text("precision: fp32\n")
    run(program, "pretrain", folder / f"{name}.yaml", f"model={base}", f"data.path={folder / 'tokens'}",
        f"data.sequence_length={LENGTH}", f"train.steps={steps}", "train.global_batch_size=4", "optim.lr=0.02",
        "optim.warmup_steps=0", "optim.lr_schedule=constant", "tune.method=lora", f"run.dir={folder / name}",
        "data.append_eod=false", "device=cpu", *options, *extra)
    return folder / name


def score(program, model: Path, folder: Path, rows) -> torch.Tensor:
    (folder / "rows.json").write_text(json.dumps(rows))
    out = folder / f"{model.name}.logits.safetensors"
    run(program, "score", model, "--tokens", folder / "rows.json", "--logits", out)
    return load_file(out)["logits"]


def loss_of(logits: torch.Tensor, rows) -> float:
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), torch.tensor(rows)[:, 1:].flatten()).item()


def check(program: str, work: Path, name: str, models: Path) -> None:
    model, options = CASES[name]
    folder = work / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    base = folder / "base"
    make_base(base, model, models)
    rows = [document[:LENGTH] for document in write_tokens(folder / "tokens")]
    whole = train(program, folder, "whole", base, 8, options)
    parts = train(program, folder, "parts", base, 4, options, ["optim.decay_steps=8"])
    train(program, folder, "parts", base, 8, options, ["optim.decay_steps=8"])
    first, second = (load_file(r / "checkpoints/step_8/model-00001-of-00001.safetensors") for r in (whole, parts))
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first), "resumed otherwise"
    run(program, "convert", whole, folder / "peft", "--to", "peft")
    run(program, "convert", whole, folder / "hf", "--to", "hf", "--dtype", "fp32")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    with torch.no_grad():
        before = plain(torch.tensor(rows)).logits
        adapted = PeftModel.from_pretrained(plain, folder / "peft").eval()(torch.tensor(rows)).logits
    scale = adapted.abs().max()
    moved = ((adapted - before).abs().max() / scale).item()
    ours, merged = (score(program, m, folder, rows) for m in (whole, folder / "hf"))
    gaps = [((x.view_as(adapted) - adapted).abs().max() / scale).item() for x in (ours, merged)]
    loss = [loss_of(logits, rows) for logits in (before, adapted)]
    print(f"{name}: loss {loss[0]:.4f} -> {loss[1]:.4f}, logits moved by {moved:.2e}; of the run within {gaps[0]:.1e}, "
          f"merged within {gaps[1]:.1e}")
    assert max(gaps) < 1e-5 < 1e-3 < moved and loss[1] < loss[0], name


def main() -> None:
    program, work, models = sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3])
    torch.set_num_threads(1)
    for name in sys.argv[4:] or CASES:
        check(program, work, name, models)


if __name__ == "__main__":
    main()
