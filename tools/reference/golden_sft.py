"""Makes tests/golden/sft: thirty steps of supervised fine-tuning of tiny models by transformers, exactly and in float32.

usage: golden_sft.py OUT_DIR [MODEL...]

Per model (dense Llama, a mixture of experts, latent attention with a mixture, gpt-oss) a Hugging Face folder OUT_DIR/<model>
with config.json, model.safetensors (random weights) and sft.safetensors:
  ids, labels            int32: all samples, one behind the other; labels are not shifted, -100 is not learnt
  lengths [120]          int32: of each sample
  loss, grad_norm, lr [30]   float64 run, stored as float64; grad_norm before clipping, lr of that update
  loss32 [30]            the same losses from the float32 run

The rules are those of transformers' Trainer:
  batch       step i takes samples 4 i ... 4 i + 3, in two micro-batches of two, padded on the right to the longer one
              under an attention mask; the loss is divided by the number of labels of all four (num_items_in_batch)
  optimizer   AdamW, betas (0.9, 0.999), eps 1e-8; weight decay 0.1 on parameters of two or more dimensions that
              are no biases
  clipping    norm 1.0
  schedule    get_cosine_schedule_with_warmup, 5 of 30 steps, peak 5e-3
"""

import argparse
import contextlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    GptOssConfig,
    LlamaConfig,
    Qwen3MoeConfig,
    get_cosine_schedule_with_warmup,
)

import tiny_models

STEPS, WARMUP_STEPS, PEAK = 30, 5, 5e-3
BATCH, MICRO_BATCH = 4, 2
WEIGHT_DECAY, MAX_NORM = 0.1, 1.0
IGNORED = -100
SUCCESSORS = 4  # of each state of the Markov chain

SHARED = dict(
    vocab_size=tiny_models.VOCAB_SIZE,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
    rms_norm_eps=1e-6,
    bos_token_id=1,
    eos_token_id=2,
)
MODELS = {
    "llama": lambda: LlamaConfig(**SHARED, num_key_value_heads=2),
    "qwen3_moe": lambda: Qwen3MoeConfig(
        **SHARED,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=6,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        norm_topk_prob=True,
        router_aux_loss_coef=0.0,
    ),
    "deepseek_v2": lambda: DeepseekV2Config(
        **SHARED,
        num_key_value_heads=4,
        q_lora_rank=12,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=4,
        v_head_dim=6,
        n_routed_experts=4,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        first_k_dense_replace=1,
        topk_method="greedy",
    ),
    "gpt_oss": lambda: GptOssConfig(
        **SHARED,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=5,
        num_experts_per_tok=2,
        router_aux_loss_coef=0.0,
        sliding_window=8,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
    ),
}


def make_samples(seed):
    """Walks of a random chain as conversations: questions are masked, answers are not; some have two turns."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda low, high: int(torch.randint(low, high, (), generator=generator))
    vocabulary = tiny_models.VOCAB_SIZE
    successors = torch.randint(0, vocabulary, (vocabulary, SUCCESSORS), generator=generator)
    samples = []
    for _ in range(STEPS * BATCH):
        ids, labels, state = [], [], draw(0, vocabulary)
        for _ in range(draw(1, 3)):
            for learnt in (False, True):
                for _ in range(draw(2, 12)):
                    state = int(successors[state, draw(0, SUCCESSORS)])
                    ids.append(state)
                    labels.append(state if learnt else IGNORED)
        samples.append((ids, labels))
    return samples


def padded(samples):
    longest = max(len(ids) for ids, _ in samples)
    rows = lambda k, filler: torch.tensor([s[k] + [filler] * (longest - len(s[k])) for s in samples])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in samples])
    return {"input_ids": rows(0, 0), "labels": rows(1, IGNORED), "attention_mask": mask}


def parameter_groups(model):
    is_matrix = lambda name, p: p.dim() >= 2 and not name.endswith("bias")
    matrices = [p for name, p in model.named_parameters() if is_matrix(name, p)]
    vectors = [p for name, p in model.named_parameters() if not is_matrix(name, p)]
    return [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]


def train(model, samples):
    """Runs all updates; returns losses, gradient norms and learning rates."""
    exact = model.dtype == torch.float64
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=PEAK, betas=(0.9, 0.999), eps=1e-8)
    schedule = get_cosine_schedule_with_warmup(optimizer, WARMUP_STEPS, STEPS)
    record = []
    for step in range(STEPS):
        batch = samples[step * BATCH : (step + 1) * BATCH]
        # The first label of a sample is predicted by nothing.
        items = sum(label != IGNORED for _, labels in batch for label in labels[1:])
        loss = 0.0
        with tiny_models.float64_everywhere() if exact else contextlib.nullcontext():
            for begin in range(0, BATCH, MICRO_BATCH):
                part = padded(batch[begin : begin + MICRO_BATCH])
                share = model(**part, num_items_in_batch=items, use_cache=False).loss
                share.backward()
                loss += share.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        rate = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        record.append((loss, norm.item(), rate))
    return torch.tensor(record, dtype=torch.float64).T.contiguous()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("models", nargs="*")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for number, (name, config) in enumerate(MODELS.items()):
        if arguments.models and name not in arguments.models:
            continue
        model = AutoModelForCausalLM.from_config(
            config(), attn_implementation="eager", experts_implementation="eager", dtype=torch.float32
        )
        tiny_models.fill_with_random_weights(model, tiny_models.SEED + number)
        folder = arguments.out_dir / name
        model.eval().save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        samples = make_samples(tiny_models.SEED + number)
        loss, norm, lr = train(tiny_models.to_float64(model), samples)
        loss32, _, _ = train(model, samples)
        flat = lambda k: torch.tensor([value for sample in samples for value in sample[k]], dtype=torch.int32)
        golden = {
            "ids": flat(0),
            "labels": flat(1),
            "lengths": torch.tensor([len(ids) for ids, _ in samples], dtype=torch.int32),
            "loss": loss,
            "grad_norm": norm,
            "lr": lr,
            "loss32": loss32,
        }
        save_file({key: value.contiguous().clone() for key, value in golden.items()}, folder / "sft.safetensors")
        gap = ((loss32 - loss) / loss).abs().max().item()
        clipped = int((norm > MAX_NORM).sum())
        print(f"{name}: loss {loss[0]:.4f} -> {loss[-1]:.4f}, {clipped} of {STEPS} updates clipped, float32 within {gap:.1e}")


if __name__ == "__main__":
    main()
