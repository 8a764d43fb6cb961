"""Lets llama.cpp compute with the GGUF files that `qianli convert` writes.

    python check_llamacpp.py PATH/TO/qianli FOLDER[,KEY=VALUE...]...

Every FOLDER is a Hugging Face folder. Random tokens go through its GGUF file in llama.cpp (the one in the package
xllamacpp), and through `qianli score`. Printed is the largest difference between the log-probabilities of the next
token, at several lengths of the sequence, relative to the largest. A folder without a tokenizer gets a vocabulary
of made-up words, without which llama.cpp opens nothing.

KEY=VALUE replaces a number of config.json; num_hidden_layers repeats the last layer's weights. llama.cpp knows some
models by such numbers. Its own limits: GELU, in ggml, is a table of 16-bit numbers (some 1e-4).
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import gguf
import numpy as np
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata
from safetensors import safe_open
from safetensors.numpy import save_file

LENGTHS = (1, 4, 8, 20, 40)


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])


def with_vocabulary(reader, target):
    """A copy with words for all rows of the embedding, in SentencePiece's way."""
    rows = next(int(t.shape[1]) for t in reader.tensors if t.name == "token_embd.weight")
    arch = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(target, arch)
    kinds = [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (rows - 3)
    add = gguf.GGUFValueType
    extra = {
        "tokenizer.ggml.model": MetadataDetails(add.STRING, "llama"),
        "tokenizer.ggml.tokens": MetadataDetails(add.ARRAY, [f"w{i}".encode() for i in range(rows)],
                                                 sub_type=add.STRING),
        "tokenizer.ggml.scores": MetadataDetails(add.ARRAY, [-float(i) for i in range(rows)], sub_type=add.FLOAT32),
        "tokenizer.ggml.token_type": MetadataDetails(add.ARRAY, [int(k) for k in kinds], sub_type=add.INT32),
    }
    keep = {name for name in reader.fields if name.startswith("tokenizer.ggml.")}
    copy_with_new_metadata(reader, writer, extra, list(keep))


def next_log_probs(model, prompts):
    """In a process of its own: llama.cpp ends the process where it cannot go on."""
    script = r"""
import json, sys
import xllamacpp as x
p = x.CommonParams()
p.model.path = sys.argv[1]
p.n_ctx, p.n_parallel, p.warmup, p.cpuparams.n_threads, p.verbosity = 512, 1, False, 1, 1
p.fit_params = False
p.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
p.cache_type_k = p.cache_type_v = x.ggml_type.GGML_TYPE_F32
server = x.Server(p)
for prompt in json.loads(sys.argv[2]):
    r = server.handle_completions({"prompt": prompt, "max_tokens": 1, "temperature": -1, "n_probs": 100000,
                                   "logprobs": 100000, "ignore_eos": False, "cache_prompt": False})
    top = r["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    print("LOG_PROBS", json.dumps([[t["id"], t["logprob"]] for t in top]))
"""
    done = subprocess.run([sys.executable, "-c", script, model, json.dumps(prompts)], capture_output=True, text=True)
    found = [json.loads(line[10:]) for line in done.stdout.splitlines() if line.startswith("LOG_PROBS")]
    if len(found) != len(prompts):
        lines = [line for line in done.stderr.splitlines() if " E " in line or "Error" in line or "GGML_ASSERT" in line]
        raise RuntimeError(" | ".join(lines[:3]) or f"exit code {done.returncode}: {done.stderr[-200:]}")
    return found


def changed(folder, changes, target):
    """A copy of the folder with other numbers in its config.json, and as many layers as that says."""
    shutil.copytree(folder, target)
    config = json.loads((folder / "config.json").read_text())
    layers = config["num_hidden_layers"]
    config.update(changes)
    (target / "config.json").write_text(json.dumps(config))
    with safe_open(folder / "model.safetensors", "np") as weights:
        tensors = {}
        for name in weights.keys():
            of_layer = re.search(r"\.(\d+)\.", name)
            if not of_layer:
                tensors[name] = weights.get_tensor(name)
                continue
            last = int(of_layer[1]) == layers - 1
            for layer in range(int(of_layer[1]), config["num_hidden_layers"] if last else int(of_layer[1]) + 1):
                tensors[name[:of_layer.start()] + f".{layer}." + name[of_layer.end():]] = weights.get_tensor(name)
    save_file(tensors, target / "model.safetensors")
    return target


def own_log_probs(qianli, folder, prompts, work):
    tokens, logits = work / "tokens.json", work / "logits.safetensors"
    tokens.write_text(json.dumps([prompts[-1]]))  # the others are its beginnings
    run(qianli, "score", folder, "--tokens", tokens, "--logits", logits)
    with safe_open(logits, "np") as file:
        exact = file.get_tensor("logits")[0].astype(np.float64)
    rows = [exact[len(prompt) - 1] - exact[len(prompt) - 1].max() for prompt in prompts]
    return [row - np.log(np.exp(row).sum()) for row in rows]


def distance(qianli, folder, work):
    plain, model = work / "plain.gguf", work / "model.gguf"
    run(qianli, "convert", folder, plain, "--to", "gguf", "--drop-mtp")
    reader = gguf.GGUFReader(plain)
    if "tokenizer.ggml.tokens" in reader.fields:
        model = plain
    else:
        with_vocabulary(reader, model)
    config = json.loads((folder / "config.json").read_text())
    longest = np.random.default_rng(7).integers(3, config.get("vocab_size", config.get("padded_vocab_size")), LENGTHS[-1]).tolist()
    prompts = [longest[:length] for length in LENGTHS]
    apart = []
    for exact, found in zip(own_log_probs(qianli, folder, prompts, work), next_log_probs(str(model), prompts)):
        ids = [i for i, _ in found]
        if sorted(ids) != list(range(len(exact))):
            raise RuntimeError(f"{len(ids)} of {len(exact)} tokens have a probability")
        apart.append(np.abs(np.array([value for _, value in found]) - exact[ids]).max() / np.abs(exact).max())
    return apart


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qianli")
    parser.add_argument("folders", nargs="+", metavar="FOLDER[,KEY=VALUE...]")
    arguments = parser.parse_args()
    print(f"{'tokens':46} " + " ".join(f"{length:7}" for length in LENGTHS))
    for wanted in arguments.folders:
        path, *changes = wanted.split(",")
        folder = pathlib.Path(path)
        title = ",".join([folder.name, *changes])
        with tempfile.TemporaryDirectory() as temporary:
            work = pathlib.Path(temporary)
            try:
                if changes:
                    numbers = {key: json.loads(value) for key, value in (change.split("=") for change in changes)}
                    folder = changed(folder, numbers, work / "changed")
                apart = distance(arguments.qianli, folder, work)
                print(f"{title:46} " + " ".join(f"{value:7.0e}" for value in apart), flush=True)
            except Exception as error:
                print(f"{title:46} {str(error)[:160]}", flush=True)


main()
