"""Log-probabilities of given tokens with transformers in float32: the reference of `qianli score`.

usage: score.py MODEL --tokens FILE.json OUT.json [--logits OUT.safetensors]

FILE.json is [[ids...], ...]. OUT.json gets
  log_probs    per sequence the log-probability of tokens 1..n-1 given those before: n - 1 numbers
  tokens       how many of them in all
  mean_nll     their negated mean;  perplexity  exp of it
--logits writes float32 `logits` [sequences, length, vocabulary], or `logits.N` per sequence where lengths differ.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


@torch.no_grad()
def sequence_logits(model, ids):
    """Logits [n, V] of one sequence, on its own: no padding."""
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


def token_log_probs(logits, ids):
    log_probs = torch.log_softmax(logits[:-1].double(), dim=-1)
    return log_probs.gather(1, torch.tensor(ids[1:]).reshape(-1, 1))[:, 0].tolist()


def named_logits(logits):
    if len({len(one) for one in logits}) == 1:
        return {"logits": torch.stack(logits)}
    return {f"logits.{i}": one.contiguous() for i, one in enumerate(logits)}


def score(model, sequences):
    logits = [sequence_logits(model, ids) for ids in sequences]
    log_probs = [token_log_probs(one, ids) for one, ids in zip(logits, sequences)]
    scored = [value for row in log_probs for value in row]
    mean_nll = -sum(scored) / len(scored)
    answer = {"log_probs": log_probs, "tokens": len(scored), "mean_nll": mean_nll, "perplexity": math.exp(mean_nll)}
    return answer, logits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=Path, required=True)
    parser.add_argument("out", type=Path)
    parser.add_argument("--logits", type=Path)
    arguments = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    answer, logits = score(model, json.loads(arguments.tokens.read_text()))
    arguments.out.write_text(json.dumps(answer) + "\n")
    if arguments.logits:
        save_file(named_logits(logits), arguments.logits)
    print(f"{answer['tokens']} tokens, perplexity {answer['perplexity']:.4f}")


if __name__ == "__main__":
    main()
