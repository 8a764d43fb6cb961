"""Writes qianli/model/presets_data.inc from a file of published architectures.

    python make_presets.py MODELS.json [OUT]

MODELS.json: {"presets": [{"id", "hf_model_type", "num_layers", ...}]}. Entries of families the program
does not build are left out. The count of parameters is computed here, from the shapes, and compared
with the file's; the program's own count is compared with it by a test.
"""

import json
import pathlib
import sys

# hf_model_type -> family and the switches every member of it shares
LLAMA = dict(norm="RMSNorm", norm_bias=False, position="rope", gated=True, activation="silu",
             qkv=False, out=False, mlp=False, qk_norm=None)
GPT2 = dict(norm="LayerNorm", norm_bias=True, position="learned_absolute", gated=False,
            activation="gelu_tanh", qkv=True, out=True, mlp=True, qk_norm=None)
FAMILIES = {
    "gpt2": ("gpt2", GPT2),
    "gpt2-like": ("gpt2", GPT2),
    "llama": ("llama", LLAMA),
    "mistral": ("mistral", LLAMA),
    "qwen2": ("qwen2", LLAMA | dict(qkv=True)),
    "qwen3": ("qwen3", LLAMA | dict(qk_norm="rms_head_pre_rope")),
}
ACTIVATIONS = {"gelu": "Activation::kGelu", "gelu_tanh": "Activation::kGeluTanh"}


def own(name, kind, layers, hidden, ffn, heads, groups, head_dim, vocabulary, positions, base, eps, tied):
    return dict(name=name, kind=kind, layers=layers, hidden=hidden, ffn=ffn, heads=heads, groups=groups,
                head_dim=head_dim, vocabulary=vocabulary, positions=positions, eps=eps, base=base,
                llama3=0.0, tied=tied, activation=FAMILIES[kind][1]["activation"])


# Small models for tests, examples and laptops.
OWN = [
    own("llama-tiny", "llama", 4, 128, 352, 4, 2, 32, 1024, 1024, 10000.0, 1e-5, True),
    own("qwen3-tiny", "qwen3", 4, 128, 352, 4, 2, 64, 1024, 1024, 1000000.0, 1e-6, True),
    own("gpt2-tiny", "gpt2", 4, 128, 512, 4, 4, 32, 1024, 1024, 10000.0, 1e-5, True),
    own("llama-small", "llama", 8, 512, 1408, 8, 4, 64, 32000, 2048, 10000.0, 1e-5, True),
]


def switches(entry):
    norm, bias = entry["norm"], entry["bias"]
    return dict(norm=norm["type"], norm_bias=norm["bias"], position=entry["position_embedding"]["type"],
                gated=entry["gated_mlp"], activation=entry["activation"], qkv=bias["qkv"],
                out=bias["attention_out"], mlp=bias["mlp"], qk_norm=entry["qk_norm"])


def row(entry):
    rope = entry["position_embedding"]
    scaling = rope.get("scaling")
    kind = entry["hf_model_type"]
    differing = {k for k, v in switches(entry).items() if v != FAMILIES[kind][1][k]}
    assert differing <= {"activation"}, (entry["id"], differing)
    assert entry["padded_vocab_size"] in (None, entry["vocab_size"]), entry["id"]
    assert rope.get("rotary_percent", 1.0) == 1.0 and not entry["sliding_window"], entry["id"]
    if scaling:
        expected = dict(type="llama3", low_freq_factor=1.0, high_freq_factor=4.0,
                        original_max_position_embeddings=8192)
        assert {k: v for k, v in scaling.items() if k != "factor"} == expected, entry["id"]
    return dict(name=entry["id"], kind=kind, layers=entry["num_layers"], hidden=entry["hidden_size"],
                ffn=entry["ffn_hidden_size"], heads=entry["num_attention_heads"],
                groups=entry["num_query_groups"], head_dim=entry["kv_channels"],
                vocabulary=entry["vocab_size"], positions=entry["max_position_embeddings"],
                eps=entry["norm"]["eps"], base=rope.get("base", 10000.0),
                llama3=scaling["factor"] if scaling else 0.0, tied=entry["tie_word_embeddings"],
                activation=entry["activation"])


def parameters(p):
    """Elements of all tensors, from the shapes."""
    s = FAMILIES[p["kind"]][1]
    h, q, kv, f = p["hidden"], p["heads"] * p["head_dim"], p["groups"] * p["head_dim"], p["ffn"]
    norm = h * (2 if s["norm_bias"] else 1)
    fc1 = f * (2 if s["gated"] else 1)
    layer = h * (q + 2 * kv) + q * h + h * fc1 + f * h + 2 * norm
    layer += (q + 2 * kv if s["qkv"] else 0) + (h if s["out"] else 0) + (fc1 + h if s["mlp"] else 0)
    layer += 2 * p["head_dim"] if s["qk_norm"] else 0
    outside = p["vocabulary"] * h * (1 if p["tied"] else 2) + norm
    outside += p["positions"] * h if s["position"] == "learned_absolute" else 0
    return outside + p["layers"] * layer


def line(p):
    family, shared = FAMILIES[p["kind"]]
    fields = [f'"{p["name"]}"', f'"{family}"']
    fields += [str(p[k]) for k in ("layers", "hidden", "ffn", "heads", "groups", "head_dim", "vocabulary",
                                   "positions")]
    fields += [f'{p["eps"]:g}', f'{p["base"]:.1f}', f'{p["llama3"]:.1f}', "true" if p["tied"] else "false",
               str(parameters(p))]
    if p["activation"] != shared["activation"]:
        fields.append(ACTIVATIONS[p["activation"]])
    return "{" + ", ".join(fields) + "},"


def main():
    published = json.loads(pathlib.Path(sys.argv[1]).read_text())["presets"]
    default = pathlib.Path(__file__).parents[2] / "qianli/model/presets_data.inc"
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else default
    rows = list(OWN)
    for entry in published:
        if entry["hf_model_type"] in FAMILIES:
            rows.append(row(entry))
            assert parameters(rows[-1]) == entry["params"], entry["id"]
    head = [
        "// Written by tools/reference/make_presets.py. One preset a line: name, family, layers, hidden,",
        "// ffn (one branch), heads, key/value heads, head size, vocabulary, positions, norm eps, rope base,",
        "// factor of llama3 rope scaling (0: none), tied, parameters, activation where not the family's.",
        "// clang-format off",
    ]
    out.write_text("\n".join(head + [line(p) for p in rows] + ["// clang-format on"]) + "\n")
    print(f"{len(rows)} presets")


if __name__ == "__main__":
    main()
