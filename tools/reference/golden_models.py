"""Makes tests/golden/models: per family a tiny Hugging Face folder and its exact answers.

usage: golden_models.py OUT_DIR [FAMILY ...]

OUT_DIR/<family>/ holds
  config.json, model.safetensors   as save_pretrained writes them (float32 weights)
  config_v4.json                   the older spelling (rope_theta, rope_scaling, torch_dtype), scaled rope only
  golden.safetensors               tokens [2, S] and labels [2, S] int64 (labels are shifted already, -100 = ignored),
                                   logits [2, S, V], loss [1], grad.<parameter>: computed in float64, stored as float32;
                                   logits32: the same from the float32 model;
                                   llama_dynamic: also tokens_long [2, 80] and logits_long, beyond max_position_embeddings
  golden.json                      versions, seed, and how far float32 is from float64
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

import tiny_models

LENGTH = 40
LONG_LENGTH = 80
IGNORED = -100
MASKED_PREFIX = 5  # of the second sequence, so that a mean of means differs from the mean


def random_tokens(length, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, tiny_models.VOCAB_SIZE, (2, length), generator=generator)


def shifted_labels(tokens):
    labels = torch.full_like(tokens, IGNORED)
    labels[:, :-1] = tokens[:, 1:]
    labels[1, :MASKED_PREFIX] = IGNORED
    return labels


def exact_answers(model, tokens, labels):
    """Logits, loss and every gradient in float64, rounded once to float32."""
    exact = tiny_models.to_float64(model)
    logits = tiny_models.forward(exact, tokens)
    assert logits.dtype == torch.float64
    loss = tiny_models.mean_cross_entropy(logits, labels)
    loss.backward()
    answers = {"logits": logits.detach(), "loss": loss.detach().reshape(1)}
    for name, parameter in exact.named_parameters():
        assert parameter.grad.abs().max() > 0, name
        answers[f"grad.{name}"] = parameter.grad
    return answers, exact


def write_older_config(folder):
    """config.json in the spelling of transformers 4, where rotary settings differ from the default."""
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters", {})
    if rope.get("rope_type") not in ("llama3", "yarn"):
        return
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    config.pop("layer_types", None)
    (folder / "config_v4.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_family(family, folder):
    """Writes one family's folder; returns the largest relative distance of float32 logits."""
    seed = tiny_models.SEED
    model = tiny_models.make_model(family)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_older_config(folder)

    tokens = random_tokens(LENGTH, seed)
    golden = {"tokens": tokens, "labels": shifted_labels(tokens)}
    answers, exact = exact_answers(model, tokens, golden["labels"])
    with torch.no_grad():
        golden["logits32"] = tiny_models.forward(model, tokens)
        if family == "llama_dynamic":
            golden["tokens_long"] = random_tokens(LONG_LENGTH, seed + 1)
            golden["logits_long"] = tiny_models.forward(exact, golden["tokens_long"]).float()
    distance = (golden["logits32"] - answers["logits"]).abs().max() / answers["logits"].abs().max()
    golden |= {name: value.to(torch.float32) for name, value in answers.items()}
    check_names(folder, golden)
    save_file({name: value.contiguous() for name, value in golden.items()}, folder / "golden.safetensors")
    write_facts(folder, family, answers["loss"].item(), distance.item())
    return distance.item()


def check_names(folder, golden):
    """Gradients carry exactly the names of the saved weights."""
    weights = set(load_file(folder / "model.safetensors"))
    gradients = {name.removeprefix("grad.") for name in golden if name.startswith("grad.")}
    assert weights == gradients, weights ^ gradients


def write_facts(folder, family, loss, distance):
    facts = {
        "script": "tools/reference/golden_models.py",
        "versions": tiny_models.versions(),
        "family": family,
        "seed": tiny_models.SEED,
        "loss": loss,
        "max_relative_logits32_error": distance,
    }
    (folder / "golden.json").write_text(json.dumps(facts, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    for family in arguments.families or tiny_models.FAMILIES:
        folder = arguments.out_dir / family
        folder.mkdir(parents=True, exist_ok=True)
        distance = write_family(family, folder)
        print(f"{family}: float32 logits are within {distance:.2e} of float64")


if __name__ == "__main__":
    main()
