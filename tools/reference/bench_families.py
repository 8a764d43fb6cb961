"""Training speed beside transformers for every family that it has: one table, families that lose first.

usage: bench_families.py TRAIN_BENCH [--rounds N] [--steps N] [--threads N] [--out FILE] [NAME ...]

Each family is the tiny model of family_configs.py with its sizes times eight (hidden 384, six heads of 64, vocabulary
8000, two to seven layers, four times the experts), random weights, float32, 4 x 256 random tokens a step, AdamW, on both
sides. transformers runs eager with the attention and the experts that it chooses itself. Both sides take turns; the median
step of each side after two for warming up counts, the best of all rounds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import bench_train
import family_configs

BATCH, VOCAB_SIZE, FACTOR = (4, 256), 8000, 8
SIZES = {"hidden_size", "intermediate_size", "n_embd", "n_inner", "d_model", "head_dim", "moe_intermediate_size",
         "ffn_hidden_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size", "kv_lora_rank", "q_lora_rank",
         "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "index_head_dim", "index_topk", "state_size", "sliding_window",
         "query_pre_attn_scalar", "linear_key_head_dim", "linear_value_head_dim", "dim_model_base", "chunk_size",
         "original_max_position_embeddings", "max_position_embeddings", "n_positions", "max_seq_len"}
COUNTS = {"n_routed_experts", "num_experts", "num_local_experts", "zero_expert_num", "moe_num_experts"}


def enlarged(value, key=None):
    if isinstance(value, dict):
        return {inner: enlarged(one, inner) for inner, one in value.items()}
    if isinstance(value, list) and key in ("short_factor", "long_factor"):
        return [one for one in value for _ in range(FACTOR)]
    if value is None or isinstance(value, bool):
        return value
    if key == "vocab_size":
        return VOCAB_SIZE
    return value * (FACTOR if key in SIZES else 4 if key in COUNTS else 1) if key in SIZES | COUNTS else value


def config_of(name):
    model_type, arguments = family_configs.CONFIGS[name]
    return family_configs.CONFIG_MAPPING[model_type](**enlarged(arguments))


def theirs(config, steps):
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
    step = bench_train.make_step(model, VOCAB_SIZE, BATCH)
    bench_train.timed(step, bench_train.WARMUP_STEPS)
    return statistics.median(bench_train.timed(step, steps)[0])


def ours(program, folder, steps):
    output = subprocess.run([program, folder, str(steps)], capture_output=True, text=True)
    if output.returncode != 0:
        raise RuntimeError(output.stderr.strip())
    return json.loads(output.stdout)["step_seconds"]


def measure(program, name, rounds, steps):
    config = config_of(name)
    with torch.device("meta"):
        config = AutoModelForCausalLM.from_config(config).config  # some models complete their configuration
    with tempfile.TemporaryDirectory() as folder:
        config.architectures = [AutoModelForCausalLM._model_mapping[type(config)].__name__]
        config.save_pretrained(folder)
        pairs = [(ours(program, folder, steps), theirs(config, steps)) for _ in range(rounds)]
    tokens = BATCH[0] * BATCH[1]
    mine, peer = (tokens / min(side) for side in zip(*pairs))
    return {"name": name, "ours": mine, "transformers": peer, "ratio": mine / peer}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", metavar="TRAIN_BENCH")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    rows, failed = [], []
    for name in arguments.names or family_configs.CONFIGS:
        try:
            rows.append(measure(arguments.program, name, arguments.rounds, arguments.steps))
            print("{name}: {ours:.0f} against {transformers:.0f} tokens/s, {ratio:.2f}".format(**rows[-1]), file=sys.stderr)
        except Exception as error:  # one family must not cost the others
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
    rows.sort(key=lambda row: row["ratio"])
    table = ["| model | tokens/s | transformers | ratio |", "|---|---:|---:|---:|"]
    table += ["| {name} | {ours:.0f} | {transformers:.0f} | {ratio:.2f} |".format(**row) for row in rows]
    print("\n".join(table))
    if arguments.out:
        arguments.out.write_text("\n".join(table) + "\n")
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
