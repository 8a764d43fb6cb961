"""Rows of several data sets in the orders of Hugging Face's `datasets`: tests/golden/mixing.json.

    golden_mixing.py tests/golden/mixing.json

Needs `pip install datasets==5.2.0`. Also NumPy's numbers behind them."""

import json
import sys

import datasets
import numpy

# Their fingerprints pickle the whole of pyarrow; nothing here depends on them.
datasets.arrow_dataset.generate_fingerprint = lambda dataset: "0"
datasets.fingerprint.generate_fingerprint = lambda dataset: "0"
datasets.fingerprint.update_fingerprint = lambda fingerprint, transform, arguments: "0"

SETS = [([5, 3, 9], [0.2, 0.3, 0.5]), ([1, 4], [0.9, 0.1]), ([700, 1200], [0.3, 0.7]), ([7], [1.0])]


def rows(lengths, shares, strategy, seed):
    sets, first = [], 0
    for length in lengths:
        sets.append(datasets.Dataset.from_dict({"row": list(range(first, first + length))}))
        first += length
    mixed = datasets.interleave_datasets(sets, probabilities=shares, seed=seed, stopping_strategy=strategy)
    return list(mixed["row"])


def main():
    cases = []
    for lengths, shares in SETS:
        for name, strategy in (("interleave_under", "first_exhausted"), ("interleave_over", "all_exhausted")):
            for probabilities, seed in ((None, 1234), (shares, 1234), (shares, 2**40 + 5)):
                if sum(lengths) > 100 and probabilities is None:
                    continue
                cases.append({"lengths": lengths, "strategy": name, "probabilities": probabilities or [], "seed": seed,
                              "rows": rows(lengths, probabilities, strategy, seed)})
    bits = {str(seed): [int(x) for x in numpy.random.default_rng(seed).bit_generator.random_raw(4)]
            for seed in (0, 1234, 2**40 + 5)}
    with open(sys.argv[1], "w") as out:
        json.dump({"datasets": datasets.__version__, "numpy": numpy.__version__, "bits": bits, "cases": cases}, out)
        out.write("\n")


if __name__ == "__main__":
    main()
