"""Makes tests/golden/beams.json: beam search of transformers on tiny golden models.

usage: golden_beams.py [--check]

--check compares with the file instead of writing it.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "tests/golden/beams.json"
PROMPT = [11, 23, 5, 42, 8, 61, 77]
CASES = [
    {"num_beams": 2, "length_penalty": 1.0},
    {"num_beams": 4, "length_penalty": 1.0},
    {"num_beams": 4, "length_penalty": -2.0},
    {"num_beams": 5, "length_penalty": 2.0},
    {"num_beams": 3, "length_penalty": 0.0, "repetition_penalty": 1.3},
]


def search(model, case, eos):
    out = model.generate(
        torch.tensor([PROMPT]), do_sample=False, num_return_sequences=case["num_beams"], max_new_tokens=20,
        eos_token_id=eos, pad_token_id=0, return_dict_in_generate=True, output_scores=True, **case)
    beams = []
    for row, score in zip(out.sequences.tolist(), out.sequences_scores.tolist()):
        new = row[len(PROMPT):]
        ends = [i for i, token in enumerate(new) if token in eos]
        beams.append({"tokens": new[:ends[0] + 1] if ends else new, "score": score})
    return beams


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = []
    for name in ["llama2", "qwen3", "gpt2"]:
        model = AutoModelForCausalLM.from_pretrained(ROOT / "tests/golden/models" / name, dtype=torch.float32)
        # Ends that turn up: the tokens the model likes.
        liked = model.generate(torch.tensor([PROMPT]), do_sample=False, max_new_tokens=6, min_new_tokens=6,
                               pad_token_id=0)[0, len(PROMPT):].tolist()
        for eos in [[2], [liked[-1]], [liked[-1], liked[2]]]:
            for case in CASES:
                cases.append({"model": name, "prompt": PROMPT, "eos": eos, **case,
                              "beams": search(model, case, eos)})
    if arguments.check:
        assert json.loads(FILE.read_text()) == cases, "tests/golden/beams.json differs"
    else:
        FILE.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"{len(cases)} cases, {sum(len(b['tokens']) < 20 for c in cases for b in c['beams'])} ended texts")


if __name__ == "__main__":
    main()
