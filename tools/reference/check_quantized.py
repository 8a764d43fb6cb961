#!/usr/bin/env python3
"""Checks `qianli convert` on folders whose weights are quantised.

    check_quantized.py PROGRAM WORK_FOLDER DEEPSEEK_V3_FOLDER

Makes of DEEPSEEK_V3_FOLDER (any Hugging Face folder with unquantised weights) one in float8 blocks,
and a random gpt-oss folder in MXFP4; converts both to float32 and to the default type; compares
every element with what transformers' own dequantisation makes of the quantised files, in the model
that transformers loads from them.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GptOssConfig, GptOssForCausalLM, Mxfp4Config
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

BLOCK = 16  # of the tiny model: several blocks in every matrix


def quantize_fp8(source: Path, target: Path, generator: torch.Generator) -> None:
    target.mkdir(parents=True)
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK],
    }
    (target / "config.json").write_text(json.dumps(config))
    tensors = {}
    for name, value in load_file(source / "model.safetensors").items():
        if not name.endswith("_proj.weight") and not name.endswith("_mqa.weight"):
            tensors[name] = value
            continue
        rows, columns = value.shape
        scales = torch.empty(-(-rows // BLOCK), -(-columns // BLOCK))
        codes = torch.empty(rows, columns, dtype=torch.float8_e4m3fn)
        for i in range(scales.shape[0]):
            for j in range(scales.shape[1]):
                part = (slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK))
                scales[i, j] = value[part].abs().max() / 448 * (1 + torch.rand((), generator=generator))
                codes[part] = (value[part] / scales[i, j]).to(torch.float8_e4m3fn)
        tensors[name], tensors[name + "_scale_inv"] = codes, scales
    save_file(tensors, target / "model.safetensors", {"format": "pt"})


def dequantize_fp8(folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    stored = load_file(folder / "model.safetensors")
    theirs = Fp8Dequantize(None)
    values = {}
    for name, value in stored.items():
        if name.endswith("_scale_inv"):
            continue
        scales = stored.get(name + "_scale_inv")
        if scales is None:
            values[name] = value
            continue
        rows, columns = value.shape
        # transformers wants whole blocks: zeros fill those at the edges.
        padded = torch.zeros(scales.shape[0] * BLOCK, scales.shape[1] * BLOCK).to(value.dtype)
        padded.view(torch.uint8)[:rows, :columns] = value.view(torch.uint8)
        values[name] = theirs._dequantize_one(padded, scales, dtype)[:rows, :columns]
    return values


def make_gpt_oss(folder: Path, generator: torch.Generator) -> None:
    config = GptOssConfig(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, head_dim=16,
        num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2, sliding_window=8, max_position_embeddings=64,
        eos_token_id=2, pad_token_id=None,
    )
    torch.manual_seed(5)
    model = GptOssForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, rows_in, rows_out = tensors.pop(name).shape
        shape = (experts, rows_out, rows_in // 32)
        tensors[name + "_blocks"] = torch.randint(0, 256, (*shape, 16), generator=generator, dtype=torch.uint8)
        tensors[name + "_scales"] = torch.randint(118, 126, shape, generator=generator, dtype=torch.uint8)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    (folder / "config.json").write_text(json.dumps(config))


def dequantize_mxfp4(folder: Path) -> dict[str, torch.Tensor]:
    stored = load_file(folder / "model.safetensors")
    values = {name: value for name, value in stored.items() if not name.endswith(("_blocks", "_scales"))}
    for name in [name for name in stored if name.endswith("_blocks")]:
        stem = name.removesuffix("_blocks")
        values[stem] = convert_moe_packed_tensors(stored[name], stored[stem + "_scales"])
    return values


def compare(converted: Path, expected: dict[str, torch.Tensor]) -> None:
    ours = load_file(converted / "model.safetensors")
    if ours.keys() != expected.keys():
        raise SystemExit(f"{converted}: names differ: {sorted(ours.keys() ^ expected.keys())[:5]}")
    for name, value in expected.items():
        if ours[name].shape != value.shape or not torch.equal(ours[name].float(), value.float()):
            raise SystemExit(f"{converted}: {name} differs")
    types = sorted({str(value.dtype) for value in ours.values()})
    print(f"{converted}: {sum(v.numel() for v in ours.values())} elements as transformers has them, {', '.join(types)}")


def convert(program: str, source: Path, target: Path, *options: str) -> Path:
    subprocess.run([program, "convert", str(source), str(target), "--to", "hf", "--verify", *options], check=True)
    return target


def logits(model) -> torch.Tensor:
    tokens = torch.arange(24).reshape(2, 12) * 3
    with torch.no_grad():
        return model.eval()(tokens).logits


def main() -> None:
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    program, work, source = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    generator = torch.Generator().manual_seed(11)

    quantize_fp8(source, work / "fp8", generator)
    rounded = {n: v if v.dtype != torch.float32 or n not in quantized(work / "fp8") else v.bfloat16()
               for n, v in dequantize_fp8(work / "fp8", torch.float32).items()}
    compare(convert(program, work / "fp8", work / "fp8_float32", "--dtype", "fp32"),
            dequantize_fp8(work / "fp8", torch.float32))
    compare(convert(program, work / "fp8", work / "fp8_default"), rounded)

    make_gpt_oss(work / "mxfp4", generator)
    compare(convert(program, work / "mxfp4", work / "mxfp4_float32", "--dtype", "fp32"), dequantize_mxfp4(work / "mxfp4"))
    folder = convert(program, work / "mxfp4", work / "mxfp4_default")
    compare(folder, dequantize_mxfp4(work / "mxfp4"))
    theirs = AutoModelForCausalLM.from_pretrained(work / "mxfp4", quantization_config=Mxfp4Config(dequantize=True),
                                                  dtype=torch.bfloat16)
    if not torch.equal(logits(theirs), logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16))):
        raise SystemExit("logits of the MXFP4 folder and of the converted one differ")
    print("mxfp4: transformers' logits of the quantised and the converted folder are identical")


def quantized(folder: Path) -> set[str]:
    stored = load_file(folder / "model.safetensors")
    return {name.removesuffix("_scale_inv") for name in stored if name.endswith("_scale_inv")}


if __name__ == "__main__":
    main()
