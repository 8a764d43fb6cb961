"""Makes tests/golden/training: thirty AdamW steps of tiny models, exactly and in float32.

usage: golden_training.py MODELS_DIR OUT_DIR

Starts from the weights of MODELS_DIR (made by golden_models.py) and writes OUT_DIR/<family>.safetensors:
  tokens [30, 4, 33] int32        per step 4 sequences; inputs are [..., :32], targets [..., 1:]
  loss, grad_norm, lr [30]        float64 run, stored as float64; grad_norm before clipping, lr of that update
  loss32, grad_norm32 [30]        the same from the float32 run
  final.<parameter>               weights after the float64 run, stored as float32

The rules:
  batch       two micro-batches of two sequences; loss and gradient are the mean over micro-batches
  optimizer   AdamW, betas (0.9, 0.95), eps 1e-8; weight decay 0.1 on parameters of two or more
              dimensions (embeddings included), 0 on vectors; decay is lr * wd * weight, before the Adam step
  clipping    all gradients times 1 / (norm + 1e-6) where that is below one
  schedule    update k = 0..29 uses n = k, Megatron's rule (the first rate is 0):  n <= 5: lr = max * n / 5;
              later: min + (max - min) * (1 + cos(pi * (n - 5) / (30 - 5))) / 2;  max 1e-2, min 1e-3
"""

import argparse
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import tiny_models

FAMILIES = ("llama2", "gpt2", "qwen3")
STEPS, WARMUP_STEPS = 30, 5
MAX_LR, MIN_LR = 1e-2, 1e-3
SEQUENCES, MICRO_BATCH, LENGTH = 4, 2, 32
WEIGHT_DECAY, MAX_NORM = 0.1, 1.0
SUCCESSORS = 4  # of each state of the Markov chain


def learning_rate(update):
    n = update
    if n <= WARMUP_STEPS:
        return MAX_LR * n / WARMUP_STEPS
    progress = (n - WARMUP_STEPS) / (STEPS - WARMUP_STEPS)
    return MIN_LR + (MAX_LR - MIN_LR) * (1 + math.cos(math.pi * progress)) / 2


def markov_tokens(seed):
    """Walks of a random chain in which every token has few successors: there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    successors = torch.randint(0, tiny_models.VOCAB_SIZE, (tiny_models.VOCAB_SIZE, SUCCESSORS), generator=generator)
    state = torch.randint(0, tiny_models.VOCAB_SIZE, (STEPS, SEQUENCES), generator=generator)
    walk = [state]
    for _ in range(LENGTH):
        choice = torch.randint(0, SUCCESSORS, state.shape, generator=generator)
        state = successors[state, choice]
        walk.append(state)
    return torch.stack(walk, dim=-1)


def make_optimizer(model):
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), eps=1e-8)


def accumulate_gradients(model, batch):
    """Fills the gradients with the mean over the micro-batches; returns the mean loss."""
    micro_batches = batch.split(MICRO_BATCH)
    total = 0.0
    for tokens in micro_batches:
        logits = tiny_models.forward(model, tokens[:, :-1])
        loss = tiny_models.mean_cross_entropy(logits, tokens[:, 1:]) / len(micro_batches)
        loss.backward()
        total += loss.item()
    return total


def train(model, tokens):
    """Runs all updates; returns losses, gradient norms and learning rates."""
    optimizer = make_optimizer(model)
    record = []
    for update, batch in enumerate(tokens):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(update)
        loss = accumulate_gradients(model, batch)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
        record.append((loss, norm.item(), learning_rate(update)))
    return torch.tensor(record, dtype=torch.float64).T.contiguous()


def golden_run(folder, seed):
    single = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    exact = tiny_models.to_float64(single)
    tokens = markov_tokens(seed)
    loss, norm, lr = train(exact, tokens)
    loss32, norm32, _ = train(single, tokens)
    golden = {"tokens": tokens.int(), "loss": loss, "grad_norm": norm, "lr": lr, "loss32": loss32, "grad_norm32": norm32}
    final = {f"final.{name}": value.detach().float() for name, value in exact.named_parameters()}
    return {name: value.contiguous().clone() for name, value in (golden | final).items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out_dir.mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        golden = golden_run(arguments.models_dir / family, tiny_models.SEED)
        save_file(golden, arguments.out_dir / f"{family}.safetensors")
        gap = (golden["loss32"] - golden["loss"]).abs().max().item()
        clipped = int((golden["grad_norm"] > MAX_NORM).sum())
        first, last = golden["loss"][0].item(), golden["loss"][-1].item()
        print(f"{family}: loss {first:.4f} -> {last:.4f}, {clipped} of {STEPS} updates clipped, float32 within {gap:.1e}")


if __name__ == "__main__":
    main()
