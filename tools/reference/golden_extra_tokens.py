"""Goldens for tests/text: what transformers makes of tokens that stand beside a tokenizer.json only.

usage: golden_extra_tokens.py OUT

OUT is tests/golden/tokenizer/extra_tokens.json: {tokenizer, texts, cases: [{files, ids}]}; ids of every text where the
files lie beside the tokenizer.
"""

import json
import sys
import tempfile
from pathlib import Path

from transformers import PreTrainedTokenizerFast

FLAGS = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None,
    "post_processor": None, "decoder": None, "added_tokens": [{"id": 1, "content": "<s>", "special": True, **FLAGS}],
    "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "<s>": 1, "a": 2, "b": 3, "<m>": 4}, "unk_token": "<unk>"},
}
TEXTS = ["a<|y|>b", "b<|x|> a", "<m>a<|z|>"]
CONFIGS = [
    {"added_tokens_decoder": {"5": {"content": "<|y|>", "special": True, **FLAGS}}},
    {"extra_special_tokens": ["<|x|>"]},
    {"additional_special_tokens": ["<|x|>", "<|z|>"]},
    {"extra_special_tokens": {"image_token": "<|x|>"}},
    {"image_token": "<|x|>"},
    {"video_token": "<|z|>", "image_token": "<|x|>", "audio_token": "<|y|>"},
    {"extra_special_tokens": {"video_token": "<|y|>", "image_token": "<|x|>"}, "audio_token": "<|z|>"},
    {"pad_token": "<|y|>", "extra_special_tokens": ["<|x|>"]},
    {"bos_token": "<s>", "added_tokens_decoder": {"9": {"content": "<|x|>", "special": True},
                                                  "7": {"content": "<|y|>", "special": False, "rstrip": True}}},
    {"mask_token": "<m>"},
]
CASES = [{"tokenizer_config.json": config} for config in CONFIGS] + [
    {"tokenizer_config.json": {}, "added_tokens.json": {"<|x|>": 6, "<|y|>": 5}},
    {"tokenizer_config.json": {},
     "special_tokens_map.json": {"additional_special_tokens": ["<|y|>"], "pad_token": "<|x|>"}},
    {"tokenizer_config.json": {"added_tokens_decoder": {}},
     "special_tokens_map.json": {"additional_special_tokens": ["<|y|>"]}},
]


def ids(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {"tokenizer.json": TOKENIZER, **files}.items():
            (Path(folder) / name).write_text(json.dumps(content))
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]


def main():
    cases = [{"files": files, "ids": ids(files)} for files in CASES]
    golden = {"tokenizer": TOKENIZER, "texts": TEXTS, "cases": cases}
    Path(sys.argv[1]).write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
