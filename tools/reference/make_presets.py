"""Writes qianli/model/presets_data.inc from a file of published architectures.

    python make_presets.py MODELS.json [OUT]

MODELS.json: {"presets": [{"id", "hf_model_type", "num_layers", ...}]}. A preset is a family and the
fields of the spec in which its member differs from the family's traits, as the program's set_field
reads them. The count of parameters beside it is the file's, those of multi-token prediction
included; a test compares the program's own count with it.
"""

import json
import math
import pathlib
import sys

FAMILIES = {
    "gpt2-like": "gpt2",
    "-": "gpt4_moe",
    "bailing_moe_v2 (or bailing_moe)": "bailing_moe_v2",
    "qwen3_next (dense MLP)": "qwen3_next",
    "gemma3": "gemma3_text",
}
ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_tanh", "relu2": "relu2"}
# Facts that the entries leave to the family's published files.
OVERRIDES = {
    "grok1-40b": {"activation": "silu", "attention_softcap": "none"},  # as the example trains it
    "grok1-314b": {"activation": "gelu_tanh"},
    "hunyuan3-299b": {"moe.num_groups": 1, "moe.topk_groups": 1},  # the published model has no groups
    "step3.5-flash-196b": {"moe.scaling_factor": 1.0},  # its configuration class's
    # All layers have experts, and no class has its heads for tokens further ahead.
    "deepseek-v4-flash-284b": {"ffn_hidden_size": 2048, "mtp.num_layers": 0},
}


def own(name, family, layers, hidden, ffn, heads, groups, head_dim, base, eps, parameters, vocabulary=1024, positions=1024):
    fields = dict(num_layers=layers, hidden_size=hidden, ffn_hidden_size=ffn, num_attention_heads=heads,
                  num_query_groups=groups, head_dim=head_dim, vocab_size=vocabulary,
                  max_position_embeddings=positions, norm_eps=eps, tie_word_embeddings=True)
    if base:
        fields["rope.base"] = base
    return name, family, parameters, fields


# Small models for tests, examples and laptops.
OWN = [
    own("llama-tiny", "llama", 4, 128, 352, 4, 2, 32, 10000.0, 1e-5, 869504),
    own("qwen3-tiny", "qwen3", 4, 128, 352, 4, 2, 64, 1000000.0, 1e-6, 1066624),
    own("gpt2-tiny", "gpt2", 4, 128, 512, 4, 4, 32, None, 1e-5, 1055488),
    own("llama-small", "llama", 8, 512, 1408, 8, 4, 64, 10000.0, 1e-5, 39985664, 32000, 2048),
]


def family_of(entry):
    if entry["id"] == "mamba2-hybrid-8b":
        return "mamba2_hybrid"
    return FAMILIES.get(entry["hf_model_type"], entry["hf_model_type"])


def text(value):
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(text(one) for one in value)
    if isinstance(value, float):
        return repr(value)
    return str(value)


def sizes(entry):
    fields = dict(num_layers=entry["num_layers"], hidden_size=entry["hidden_size"],
                  vocab_size=entry["padded_vocab_size"] or entry["vocab_size"],
                  max_position_embeddings=entry["max_position_embeddings"] or 1048576,
                  norm_eps=entry["norm"]["eps"], tie_word_embeddings=entry["tie_word_embeddings"])
    if entry["num_attention_heads"]:
        fields |= dict(num_attention_heads=entry["num_attention_heads"],
                       num_query_groups=entry["num_query_groups"], head_dim=entry["kv_channels"])
    if entry["ffn_hidden_size"]:
        fields["ffn_hidden_size"] = entry["ffn_hidden_size"]
    return fields


def rotary(entry):
    rope = entry["position_embedding"]
    if rope["type"] != "rope":
        return {"position": "alibi"} if rope["type"] == "alibi" else {}
    fields = {"rope.base": rope["base"]}
    if rope["rotary_percent"] != 1.0:
        fields["rope.fraction"] = rope["rotary_percent"]
    scaling = rope.get("scaling")
    if not scaling:
        return fields
    kind = {"dynamic_ntk_alpha": "ntk_alpha"}.get(scaling["type"], scaling["type"])
    fields["rope.scaling.kind"] = kind
    if kind == "yarn" and "mscale" not in scaling and entry["hf_model_type"] != "gpt_oss":
        assert scaling["factor"] > 1, entry["id"]
    names = dict(factor="factor", alpha="factor", original_max_position_embeddings="original_max_positions",
                 low_freq_factor="low_freq_factor", high_freq_factor="high_freq_factor",
                 beta_fast="beta_fast", beta_slow="beta_slow", mscale="mscale",
                 mscale_all_dim="mscale_all_dim", short_factor="short_factor", long_factor="long_factor",
                 short_mscale="short_mscale", long_mscale="long_mscale", truncate="truncate")
    for key, value in scaling.items():
        if key not in ("type", "applies_to"):
            fields["rope.scaling." + names[key]] = value
    return fields


def experts(entry, family):
    moe = entry["moe"]
    if not moe:
        return {}
    fields = {"moe.num_experts": moe["num_experts"], "moe.top_k": moe["topk"],
              "moe.ffn_hidden_size": moe["moe_intermediate_size"],
              "moe.shared_ffn_hidden_size": moe["shared_expert_intermediate_size"] or 0,
              "moe.first_k_dense": max(moe["first_k_dense"], 0),
              "moe.scaling_factor": moe["routed_scaling_factor"]}
    if (moe["n_group"] or 1) > 1:
        fields |= {"moe.num_groups": moe["n_group"], "moe.topk_groups": moe["topk_group"]}
    if "softmax (after" not in moe["score_function"]:
        fields["moe.normalize_top_k"] = moe["norm_topk_prob"]
    if moe["shared_expert_gate"]:
        fields["moe.shared_gate"] = True
    if moe.get("zero_experts"):
        fields["moe.num_zero_experts"] = moe["zero_experts"]
    if "jitter" in moe:
        fields["moe.sparse_mixer_epsilon"] = moe["jitter"]
    if moe.get("capacity_factor"):
        fields |= {"moe.capacity_factor": moe["capacity_factor"], "moe.pad_to_capacity": True}
    coefficient = "moe.sequence_aux_loss_coeff" if moe.get("seq_aux") else "moe.aux_loss_coeff"
    fields[coefficient] = moe["aux_loss_coeff"]
    return fields


def latent(entry):
    mla = entry["mla"]
    if not mla:
        return {}
    fields = {"latent_attention." + key: mla[key] for key in
              ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")}
    fields["head_dim"] = mla["qk_nope_head_dim"] + mla["qk_rope_head_dim"]
    fields["num_query_groups"] = entry["num_attention_heads"]
    if "scale_q_lora" in mla:
        fields["latent_attention.q_lora_scale"] = math.sqrt(entry["hidden_size"] / mla["q_lora_rank"])
        fields["latent_attention.kv_lora_scale"] = math.sqrt(entry["hidden_size"] / mla["kv_lora_rank"])
    dsa = (entry["extra"] or {}).get("dsa")
    if dsa:
        fields |= {"indexer.num_heads": dsa["index_n_heads"], "indexer.head_dim": dsa["index_head_dim"],
                   "indexer.top_k": dsa["index_topk"]}
        if "index_topk_freq" in dsa:
            fields |= {"indexer.frequency": dsa["index_topk_freq"], "indexer.skip": dsa["index_skip_topk_offset"]}
    return fields


def windows(entry):
    window, extra = entry["sliding_window"], entry["extra"] or {}
    if not window:
        return {}
    assert window["size"] > 0
    patterns = {"all layers": None, "even": "sliding_attention,attention", "alternate": "sliding_attention,attention",
                "5 local": ",".join(["sliding_attention"] * 5 + ["attention"])}
    kind = next(key for key in patterns if key in window["pattern"])
    fields = {"sliding_window": window["size"]}
    if patterns[kind]:
        fields["layer_pattern"] = patterns[kind]
    if "rope_local_base" in extra:
        fields["sliding_rope.base"] = extra["rope_local_base"]
    return fields


def recurrent(entry):
    linear, ssm = entry["linear_attention"], entry["ssm"]
    fields = {}
    if linear:
        interval = linear["full_attention_interval"]
        fields["layer_pattern"] = ",".join(["gated_delta_net"] * (interval - 1) + ["attention"])
        for key, name in (("num_key_heads", "num_key_heads"), ("num_value_heads", "num_value_heads"),
                          ("key_head_dim", "key_head_dim"), ("value_head_dim", "value_head_dim"),
                          ("conv_kernel", "conv_kernel")):
            fields["gated_delta_net." + name] = linear[key]
    if ssm:
        fields |= {"mamba2.state_size": ssm["d_state"], "mamba2.head_dim": ssm["head_dim"],
                   "mamba2.num_groups": ssm["n_groups"], "mamba2.chunk_size": ssm["chunk"],
                   "mamba2.conv_kernel": ssm["d_conv"],
                   "mamba2.inner_size": ssm["expand"] * entry["hidden_size"]}
        if "M" in ssm["pattern"]:
            kinds = {"M": "mamba2", "*": "attention", "-": "none"}
            fields["layer_pattern"] = ",".join(kinds[letter] for letter in ssm["pattern"])
            fields["feed_forward_pattern"] = ",".join(text(letter == "-") for letter in ssm["pattern"])
    return fields


def multipliers(entry):
    scaling, fields = entry["scaling"], {}
    embedding = scaling["embedding_multiplier"]
    if embedding == "sqrt(hidden)":
        embedding = math.sqrt(entry["hidden_size"])
    residual = scaling["residual_multiplier"]
    if isinstance(residual, str):  # "1.4/sqrt(62)"
        top, root = residual.split("/sqrt(")
        residual = float(top) / math.sqrt(float(root.rstrip(")")))
    named = dict(embedding_multiplier=embedding, residual_multiplier=residual,
                 hidden_divisor=scaling["hidden_divisor_before_head"], logits_multiplier=scaling["logits_multiplier"],
                 final_logit_softcap=scaling["final_logit_softcap"], attention_softcap=scaling["attn_logit_softcap"],
                 query_pre_attn_scalar=scaling["query_pre_attn_scalar"])
    return fields | {key: value for key, value in named.items() if value is not None}


QK_NORMS = {"rms_head_pre_rope": "head", "rms_head_pre_rope (offset)": "head", "rms_head_post_rope": "head_after_rotary",
            "rms_full_projection": "projection"}


def switches(entry, family):
    fields, bias, extra = {}, entry["bias"], entry["extra"] or {}
    if entry["activation"] in ACTIVATIONS:
        fields["activation"] = ACTIVATIONS[entry["activation"]]
    fields |= {"qkv_bias": bias["qkv"], "attention_out_bias": bias["attention_out"]}
    if family != "gpt_oss":
        fields["mlp_bias"] = bias["mlp"]
    if bias["lm_head"]:
        fields["output_bias"] = True
    qk_norm = entry["qk_norm"]
    if qk_norm:
        fields["qk_norm"] = "layer_norm_per_head" if qk_norm.startswith("layernorm") else QK_NORMS[qk_norm]
    elif family == "glm4_moe":
        fields["qk_norm"] = "none"
    if extra.get("norm_head"):
        fields["normalized_output"] = True
    if extra.get("clip_qkv"):
        fields["qkv_clip"] = extra["clip_qkv"]
    if extra.get("two_parallel_norms"):
        fields["norm_placement"] = "parallel_two"
    if entry["cross_layer_kv_share_factor"]:
        fields["key_value_share_factor"] = entry["cross_layer_kv_share_factor"]
    if entry["mtp_num_layers"]:
        fields["mtp.num_layers"] = entry["mtp_num_layers"]
    if family == "mamba2_hybrid":
        fields["gated_mlp"] = entry["gated_mlp"]
    return fields


def shared_indexers(entry):
    """The file counts an indexer in every layer, also where a layer shares that of another and the
    published weights have none (the file's own notes say so: 57 of GLM-5.2's 78 layers)."""
    dsa = (entry["extra"] or {}).get("dsa") or {}
    frequency, skip = dsa.get("index_topk_freq", 1), dsa.get("index_skip_topk_offset", 0)
    sharing = sum(max(n - skip, 0) % frequency != 0 for n in range(1, entry["num_layers"] + 1))
    if not sharing:
        return 0
    size, heads, hidden = dsa["index_head_dim"], dsa["index_n_heads"], entry["hidden_size"]
    return sharing * (entry["mla"]["q_lora_rank"] * heads * size + hidden * size + 2 * size + hidden * heads)


def compressed(entry):
    """DeepSeek-V4's own parts: two layers with a window alone, then sparse and heavy ones in turn."""
    own = (entry["extra"] or {}).get("dsv4")
    if not own:
        return {}
    layers, fraction = entry["num_layers"], own["rope_dim"] / own["head_dim"]
    assert own["compress_ratios"] == "0,0 then 4,128 alternating"
    pattern = ["sliding_attention"] * 2 + [("sparse_compressed", "heavy_compressed")[l % 2] for l in range(layers - 2)]
    return {"compressed_attention.q_lora_rank": own["q_lora"], "compressed_attention.output_groups": own["o_groups"],
            "compressed_attention.output_lora_rank": own["o_lora"], "hyper_connections.streams": own["hc_mult"],
            "activation_limit": own["swiglu_limit"], "layer_pattern": ",".join(pattern),
            "indexer.num_heads": own["index_n_heads"], "indexer.head_dim": own["index_head_dim"],
            "indexer.top_k": own["index_topk"], "rope.base": own["compress_rope_theta"], "rope.fraction": fraction,
            "sliding_rope.base": entry["position_embedding"]["base"], "sliding_rope.fraction": fraction,
            "sliding_rope.interleaved": True, "moe.num_hash_layers": entry["moe"]["n_hash_layers"]}


def uncounted(entry):
    """What the file's count of DeepSeek-V4 leaves out (its own note says so): compressors, indexers, hyper-connections
    and sinks, and the tables of the layers that route by token in place of a bias."""
    own = (entry["extra"] or {}).get("dsv4")
    if not own:
        return 0
    hidden, size, streams = entry["hidden_size"], own["head_dim"], own["hc_mult"]
    small, heads = own["index_head_dim"], own["index_n_heads"]
    heavy = (entry["num_layers"] - 2) // 2
    sparse = entry["num_layers"] - 2 - heavy

    def compressor(ratio, width, wide):
        return 2 * wide * width * hidden + ratio * wide * width + width

    indexer = own["q_lora"] * heads * small + heads * hidden + compressor(4, small, 2)
    mixes = (2 + streams) * streams
    connections = 2 * (mixes * streams * hidden + mixes + 3) * entry["num_layers"] + streams * streams * hidden + streams + 1
    sinks = entry["num_layers"] * entry["num_attention_heads"]
    tables = entry["moe"]["n_hash_layers"] * (entry["vocab_size"] * entry["moe"]["topk"] - entry["moe"]["num_experts"])
    return sparse * (compressor(4, size, 2) + indexer) + heavy * compressor(128, size, 1) + connections + sinks + tables


def preset(entry):
    family = family_of(entry)
    fields = sizes(entry) | rotary(entry) | latent(entry) | experts(entry, family) | windows(entry)
    fields |= recurrent(entry) | multipliers(entry) | switches(entry, family) | compressed(entry)
    fields |= OVERRIDES.get(entry["id"], {})
    if family == "longcat_flash":
        fields["num_layers"] *= 2  # two of the program's are one of the file's
    heads = 0 if fields.get("mtp.num_layers") == 0 else entry["mtp_params"]
    return entry["id"], family, entry["params"] + heads - shared_indexers(entry) + uncounted(entry), fields


def line(name, family, parameters, fields):
    patch = " ".join(f"{key}={text(value)}" for key, value in fields.items())
    return f'{{"{name}", "{family}", {parameters},\n "{patch}"}},'


def main():
    published = json.loads(pathlib.Path(sys.argv[1]).read_text())["presets"]
    default = pathlib.Path(__file__).parents[2] / "qianli/model/presets_data.inc"
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else default
    presets = OWN + [preset(entry) for entry in published]
    head = ["// Written by tools/reference/make_presets.py: name, family, parameters, and what differs from the",
            "// family's traits.", "// clang-format off"]
    out.write_text("\n".join(head + [line(*one) for one in presets] + ["// clang-format on", ""]))
    print(f"{len(presets)} presets in {out}")


if __name__ == "__main__":
    main()
