"""Compares the GGUF files that `qianli convert` writes with gguf-py and transformers.

    python check_gguf.py PATH/TO/qianli FOLDER...

Every FOLDER is a Hugging Face folder of float32 weights. Its GGUF file is opened with gguf-py:
  - the architecture is one that gguf-py knows, and every tensor one of that architecture;
  - every tensor of the folder that gguf-py's map has a name for is there under that name, with the
    same numbers: in the same places, or (queries and keys in pairs of rows) in others;
  - where transformers reads all keys of GGUF files of the family, its logits are those of the folder.
A file that gguf-py wrote is read back by qianli as well.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gguf
import numpy as np
import torch
import transformers
from safetensors import safe_open

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

# gguf-py reads every token of a vocabulary by itself, and transformers makes the map for every tensor.
open_file = functools.lru_cache(maxsize=1)(gguf.GGUFReader)
gguf.get_tensor_name_map = functools.lru_cache(gguf.get_tensor_name_map)

# llama.cpp's converter spells these out itself.
BY_HAND = {"mixer.dt_bias": "mixer.dt_proj.bias", "self_attn.sinks": "self_attn.sinks.weight",
           "linear_attn.dt_bias": "linear_attn.dt_proj.bias",
           "e_score_correction_bias": "e_score_correction.bias", "gate.expert_bias": "gate.expert_bias.bias"}
ARCHITECTURES = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
# Families of which transformers 5 reads all keys. Of others it takes defaults for what matters here:
# gpt2's width of the MLP, the size of qwen3's heads, gemma2's scale of scores and window, starcoder2's
# rotary base, minimax's rotated part of a head, falcon's groups of keys, rotary scaling of any family.
LOGITS = ("llama", "mistral", "qwen2", "qwen3_moe", "falcon")


def has_logits(config):
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    scaled = rope.get("rope_type", rope.get("type", "default")) != "default"
    grouped = config["model_type"] == "falcon" and config.get("new_decoder_architecture", False)
    return config["model_type"] in LOGITS and not scaled and not grouped


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])


def known_names(arch, blocks):
    names = set()
    for tensor in gguf.MODEL_TENSORS[arch]:
        name = gguf.TENSOR_NAMES[tensor]
        names.update(name.format(bid=b) for b in range(blocks))
    return names


def stem(name):
    for suffix in (".weight", ".bias"):
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def same_numbers(ours, theirs):
    """Equal in place; or the same numbers elsewhere; or theirs plus one, or their -exp."""
    ours, theirs = ours.reshape(-1), theirs.reshape(-1).astype(np.float32)
    if ours.size != theirs.size:
        return None
    if np.array_equal(ours, theirs):
        return "same"
    if np.array_equal(np.sort(ours), np.sort(theirs)):
        return "moved"
    if np.array_equal(ours, theirs + np.float32(1)):
        return "plus one"
    if np.allclose(ours, -np.exp(theirs), rtol=1e-6):
        return "-exp"
    return None


def check_names(folder, path):
    reader = open_file(path)
    name = str(reader.get_field("general.architecture").contents())
    arch = ARCHITECTURES[name]
    blocks = int(reader.get_field(f"{name}.block_count").contents())
    tensors = {t.name: t for t in reader.tensors}
    known = known_names(arch, blocks)
    strange = [n for n in tensors if stem(n) not in known]
    if strange:
        raise RuntimeError(f"{name} has no tensor {strange[0]}")
    mapping = gguf.get_tensor_name_map(arch, blocks)
    counts = {"same": 0, "moved": 0, "plus one": 0, "-exp": 0}
    unmapped = 0
    with safe_open(os.path.join(folder, "model.safetensors"), "np") as file:
        for key in file.keys():
            spelled = key
            for old, new in BY_HAND.items():
                spelled = spelled.replace(old, new) if spelled.endswith(old) else spelled
            for one in (spelled, spelled.removeprefix("transformer.")):
                target = mapping.get_name(one, try_suffixes=(".weight", ".bias"))
                if target is not None:
                    break
            if target is None or target not in tensors:
                unmapped += 1  # in parts or put together: told by the round trip
                continue
            tensor = tensors[target]
            values = np.array(tensor.data)
            how = same_numbers(values, file.get_tensor(key))
            if how is None:
                raise RuntimeError(f"{target} is not {key}")
            counts[how] += 1
    told = ", ".join(f"{count} {how}" for how, count in counts.items() if count)
    return name, f"{len(tensors)} tensors; {told}; {unmapped} of the folder in other parts"


def write_theirs(path, theirs, without):
    """What is in a file but for keys of these prefixes, as gguf-py's own writer writes it."""
    reader = open_file(path)
    writer = gguf.GGUFWriter(theirs, str(reader.get_field("general.architecture").contents()))
    for field in reader.fields.values():
        if field.name.startswith(("GGUF.", *without)) or field.name == "general.architecture":
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_logits(folder, path, scratch):
    """Without the vocabulary, which transformers would read twice and not use."""
    ids = torch.arange(24).reshape(2, 12) % 61
    bare = "bare.gguf"
    write_theirs(path, os.path.join(scratch, bare), ("tokenizer.",))
    kind = {"dtype": torch.float32, "attn_implementation": "eager"}
    with torch.no_grad():
        expected = transformers.AutoModelForCausalLM.from_pretrained(folder, **kind)(ids).logits
        model = transformers.AutoModelForCausalLM.from_pretrained(scratch, gguf_file=bare, **kind)
        found = model(ids).logits
    return float((expected - found).abs().max()), float(expected.abs().max())


def check_theirs(qianli, folder, path, scratch):
    """Read back by qianli from a file that gguf-py wrote, without a key of ours."""
    theirs = os.path.join(scratch, "theirs.gguf")
    write_theirs(path, theirs, ("qianli.",))
    back = os.path.join(scratch, "theirs")
    run(qianli, "convert", theirs, back, "--to", "hf")
    with safe_open(os.path.join(folder, "model.safetensors"), "np") as a, \
         safe_open(os.path.join(back, "model.safetensors"), "np") as b:
        if set(a.keys()) != set(b.keys()):
            raise RuntimeError(f"gguf-py's file gives other tensors: {set(a.keys()) ^ set(b.keys())}")
        worst = max(float(np.abs(a.get_tensor(k) - b.get_tensor(k)).max()) for k in a.keys())
    if worst > 5e-7:
        raise RuntimeError(f"gguf-py's file gives other numbers: {worst}")
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("qianli")
    parser.add_argument("folders", nargs="+")
    arguments = parser.parse_args()
    failures = 0
    for folder in arguments.folders:
        title = os.path.basename(os.path.normpath(folder))
        with tempfile.TemporaryDirectory() as scratch:
            path = os.path.join(scratch, "model.gguf")
            try:
                run(arguments.qianli, "convert", folder, path, "--to", "gguf", "--verify")
            except RuntimeError as error:
                print(f"{title}: not written: {error}")
                continue
            try:
                name, told = check_names(folder, path)
                line = f"{title}: {name}: {told}"
                if has_logits(json.load(open(os.path.join(folder, "config.json")))):
                    worst, size = check_logits(folder, path, scratch)
                    line += f"; logits {worst:.1e} of {size:.1e}"
                    if worst > 2e-5 * size:
                        raise RuntimeError(line)
                worst = check_theirs(arguments.qianli, folder, path, scratch)
                print(f"{line}; as gguf-py writes it {worst:.1e}", flush=True)
            except Exception as error:  # noqa: BLE001: every folder is reported
                failures += 1
                print(f"{title}: FAILED: {type(error).__name__}: {error}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
