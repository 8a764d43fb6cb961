"""Makes tests/golden/sampler.safetensors: scores after transformers' logits processors, in their order.

usage: golden_sampler.py OUT.safetensors

  logits [cases, 257] float32, with ties and a wide range; seen [cases, 12] int64, the tokens so far (with repeats)
  processed [cases, 257] float32, -inf where a token is excluded; settings [cases, 4] float64: repetition penalty,
  temperature, top-k (0: off), top-p (1: off)
"""

import argparse

import torch
from safetensors.torch import save_file
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

VOCABULARY = 257
SETTINGS = [
    (1.0, 1.0, 0, 1.0),
    (1.3, 1.0, 0, 1.0),
    (0.7, 1.0, 0, 1.0),
    (1.0, 0.6, 0, 1.0),
    (1.0, 2.5, 0, 1.0),
    (1.0, 1.0, 1, 1.0),
    (1.0, 1.0, 40, 1.0),
    (1.0, 1.0, 1000, 1.0),
    (1.0, 1.0, 0, 0.9),
    (1.0, 1.0, 0, 0.05),
    (1.0, 1.0, 0, 0.0),
    (1.0, 0.8, 20, 0.95),
    (1.2, 0.7, 50, 0.8),
    (1.1, 1.5, 7, 0.5),
]


def processors(penalty, temperature, top_k, top_p):
    chosen = LogitsProcessorList()
    if penalty != 1.0:
        chosen.append(RepetitionPenaltyLogitsProcessor(penalty))
    if temperature != 1.0:
        chosen.append(TemperatureLogitsWarper(temperature))
    if top_k:
        chosen.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        chosen.append(TopPLogitsWarper(top_p))
    return chosen


def random_logits(generator):
    logits = 3.0 * torch.randn(len(SETTINGS), VOCABULARY, generator=generator)
    # Ties at the top and at the edge of top-k: what equals the last token kept is kept too.
    ranked = logits.argsort(dim=1, descending=True)
    for rank in (20, 40):
        edge = logits.gather(1, ranked[:, rank - 1 : rank])
        logits.scatter_(1, ranked[:, rank : rank + 2], edge.expand(-1, 2))
    return logits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(20240607)
    logits = random_logits(generator)
    seen = torch.randint(0, VOCABULARY, (len(SETTINGS), 12), generator=generator)
    seen[:, 5] = seen[:, 0]  # penalised once
    seen[:, 3] = logits.argmax(dim=1)
    rows = [processors(*setting)(ids[None], row[None].clone()) for setting, ids, row in zip(SETTINGS, seen, logits)]
    save_file(
        {
            "logits": logits,
            "seen": seen,
            "processed": torch.cat(rows),
            "settings": torch.tensor(SETTINGS, dtype=torch.float64),
        },
        arguments.out,
    )


if __name__ == "__main__":
    main()
