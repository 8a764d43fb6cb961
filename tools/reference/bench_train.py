"""Training speed of transformers on the CPU in float32: the peer of our training bench.

usage: bench_train.py --model llama|gpt2|smollm2 [--lora] [--compile] [--steps N] [--threads N] [--json]

A step is forward with sdpa attention, cross entropy, backward, clipping to norm 1, fused AdamW, on random tokens.
  llama   hidden 512, 8 layers, 8 heads, ffn 1376, vocabulary 32000, untied, batch 8 x 256
  gpt2    GPT-2 124M without dropout, batch 4 x 256
  smollm2 SmolLM2 135M, batch 4 x 256
With --lora PEFT trains adapters of rank 16 beside every linear layer but the output.
Tokens per second are from the median step after the warm-up steps; peak memory is the resident set's maximum.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

WARMUP_STEPS = 2


def llama_config():
    return LlamaConfig(
        hidden_size=512,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        intermediate_size=1376,
        vocab_size=32000,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )


def gpt2_config():
    return GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)


def smollm2_config():
    return LlamaConfig(
        hidden_size=576,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
        vocab_size=49152,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )


SHAPES = {"llama": (llama_config, (8, 256)), "gpt2": (gpt2_config, (4, 256)), "smollm2": (smollm2_config, (4, 256))}


def with_adapters(model):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))


def make_step(model, vocabulary, batch):
    """One training step on fresh random tokens; returns the loss."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    rows, length = batch

    def step():
        tokens = torch.randint(0, vocabulary, (rows, length + 1))
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def timed(step, count):
    seconds, losses = [], []
    for _ in range(count):
        start = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - start)
    return seconds, losses


def measure(arguments):
    make_config, batch = SHAPES[arguments.model]
    config = make_config()
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32).train()
    if arguments.lora:
        model = with_adapters(model)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    step = make_step(torch.compile(model) if arguments.compile else model, config.vocab_size, batch)
    first, _ = timed(step, WARMUP_STEPS)
    busy = time.process_time()
    seconds, losses = timed(step, arguments.steps)
    busy = time.process_time() - busy
    median = statistics.median(seconds)
    return {
        "peer": ("PEFT " if arguments.lora else "transformers ") + ("compiled" if arguments.compile else "eager"),
        "model": arguments.model,
        "parameters": parameters,
        "batch": list(batch),
        "threads": torch.get_num_threads(),
        "tokens_per_second": batch[0] * batch[1] / median,
        "step_seconds": median,
        "processor_seconds_per_1000_tokens": 1000 * busy / (arguments.steps * batch[0] * batch[1]),
        "fastest_step_seconds": min(seconds),
        "first_step_seconds": first[0],
        "loss": losses[-1],
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, required=True)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            "{peer} {model}: {tokens_per_second:.0f} tokens/s, step {step_seconds:.3f} s (first {first_step_seconds:.1f} s), "
            "loss {loss:.4f}, {gib:.2f} GiB, {threads} threads".format(gib=result["peak_rss_bytes"] / 2**30, **result)
        )


if __name__ == "__main__":
    main()
