"""Tiny models of every family and their exact answers, for `model_check`: from transformers where it has the
family, from plain_families otherwise.

usage: family_goldens.py OUT_DIR [NAME ...]

OUT_DIR/<name>/ is a Hugging Face folder with random weights in every tensor, as save_pretrained writes it, and
  golden.safetensors   tokens, labels [2, S] int64 (labels are shifted already, -100 = ignored), logits [2, S, V] float64,
                       loss [1] (that of heads for tokens further ahead in it), and grad.<name> of every trained tensor under its name in model.safetensors
All answers are computed in float64 with eager attention; golden.json says how far transformers' own float32 lies from them.
"""

import argparse
import copy
import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import family_configs
import golden_models
import plain_families
import prediction_heads
import tiny_models


@torch.no_grad()
def fill(model, seed):
    """As tiny_models, and the buffers and vectors that only some families have."""
    tiny_models.fill_with_random_weights(model, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, buffer in sorted(model.named_buffers()):
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
        if name.endswith("tid2eid"):  # different experts for each token
            experts = torch.rand(buffer.shape[0], model.config.n_routed_experts, generator=generator)
            buffer.copy_(experts.argsort(1)[:, :buffer.shape[1]])
    for name, parameter in sorted(model.named_parameters()):
        if name.endswith(("A_log", "dt_bias", ".D", "sinks", "position_bias", "_hc.base", "hc_base")):
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        if name.endswith(("_hc.scale", "hc_scale")):
            parameter.copy_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))


def saved_gradients(model):
    """Every gradient under the name, and in the layout, that save_pretrained gives its parameter."""
    shell = copy.deepcopy(model)
    shell.tie_weights()
    for ours, source in zip(shell.parameters(), model.parameters()):
        ours.data = torch.zeros_like(source) if source.grad is None else source.grad.clone()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    with tempfile.TemporaryDirectory() as folder:
        shell.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors"), without


def write(name, folder, seed):
    config = family_configs.make_config(name)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", experts_implementation="eager", dtype=torch.float32).eval()
    prediction_heads.attach(model)
    fill(model, seed)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokens = golden_models.random_tokens(family_configs.LENGTH, seed)
    labels = golden_models.shifted_labels(tokens)
    with torch.no_grad():
        single = tiny_models.forward(model, tokens)
    exact = tiny_models.to_float64(model)
    with tiny_models.float64_everywhere():
        for (_, ours), (_, theirs) in zip(exact.named_buffers(), model.named_buffers()):
            if theirs.dtype.is_floating_point and "inv_freq" not in _:
                ours.copy_(theirs.double())
    hidden = []
    if prediction_heads.depths(config):
        exact.model.norm.register_forward_hook(lambda module, inputs, output: hidden.append(inputs[0]))
    logits = tiny_models.forward(exact, tokens)
    assert logits.dtype == torch.float64, logits.dtype
    loss = tiny_models.mean_cross_entropy(logits, labels)
    with tiny_models.float64_everywhere():
        if prediction_heads.depths(config):
            loss = loss + prediction_heads.loss(exact, hidden[0], tokens, labels)
        loss.backward()
    gradients, without = saved_gradients(exact)
    weights = load_file(folder / "model.safetensors")
    golden = {"tokens": tokens, "labels": labels, "logits": logits.detach(), "loss": loss.detach().reshape(1)}
    for key, value in gradients.items():
        if key in weights and value.abs().max() > 0:
            golden[f"grad.{key}"] = value
    save_file({key: value.contiguous() for key, value in golden.items()}, folder / "golden.safetensors")
    distance = ((single - logits).abs().max() / logits.abs().max()).item()
    facts = {"versions": tiny_models.versions(), "model_type": config.model_type, "seed": seed, "loss": loss.item(),
             "float32_distance": distance, "tensors": len(weights), "gradients": len(golden) - 4,
             "without_gradient": sorted(without)}
    (folder / "golden.json").write_text(json.dumps(facts, indent=2) + "\n")
    return facts


def write_plain(name, folder, seed):
    """The same for a family of plain_families."""
    config, shapes, forward = plain_families.FAMILIES[name]
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, shape in sorted(shapes(config).items()):
        noise = torch.randn(shape, generator=generator)
        norm = "norm" in key or ".ln_" in key
        weights[key] = 1 + 0.2 * noise if norm else (0.15 if len(shape) > 1 else 0.1) * noise
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokens = golden_models.random_tokens(family_configs.LENGTH, seed)
    labels = golden_models.shifted_labels(tokens)
    exact = {key: value.double().requires_grad_() for key, value in weights.items()}
    logits = forward(exact, config, tokens)
    loss = tiny_models.mean_cross_entropy(logits, labels)
    loss.backward()
    golden = {"tokens": tokens, "labels": labels, "logits": logits.detach(), "loss": loss.detach().reshape(1)}
    golden |= {f"grad.{key}": value.grad for key, value in exact.items() if value.grad is not None}
    save_file({key: value.contiguous() for key, value in golden.items()}, folder / "golden.safetensors")
    facts = {"model_type": config["model_type"], "seed": seed, "loss": loss.item(), "tensors": len(weights),
             "gradients": len(golden) - 4, "without_gradient": sorted(k for k, v in exact.items() if v.grad is None)}
    (folder / "golden.json").write_text(json.dumps(facts, indent=2) + "\n")
    return facts


# Families that came later, in their order: a seed goes by a family's place, and those of the others stay as they are.
LATER = ("step3p5", "deepseek_v4")


def all_names():
    return [*family_configs.CONFIGS, *plain_families.FAMILIES, *family_configs.WITH_HEADS]


def make(out_dir, names):
    """Writes the folders of these names."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    makers = dict.fromkeys(family_configs.CONFIGS, write) | dict.fromkeys(plain_families.FAMILIES, write_plain)
    makers |= dict.fromkeys(family_configs.WITH_HEADS, write)
    for index, name in enumerate([*(name for name in makers if name not in LATER), *LATER]):
        if name not in names:
            continue
        maker = makers[name]
        folder = out_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        facts = maker(name, folder, tiny_models.SEED + 100 + index)
        print(f"{name}: {facts['tensors']} tensors, {facts['gradients']} gradients", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    make(arguments.out_dir, arguments.names or all_names())


if __name__ == "__main__":
    main()
