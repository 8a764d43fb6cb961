"""Generation speed of transformers on the CPU with a key/value cache: the peer of our `generate`.

usage: bench_generate.py MODEL [--prompt-tokens N] [--new-tokens N] [--batch N] [--dtype float32|bfloat16]
                         [--threads N] [--repeat N] [--json]

The prompt is random tokens of the model's vocabulary; decoding is greedy and ignores the end token. A loop over the
model's forward is timed, without the overhead of `model.generate`. Speeds are those of the median repetition.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from transformers import AutoModelForCausalLM


@torch.inference_mode()
def generate(model, prompt, new_tokens):
    """Returns the seconds of the prompt and of the new_tokens - 1 single-token steps after it."""
    start = time.perf_counter()
    out = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
    token = out.logits[:, -1:].argmax(-1)
    prompt_seconds = time.perf_counter() - start

    start = time.perf_counter()
    for _ in range(new_tokens - 1):
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
        token = out.logits[:, -1:].argmax(-1)
    return prompt_seconds, time.perf_counter() - start


def measure(arguments):
    dtype = getattr(torch, arguments.dtype)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype).eval()
    prompt = torch.randint(0, model.config.vocab_size, (arguments.batch, arguments.prompt_tokens))
    generate(model, prompt, 2)
    times = [generate(model, prompt, arguments.new_tokens) for _ in range(arguments.repeat)]
    prompt_seconds, decode_seconds = (statistics.median(column) for column in zip(*times))
    return {
        "peer": "transformers",
        "model": arguments.model,
        "dtype": arguments.dtype,
        "batch": arguments.batch,
        "threads": torch.get_num_threads(),
        "prompt_tokens": arguments.prompt_tokens,
        "new_tokens": arguments.new_tokens,
        "prompt_tokens_per_second": prompt.numel() / prompt_seconds,
        "tokens_per_second_decode": arguments.batch * (arguments.new_tokens - 1) / decode_seconds,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.new_tokens < 2:
        parser.error("--new-tokens: expected at least 2, got %d" % arguments.new_tokens)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            "{peer} {dtype}: prompt {prompt_tokens_per_second:.0f} tokens/s, decode {tokens_per_second_decode:.1f} tokens/s, "
            "{gib:.2f} GiB, {threads} threads".format(gib=result["peak_rss_bytes"] / 2**30, **result)
        )


if __name__ == "__main__":
    main()
