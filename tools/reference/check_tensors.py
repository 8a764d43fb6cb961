"""Checks, for every family that transformers has, that a tiny model's files are those the program
expects: config.json is read, names and shapes of all tensors are equal, and the config.json that the
program writes describes the same model to transformers.

    python check_tensors.py PATH/TO/qianli [FAMILY ...]             prints a table
    python check_tensors.py PATH/TO/qianli --write families.json    and writes what the test of it reads
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

import step3p5_model  # noqa: F401  registers it

SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             vocab_size=99, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None)
GROUPED = SIZES | dict(num_key_value_heads=2)
HEADS = GROUPED | dict(head_dim=16)
DEEPSEEK = SIZES | dict(num_key_value_heads=4, q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4,
                        v_head_dim=12, moe_intermediate_size=20, n_routed_experts=8, num_experts_per_tok=2,
                        n_shared_experts=2, n_group=2, topk_group=1)
LONGROPE = dict(rope_type="longrope", short_factor=[1.0, 1.5, 2.0, 2.5], long_factor=[2.0, 3.0, 4.0, 5.0],
                original_max_position_embeddings=32, rope_theta=10000.0)
INDEXED = DEEPSEEK | dict(index_n_heads=2, index_head_dim=8, index_topk=16, first_k_dense_replace=1)
QWEN_MOE = HEADS | dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=20)

# By name of the case: model_type and what its configuration class is given.
CASES = {
    "gpt2": ("gpt2", dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=99)),
    "gpt_bigcode": ("gpt_bigcode", dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=99)),
    "gpt_bigcode, all heads": ("gpt_bigcode", dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=99, multi_query=False)),
    "llama": ("llama", HEADS | dict(attention_bias=True, mlp_bias=True)),
    "mistral": ("mistral", HEADS | dict(sliding_window=16)),
    "mixtral": ("mixtral", GROUPED | dict(num_local_experts=4, sliding_window=None)),
    "qwen2": ("qwen2", GROUPED | dict(use_sliding_window=True, sliding_window=16, max_window_layers=1)),
    "qwen2_moe": ("qwen2_moe", GROUPED | dict(num_experts=4, moe_intermediate_size=20, shared_expert_intermediate_size=28,
                                              num_experts_per_tok=2, decoder_sparse_step=2)),
    "qwen3": ("qwen3", HEADS),
    "qwen3_moe": ("qwen3_moe", QWEN_MOE | dict(mlp_only_layers=[1])),
    "qwen3_next": ("qwen3_next", QWEN_MOE | dict(num_hidden_layers=4, shared_expert_intermediate_size=28, linear_num_key_heads=2, linear_num_value_heads=4,
                                                linear_key_head_dim=8, linear_value_head_dim=6)),
    "glm": ("glm", HEADS), "glm4": ("glm4", HEADS),
    "glm4_moe": ("glm4_moe", HEADS | dict(moe_intermediate_size=20, n_routed_experts=4, num_experts_per_tok=2, use_qk_norm=True,
                                         attention_bias=True, num_nextn_predict_layers=0)),
    "gemma": ("gemma", HEADS), "gemma2": ("gemma2", HEADS | dict(sliding_window=16)),
    "gemma3_text": ("gemma3_text", HEADS | dict(num_hidden_layers=6, sliding_window=16)),
    "phi3": ("phi3", GROUPED | dict(rope_parameters=LONGROPE, original_max_position_embeddings=32)),
    "phimoe": ("phimoe", GROUPED | dict(num_local_experts=4, attention_bias=True, lm_head_bias=True,
                                       rope_parameters=LONGROPE | dict(short_mscale=1.2, long_mscale=1.3))),
    "minicpm3": ("minicpm3", SIZES | dict(num_key_value_heads=4, q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=8,
                                         qk_rope_head_dim=4, v_head_dim=12)),
    "deepseek_v2": ("deepseek_v2", DEEPSEEK | dict(first_k_dense_replace=1, topk_method="group_limited_greedy")),
    "deepseek_v2, no query rank": ("deepseek_v2", DEEPSEEK | dict(q_lora_rank=None)),
    "deepseek_v3": ("deepseek_v3", DEEPSEEK | dict(first_k_dense_replace=1, num_nextn_predict_layers=0)),
    "deepseek_v32": ("deepseek_v32", INDEXED), "glm_moe_dsa": ("glm_moe_dsa", INDEXED | dict(topk_group=1)),
    "dbrx": ("dbrx", dict(d_model=32, n_heads=4, n_layers=2, max_seq_len=64, vocab_size=99,
                          attn_config=dict(kv_n_heads=2, clip_qkv=8.0, rope_theta=500000.0),
                          ffn_config=dict(ffn_hidden_size=20, moe_num_experts=4, moe_top_k=2))),
    "bloom": ("bloom", dict(hidden_size=32, n_layer=2, n_head=4, vocab_size=99)),
    "falcon, 7B": ("falcon", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=99)),
    "falcon, 40B": ("falcon", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_kv_heads=2, vocab_size=99,
                                  new_decoder_architecture=True)),
    "starcoder2": ("starcoder2", GROUPED | dict(sliding_window=16)),
    "cohere": ("cohere", GROUPED | dict(use_qk_norm=True)),
    "cohere2": ("cohere2", GROUPED | dict(num_hidden_layers=4, sliding_window=16)),
    "gpt_oss": ("gpt_oss", HEADS | dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=16)),
    "seed_oss": ("seed_oss", HEADS),
    "minimax_m2": ("minimax_m2", HEADS | dict(num_local_experts=4, num_experts_per_tok=2,
                                             rope_parameters=dict(rope_type="default", rope_theta=5e6, partial_rotary_factor=0.5))),
    "longcat_flash": ("longcat_flash", dict(DEEPSEEK, num_layers=2, num_hidden_layers=4, ffn_hidden_size=48, expert_ffn_hidden_size=20,
                                           zero_expert_num=4, moe_topk=2,
                                           head_dim=4)),
    "hy_v3": ("hy_v3", HEADS | dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=20)),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", HEADS | dict(num_experts=4, moe_topk=2,
                                                     rope_parameters=dict(rope_type="dynamic", alpha=100.0, factor=1.0, rope_theta=10000.0))),
    "step3p5": ("step3p5", GROUPED | dict(num_hidden_layers=4, head_dim=8, pad_token_id=0, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=20,
                                          share_expert_dim=28, moe_router_scaling_factor=3.0, sliding_window=16, moe_layers_enum="1,3",
                                          layer_types=["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"],
                                          attention_other_setting=dict(num_attention_heads=6), swiglu_limits=[0.0, 0.0, 0.0, 0.5],
                                          swiglu_limits_shared=[0.25, 0.0, 0.0, 0.0], rope_theta=[5e6, 1e4, 1e4, 1e4],
                                          partial_rotary_factors=[0.5, 1.0, 1.0, 1.0],
                                          rope_scaling=dict(rope_type="llama3", factor=2.0, original_max_position_embeddings=32,
                                                            low_freq_factor=1.0, high_freq_factor=32.0))),
    "deepseek_v4": ("deepseek_v4", dict(hidden_size=32, moe_intermediate_size=20, num_hidden_layers=4, num_attention_heads=4, head_dim=16,
                                        vocab_size=99, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None,
                                        q_lora_rank=24, o_groups=2, o_lora_rank=6, sliding_window=8, index_n_heads=2, index_head_dim=8,
                                        index_topk=3, partial_rotary_factor=0.25, hc_mult=2, hc_sinkhorn_iters=3, n_routed_experts=4,
                                        num_experts_per_tok=2, mlp_layer_types=["hash_moe"] + ["moe"] * 3, swiglu_limit=2.0,
                                        compress_rates=dict(compressed_sparse_attention=4, heavily_compressed_attention=16),
                                        layer_types=["sliding_attention", "compressed_sparse_attention",
                                                     "heavily_compressed_attention", "compressed_sparse_attention"])),
    "mamba2": ("mamba2", dict(hidden_size=32, num_heads=8, head_dim=8, state_size=16, n_groups=2, num_hidden_layers=2, vocab_size=99)),
}


GOLDEN = []  # what --write leaves behind


def ask(program, *arguments):
    done = subprocess.run([program, "presets", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout)


def stored(folder):
    tensors = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors |= {name: list(file.get_slice(name).get_shape()) for name in file.keys()}
    return tensors


def without_zero_experts(files, arguments):
    """LongCat's class keeps projections for experts that return their input; nothing reads them."""
    if "zero_expert_num" not in arguments:
        return files
    last = arguments["n_routed_experts"]
    return {name: shape for name, shape in files.items()
            if ".experts." not in name or int(name.split(".experts.")[1].split(".")[0]) < last}


def difference(expected, actual):
    lines = [f"only transformers has {name} {shape}" for name, shape in expected.items() if name not in actual]
    lines += [f"only the program has {name} {shape}" for name, shape in actual.items() if name not in expected]
    lines += [f"{name}: {shape} and {actual[name]}" for name, shape in expected.items()
              if name in actual and actual[name] != shape]
    return lines


def check(program, model_type, arguments):
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        config = AutoConfig.for_model(model_type, **arguments)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.save_pretrained(folder)
        files = without_zero_experts(stored(folder), arguments)
        GOLDEN.append(dict(config=json.loads((folder / "config.json").read_text()), tensors=files))
        problems = difference(files, ask(program, str(folder), "--tensors"))
        written = ask(program, str(folder))
        (folder / "config.json").write_text(json.dumps(written))
        again = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
        ours = {key: list(value.shape) for key, value in again.state_dict().items()}
        theirs = {key: list(value.shape) for key, value in model.state_dict().items()}
        problems += ["from the program's config.json: " + line for line in difference(theirs, ours)]
        if type(again).__name__ != written["architectures"][0]:
            problems.append(f"architecture {written['architectures'][0]}, not {type(again).__name__}")
        if not problems:
            problems += compare_outputs(model, again)
    return len(files), problems


def compare_outputs(model, again):
    """The program's config.json must make transformers compute the same with the same weights."""
    again.load_state_dict(model.state_dict())
    tokens = torch.randint(3, 99, (2, 40), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        expected, actual = model.eval()(tokens).logits, again.eval()(tokens).logits
    return [] if torch.equal(expected, actual) else [f"logits differ by {(expected - actual).abs().max():.2e}"]


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    program, chosen = sys.argv[1], sys.argv[2:]
    golden = pathlib.Path(chosen[1]) if chosen[:1] == ["--write"] else None
    if golden:
        chosen = []
    failures = 0
    for name, (model_type, arguments) in CASES.items():
        if chosen and model_type not in chosen:
            continue
        try:
            count, problems = check(program, model_type, arguments)
        except Exception as error:  # the table goes on
            count, problems = 0, [f"{type(error).__name__}: {error}"]
        failures += bool(problems)
        print(f"{name:<28} {count:>4} tensors  {'differs' if problems else 'equal'}", flush=True)
        for line in problems[:6]:
            print("    ", line[:300])
    if golden:
        lines = [json.dumps(dict(name=name, **one), separators=(",", ":")) for name, one in zip(CASES, GOLDEN, strict=True)]
        golden.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
