"""Families whose code is not part of transformers, written down plainly from their published definitions: weights by
their names on disk, one forward function each. Float64 throughout; autograd gives the gradients.

Each family is (config.json, {tensor name: shape}, forward(weights, config, tokens) -> logits).
"""

import math

import torch
import torch.nn.functional as F

VOCAB_SIZE = 97


def rms_norm(x, weight, eps):
    return weight * (x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def half_rotation(x, positions, base, dims=None, scale=1.0):
    """Pairs (i, i + r/2) of the first r dimensions. x: [B, S, heads, d]."""
    r = dims or x.shape[-1]
    inverse = scale / base ** (torch.arange(0, r, 2, dtype=torch.float64) / r)
    angle = positions[:, None].double() * inverse
    cos, sin = angle.cos()[None, :, None, :], angle.sin()[None, :, None, :]
    a, b, rest = x[..., : r // 2], x[..., r // 2 : r], x[..., r:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def pair_rotation(x, positions, base, dims=None):
    """Pairs (2i, 2i + 1) of the first r dimensions."""
    r = dims or x.shape[-1]
    inverse = 1.0 / base ** (torch.arange(0, r, 2, dtype=torch.float64) / r)
    angle = positions[:, None].double() * inverse
    cos, sin = angle.cos()[None, :, None, :], angle.sin()[None, :, None, :]
    a, b = x[..., 0:r:2], x[..., 1:r:2]
    turned = torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
    return torch.cat([turned, x[..., r:]], -1)


def attention(q, k, v, scale=None, bias=None, cap=None):
    """Causal; q [B, S, a, d], k and v [B, S, g, .]. Returns [B, S, a * d]."""
    groups = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
    scores = torch.einsum("bqad,bkad->baqk", q, k) * (scale or q.shape[-1] ** -0.5)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    if bias is not None:
        scores = scores + bias
    seen = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).tril()
    scores = scores.masked_fill(~seen, float("-inf"))
    return torch.einsum("baqk,bkad->bqad", scores.softmax(-1), v).flatten(2)


def alibi(heads, length):
    def of_power(n):
        return [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)]

    power = 2 ** int(math.floor(math.log2(heads)))
    slopes = of_power(power)
    if power < heads:
        slopes += of_power(2 * power)[0::2][: heads - power]
    distance = torch.arange(length)[None, :] - torch.arange(length)[:, None]
    return torch.tensor(slopes, dtype=torch.float64)[:, None, None] * distance


def heads(x, count):
    return x.view(*x.shape[:2], count, -1)


def swiglu(x, gate, up, down):
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def experts_of(x, weights, chosen, one):
    """Sum over chosen experts of weight * one(expert, x). weights, chosen: [B, S, k]."""
    out = torch.zeros_like(x)
    for k in range(chosen.shape[-1]):
        for e in chosen[..., k].unique().tolist():
            picked = (chosen[..., k] == e)[..., None]
            out = out + torch.where(picked, weights[..., k : k + 1] * one(e, x), torch.zeros_like(x))
    return out


def positions_of(tokens):
    return torch.arange(tokens.shape[1])


def _baichuan_shapes(c):
    h, f, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    shapes = {"model.embed_tokens.weight": (v, h), "model.norm.weight": (h,), "lm_head.weight": (v, h)}
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        shapes |= {p + "input_layernorm.weight": (h,), p + "post_attention_layernorm.weight": (h,),
                   p + "self_attn.W_pack.weight": (3 * h, h), p + "self_attn.o_proj.weight": (h, h),
                   p + "mlp.gate_proj.weight": (f, h), p + "mlp.up_proj.weight": (f, h),
                   p + "mlp.down_proj.weight": (h, f)}
    return shapes


def _baichuan(w, c, tokens, with_alibi, normalized_head):
    a, eps, pos = c["num_attention_heads"], c["rms_norm_eps"], positions_of(tokens)
    x = w["model.embed_tokens.weight"][tokens]
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        n = rms_norm(x, w[p + "input_layernorm.weight"], eps)
        q, k, v = (heads(part, a) for part in F.linear(n, w[p + "self_attn.W_pack.weight"]).chunk(3, -1))
        if with_alibi:
            o = attention(q, k, v, bias=alibi(a, tokens.shape[1]))
        else:
            o = attention(half_rotation(q, pos, 10000.0), half_rotation(k, pos, 10000.0), v)
        x = x + F.linear(o, w[p + "self_attn.o_proj.weight"])
        n = rms_norm(x, w[p + "post_attention_layernorm.weight"], eps)
        x = x + swiglu(n, w[p + "mlp.gate_proj.weight"], w[p + "mlp.up_proj.weight"], w[p + "mlp.down_proj.weight"])
    head = w["lm_head.weight"]
    if normalized_head:
        head = head / head.norm(dim=-1, keepdim=True)
    return F.linear(rms_norm(x, w["model.norm.weight"], eps), head)


def _baichuan_config(layers, architecture, length_key, **more):
    return {"model_type": "baichuan", "architectures": [architecture], "hidden_size": 48, "intermediate_size": 72,
            "num_hidden_layers": layers, "num_attention_heads": 6, "vocab_size": VOCAB_SIZE, length_key: 64,
            "rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False, **more}


def _llama_shapes(c, bias=(), qk=None, tied=False):
    h, f, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    a, g = c["num_attention_heads"], c.get("num_key_value_heads", c["num_attention_heads"])
    d = c.get("head_dim", h // a)
    shapes = {"model.embed_tokens.weight": (v, h), "model.norm.weight": (h,)}
    if not tied:
        shapes["lm_head.weight"] = (v, h)
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        shapes |= {p + "input_layernorm.weight": (h,), p + "post_attention_layernorm.weight": (h,)}
        for name, rows, columns in (("q", a * d, h), ("k", g * d, h), ("v", g * d, h), ("o", h, a * d)):
            shapes[p + f"self_attn.{name}_proj.weight"] = (rows, columns)
            if name in bias:
                shapes[p + f"self_attn.{name}_proj.bias"] = (rows,)
        if f:
            shapes |= {p + "mlp.gate_proj.weight": (f, h), p + "mlp.up_proj.weight": (f, h),
                       p + "mlp.down_proj.weight": (h, f)}
    return shapes


def _llama_attention(w, p, n, c, base, dims=None, scale=1.0):
    a, g = c["num_attention_heads"], c.get("num_key_value_heads", c["num_attention_heads"])
    pos = torch.arange(n.shape[1])
    q, k, v = (heads(F.linear(n, w[p + f"{name}_proj.weight"], w.get(p + f"{name}_proj.bias")), count)
               for name, count in (("q", a), ("k", g), ("v", g)))
    q, k = half_rotation(q, pos, base, dims, scale), half_rotation(k, pos, base, dims, scale)
    return F.linear(attention(q, k, v), w[p + "o_proj.weight"], w.get(p + "o_proj.bias"))


def _internlm(w, c, tokens):
    eps = c["rms_norm_eps"]
    x = w["model.embed_tokens.weight"][tokens]
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        x = x + _llama_attention(w, p + "self_attn.", rms_norm(x, w[p + "input_layernorm.weight"], eps), c,
                                 c.get("rope_theta", 10000.0))
        n = rms_norm(x, w[p + "post_attention_layernorm.weight"], eps)
        x = x + swiglu(n, w[p + "mlp.gate_proj.weight"], w[p + "mlp.up_proj.weight"], w[p + "mlp.down_proj.weight"])
    return F.linear(rms_norm(x, w["model.norm.weight"], eps), w["lm_head.weight"])


def _llama_config(model_type, architecture, **more):
    return {"model_type": model_type, "architectures": [architecture], "hidden_size": 48, "intermediate_size": 72,
            "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": VOCAB_SIZE,
            "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0,
            "tie_word_embeddings": False, **more}


def _chatglm_shapes(c):
    h, f, v, d = c["hidden_size"], c["ffn_hidden_size"], c["padded_vocab_size"], c["kv_channels"]
    a, g = c["num_attention_heads"], c["multi_query_group_num"]
    shapes = {"transformer.embedding.word_embeddings.weight": (v, h), "transformer.output_layer.weight": (v, h),
              "transformer.encoder.final_layernorm.weight": (h,)}
    for l in range(c["num_layers"]):
        p = f"transformer.encoder.layers.{l}."
        rows = (a + 2 * g) * d
        shapes |= {p + "input_layernorm.weight": (h,), p + "post_attention_layernorm.weight": (h,),
                   p + "self_attention.query_key_value.weight": (rows, h),
                   p + "self_attention.query_key_value.bias": (rows,), p + "self_attention.dense.weight": (h, a * d),
                   p + "mlp.dense_h_to_4h.weight": (2 * f, h), p + "mlp.dense_4h_to_h.weight": (h, f)}
    return shapes


def _chatglm(w, c, tokens):
    a, g, d, eps = c["num_attention_heads"], c["multi_query_group_num"], c["kv_channels"], c["layernorm_epsilon"]
    pos, base = positions_of(tokens), 10000.0 * c.get("rope_ratio", 1)
    x = w["transformer.embedding.word_embeddings.weight"][tokens]
    for l in range(c["num_layers"]):
        p = f"transformer.encoder.layers.{l}."
        n = rms_norm(x, w[p + "input_layernorm.weight"], eps)
        packed = F.linear(n, w[p + "self_attention.query_key_value.weight"], w[p + "self_attention.query_key_value.bias"])
        q, k, v = packed.split([a * d, g * d, g * d], -1)
        q, k = (pair_rotation(heads(part, count), pos, base, d // 2) for part, count in ((q, a), (k, g)))
        x = x + F.linear(attention(q, k, heads(v, g)), w[p + "self_attention.dense.weight"])
        n = rms_norm(x, w[p + "post_attention_layernorm.weight"], eps)
        gate, up = F.linear(n, w[p + "mlp.dense_h_to_4h.weight"]).chunk(2, -1)
        x = x + F.linear(F.silu(gate) * up, w[p + "mlp.dense_4h_to_h.weight"])
    x = rms_norm(x, w["transformer.encoder.final_layernorm.weight"], eps)
    return F.linear(x, w["transformer.output_layer.weight"])


def _qwen_shapes(c):
    h, f, v = c["hidden_size"], c["intermediate_size"] // 2, c["vocab_size"]
    shapes = {"transformer.wte.weight": (v, h), "transformer.ln_f.weight": (h,), "lm_head.weight": (v, h)}
    for l in range(c["num_hidden_layers"]):
        p = f"transformer.h.{l}."
        shapes |= {p + "ln_1.weight": (h,), p + "ln_2.weight": (h,), p + "attn.c_attn.weight": (3 * h, h),
                   p + "attn.c_attn.bias": (3 * h,), p + "attn.c_proj.weight": (h, h), p + "mlp.w1.weight": (f, h),
                   p + "mlp.w2.weight": (f, h), p + "mlp.c_proj.weight": (h, f)}
    return shapes


def _qwen(w, c, tokens):
    a, eps, pos = c["num_attention_heads"], c["layer_norm_epsilon"], positions_of(tokens)
    x = w["transformer.wte.weight"][tokens]
    for l in range(c["num_hidden_layers"]):
        p = f"transformer.h.{l}."
        n = rms_norm(x, w[p + "ln_1.weight"], eps)
        q, k, v = (heads(part, a) for part in
                   F.linear(n, w[p + "attn.c_attn.weight"], w[p + "attn.c_attn.bias"]).chunk(3, -1))
        q, k = half_rotation(q, pos, c["rotary_emb_base"]), half_rotation(k, pos, c["rotary_emb_base"])
        x = x + F.linear(attention(q, k, v), w[p + "attn.c_proj.weight"])
        n = rms_norm(x, w[p + "ln_2.weight"], eps)
        x = x + swiglu(n, w[p + "mlp.w2.weight"], w[p + "mlp.w1.weight"], w[p + "mlp.c_proj.weight"])
    return F.linear(rms_norm(x, w["transformer.ln_f.weight"], eps), w["lm_head.weight"])


def _internlm2_shapes(c):
    h, f, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    a, g = c["num_attention_heads"], c["num_key_value_heads"]
    d = h // a
    shapes = {"model.tok_embeddings.weight": (v, h), "model.norm.weight": (h,), "output.weight": (v, h)}
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        shapes |= {p + "attention_norm.weight": (h,), p + "ffn_norm.weight": (h,),
                   p + "attention.wqkv.weight": ((a + 2 * g) * d, h), p + "attention.wo.weight": (h, a * d),
                   p + "feed_forward.w1.weight": (f, h), p + "feed_forward.w3.weight": (f, h),
                   p + "feed_forward.w2.weight": (h, f)}
    return shapes


def _internlm2(w, c, tokens):
    a, g, eps, pos = c["num_attention_heads"], c["num_key_value_heads"], c["rms_norm_eps"], positions_of(tokens)
    d, base = c["hidden_size"] // a, c["rope_theta"]
    x = w["model.tok_embeddings.weight"][tokens]
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        n = rms_norm(x, w[p + "attention_norm.weight"], eps)
        packed = F.linear(n, w[p + "attention.wqkv.weight"]).view(*n.shape[:2], g, a // g + 2, d)
        q, k, v = packed[..., :-2, :].flatten(2, 3), packed[..., -2, :], packed[..., -1, :]
        o = attention(half_rotation(q, pos, base), half_rotation(k, pos, base), v)
        x = x + F.linear(o, w[p + "attention.wo.weight"])
        n = rms_norm(x, w[p + "ffn_norm.weight"], eps)
        x = x + swiglu(n, w[p + "feed_forward.w1.weight"], w[p + "feed_forward.w3.weight"],
                       w[p + "feed_forward.w2.weight"])
    return F.linear(rms_norm(x, w["model.norm.weight"], eps), w["output.weight"])


def _minicpm_shapes(c):
    shapes = _llama_shapes(c | ({"intermediate_size": 0} if "num_experts" in c else {}), tied=True)
    h, f = c["hidden_size"], c["intermediate_size"]
    for l in range(c["num_hidden_layers"] if "num_experts" in c else 0):
        p = f"model.layers.{l}.mlp."
        shapes[p + "gate.weight"] = (c["num_experts"], h)
        for e in range(c["num_experts"]):
            shapes |= {p + f"experts.{e}.w1.weight": (f, h), p + f"experts.{e}.w3.weight": (f, h),
                       p + f"experts.{e}.w2.weight": (h, f)}
    return shapes


def _minicpm(w, c, tokens):
    eps, branch = c["rms_norm_eps"], c["scale_depth"] / math.sqrt(c["num_hidden_layers"])
    x = w["model.embed_tokens.weight"][tokens] * c["scale_emb"]
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        n = rms_norm(x, w[p + "input_layernorm.weight"], eps)
        x = x + branch * _llama_attention(w, p + "self_attn.", n, c, 10000.0)
        n = rms_norm(x, w[p + "post_attention_layernorm.weight"], eps)
        if "num_experts" in c:
            chance = F.linear(n, w[p + "mlp.gate.weight"]).softmax(-1)
            best, chosen = chance.topk(c["num_experts_per_tok"], -1)
            best = best / best.sum(-1, keepdim=True)
            y = experts_of(n, best, chosen, lambda e, n: swiglu(n, *(
                w[p + f"mlp.experts.{e}.{name}.weight"] for name in ("w1", "w3", "w2"))))
        else:
            y = swiglu(n, w[p + "mlp.gate_proj.weight"], w[p + "mlp.up_proj.weight"], w[p + "mlp.down_proj.weight"])
        x = x + branch * y
    x = rms_norm(x, w["model.norm.weight"], eps) / (c["hidden_size"] / c["dim_model_base"])
    return F.linear(x, w["model.embed_tokens.weight"])


def _grok_shapes(c):
    h, f, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    a, g = c["num_attention_heads"], c["num_key_value_heads"]
    d = h // a
    shapes = {"model.embed_tokens.weight": (v, h), "model.norm.weight": (h,), "lm_head.weight": (v, h)}
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        for norm in ("pre_attn_norm", "post_attn_norm", "pre_moe_norm", "post_moe_norm"):
            shapes[p + norm + ".weight"] = (h,)
        for name, rows, columns in (("q", a * d, h), ("k", g * d, h), ("v", g * d, h), ("o", h, a * d)):
            shapes[p + f"attn.{name}_proj.weight"] = (rows, columns)
        shapes[p + "moe_block.gate.weight"] = (c["num_experts"], h)
        for e in range(c["num_experts"]):
            q = p + f"moe_block.experts.{e}."
            shapes |= {q + "linear_v.weight": (f, h), q + "linear.weight": (f, h), q + "linear_1.weight": (h, f)}
    return shapes


def _grok(w, c, tokens):
    a, g, eps, pos = c["num_attention_heads"], c["num_key_value_heads"], c["rms_norm_eps"], positions_of(tokens)
    x = w["model.embed_tokens.weight"][tokens] * c["embedding_multiplier_scale"]
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        n = rms_norm(x, w[p + "pre_attn_norm.weight"], eps)
        q, k, v = (heads(F.linear(n, w[p + f"attn.{name}_proj.weight"]), count)
                   for name, count in (("q", a), ("k", g), ("v", g)))
        o = attention(half_rotation(q, pos, 10000.0), half_rotation(k, pos, 10000.0), v, cap=c["max_attn_value"])
        x = x + rms_norm(F.linear(o, w[p + "attn.o_proj.weight"]), w[p + "post_attn_norm.weight"], eps)
        n = rms_norm(x, w[p + "pre_moe_norm.weight"], eps)
        best, chosen = F.linear(n, w[p + "moe_block.gate.weight"]).softmax(-1).topk(c["num_experts_per_tok"], -1)

        def one(e, n):
            q = p + f"moe_block.experts.{e}."
            gate = F.gelu(F.linear(n, w[q + "linear.weight"]), approximate="tanh")
            return F.linear(gate * F.linear(n, w[q + "linear_v.weight"]), w[q + "linear_1.weight"])

        x = x + rms_norm(experts_of(n, best, chosen, one), w[p + "post_moe_norm.weight"], eps)
    x = rms_norm(x, w["model.norm.weight"], eps)
    return F.linear(x, w["lm_head.weight"]) * c["output_multiplier_scale"]


def _hunyuan_shapes(c):
    shapes = _llama_shapes(c | {"intermediate_size": 0}, tied=True)
    h, f, d = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        if l % 2 == 1:
            del shapes[p + "self_attn.k_proj.weight"], shapes[p + "self_attn.v_proj.weight"]
        shapes |= {p + "self_attn.query_layernorm.weight": (d,), p + "self_attn.key_layernorm.weight": (d,),
                   p + "mlp.gate.wg.weight": (c["num_experts"], h)}
        for where in [f"experts.{e}" for e in range(c["num_experts"])] + ["shared_mlp"]:
            shapes |= {p + f"mlp.{where}.gate_proj.weight": (f, h), p + f"mlp.{where}.up_proj.weight": (f, h),
                       p + f"mlp.{where}.down_proj.weight": (h, f)}
    return shapes


def _hunyuan(w, c, tokens):
    a, g, d, eps = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"], c["rms_norm_eps"]
    pos = positions_of(tokens)
    base = c["rope_theta"] * c["rope_scaling"]["alpha"] ** (d / (d - 2))
    x = w["model.embed_tokens.weight"][tokens]
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        n = rms_norm(x, w[p + "input_layernorm.weight"], eps)
        q = heads(F.linear(n, w[p + "self_attn.q_proj.weight"]), a)
        if l % 2 == 0:  # the layer behind takes these again
            k = heads(F.linear(n, w[p + "self_attn.k_proj.weight"]), g)
            v = heads(F.linear(n, w[p + "self_attn.v_proj.weight"]), g)
        turned_q = rms_norm(half_rotation(q, pos, base), w[p + "self_attn.query_layernorm.weight"], eps)
        turned_k = rms_norm(half_rotation(k, pos, base), w[p + "self_attn.key_layernorm.weight"], eps)
        x = x + F.linear(attention(turned_q, turned_k, v), w[p + "self_attn.o_proj.weight"])
        n = rms_norm(x, w[p + "post_attention_layernorm.weight"], eps)

        def mlp(where, n):
            return swiglu(n, *(w[p + f"mlp.{where}.{name}_proj.weight"] for name in ("gate", "up", "down")))

        best, chosen = F.linear(n, w[p + "mlp.gate.wg.weight"]).softmax(-1).topk(1, -1)
        x = x + mlp("shared_mlp", n) + experts_of(n, best, chosen, lambda e, n: mlp(f"experts.{e}", n))
    return F.linear(rms_norm(x, w["model.norm.weight"], eps), w["model.embed_tokens.weight"])


def _bailing_shapes(c):
    h, f, m, v, d = (c[k] for k in ("hidden_size", "intermediate_size", "moe_intermediate_size", "vocab_size", "head_dim"))
    a, g = c["num_attention_heads"], c["num_key_value_heads"]
    shapes = {"model.word_embeddings.weight": (v, h), "model.norm.weight": (h,), "lm_head.weight": (v, h)}
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        shapes |= {p + "input_layernorm.weight": (h,), p + "post_attention_layernorm.weight": (h,),
                   p + "attention.query_key_value.weight": ((a + 2 * g) * d, h),
                   p + "attention.dense.weight": (h, a * d), p + "attention.query_layernorm.weight": (d,),
                   p + "attention.key_layernorm.weight": (d,)}
        if l < c["first_k_dense_replace"]:
            places = [("mlp", f)]
        else:
            shapes |= {p + "mlp.gate.weight": (c["num_experts"], h), p + "mlp.gate.expert_bias": (c["num_experts"],)}
            places = [(f"mlp.experts.{e}", m) for e in range(c["num_experts"])]
            places.append(("mlp.shared_experts", m * c["num_shared_experts"]))
        for where, width in places:
            shapes |= {p + f"{where}.gate_proj.weight": (width, h), p + f"{where}.up_proj.weight": (width, h),
                       p + f"{where}.down_proj.weight": (h, width)}
    return shapes


def _grouped_sigmoid(logits, bias, c):
    score = logits.sigmoid()
    choice = score + bias
    groups = choice.view(*choice.shape[:-1], c["n_group"], -1)
    kept = groups.topk(2, -1).values.sum(-1).topk(c["topk_group"], -1).indices
    mask = torch.zeros(groups.shape[:-1], dtype=torch.bool).scatter(-1, kept, True)
    choice = groups.masked_fill(~mask[..., None], float("-inf")).flatten(-2)
    chosen = choice.topk(c["num_experts_per_tok"], -1).indices
    best = score.gather(-1, chosen)
    return best / (best.sum(-1, keepdim=True) + 1e-20) * c["routed_scaling_factor"], chosen


def _bailing(w, c, tokens):
    a, g, d, eps = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"], c["rms_norm_eps"]
    pos, r = positions_of(tokens), int(c["head_dim"] * c["partial_rotary_factor"])
    x = w["model.word_embeddings.weight"][tokens]
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        n = rms_norm(x, w[p + "input_layernorm.weight"], eps)
        q, k, v = F.linear(n, w[p + "attention.query_key_value.weight"]).split([a * d, g * d, g * d], -1)
        q = rms_norm(heads(q, a), w[p + "attention.query_layernorm.weight"], eps)
        k = rms_norm(heads(k, g), w[p + "attention.key_layernorm.weight"], eps)
        q, k = half_rotation(q, pos, c["rope_theta"], r), half_rotation(k, pos, c["rope_theta"], r)
        x = x + F.linear(attention(q, k, heads(v, g)), w[p + "attention.dense.weight"])
        n = rms_norm(x, w[p + "post_attention_layernorm.weight"], eps)

        def mlp(where, n):
            return swiglu(n, *(w[p + f"{where}.{name}_proj.weight"] for name in ("gate", "up", "down")))

        if l < c["first_k_dense_replace"]:
            x = x + mlp("mlp", n)
            continue
        best, chosen = _grouped_sigmoid(F.linear(n, w[p + "mlp.gate.weight"]), w[p + "mlp.gate.expert_bias"], c)
        x = x + mlp("mlp.shared_experts", n) + experts_of(n, best, chosen, lambda e, n: mlp(f"mlp.experts.{e}", n))
    return F.linear(rms_norm(x, w["model.norm.weight"], eps), w["lm_head.weight"])


def _plm_shapes(c):
    h, f, v, a = c["hidden_size"], c["intermediate_size"], c["vocab_size"], c["num_attention_heads"]
    kr, nope, rope, vd = (c[k] for k in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    shapes = {"model.embed_tokens.weight": (v, h), "model.norm.weight": (h,)}
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        shapes |= {p + "input_layernorm.weight": (h,), p + "post_attention_layernorm.weight": (h,),
                   p + "self_attn.q_proj.weight": (a * (nope + rope), h),
                   p + "self_attn.kv_a_proj_with_mqa.weight": (kr + rope, h), p + "self_attn.kv_a_layernorm.weight": (kr,),
                   p + "self_attn.kv_b_proj.weight": (a * (nope + vd), kr), p + "self_attn.o_proj.weight": (h, a * vd),
                   p + "mlp.up_proj.weight": (f, h), p + "mlp.down_proj.weight": (h, f)}
    return shapes


def _plm(w, c, tokens):
    a, eps, pos, base = c["num_attention_heads"], c["rms_norm_eps"], positions_of(tokens), c["rope_theta"]
    kr, nope, rope, vd = (c[k] for k in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    x = w["model.embed_tokens.weight"][tokens]
    for l in range(c["num_hidden_layers"]):
        p = f"model.layers.{l}."
        n = rms_norm(x, w[p + "input_layernorm.weight"], eps)
        q = heads(F.linear(n, w[p + "self_attn.q_proj.weight"]), a)
        q = torch.cat([q[..., :nope], pair_rotation(q[..., nope:], pos, base)], -1)
        latent, key = F.linear(n, w[p + "self_attn.kv_a_proj_with_mqa.weight"]).split([kr, rope], -1)
        latent = rms_norm(latent, w[p + "self_attn.kv_a_layernorm.weight"], eps)
        up = heads(F.linear(latent, w[p + "self_attn.kv_b_proj.weight"]), a)
        key = pair_rotation(key[:, :, None, :], pos, base).expand(-1, -1, a, -1)
        o = attention(q, torch.cat([up[..., :nope], key], -1), up[..., nope:])
        x = x + F.linear(o, w[p + "self_attn.o_proj.weight"])
        n = rms_norm(x, w[p + "post_attention_layernorm.weight"], eps)
        x = x + F.linear(F.relu(F.linear(n, w[p + "mlp.up_proj.weight"])) ** 2, w[p + "mlp.down_proj.weight"])
    return F.linear(rms_norm(x, w["model.norm.weight"], eps), w["model.embed_tokens.weight"])


_MINICPM = _llama_config("minicpm", "MiniCPMForCausalLM", num_key_value_heads=6, scale_emb=12, scale_depth=1.4,
                         dim_model_base=16, tie_word_embeddings=True)
_INTERNLM2 = _llama_config("internlm2", "InternLM2ForCausalLM", bias=False, rope_theta=1000000.0)

FAMILIES = {
    "aquila": (_llama_config("aquila", "AquilaModel", num_key_value_heads=6, rms_norm_eps=1e-6), _llama_shapes, _internlm),
    "baichuan_7b": (_baichuan_config(2, "BaiChuanForCausalLM", "max_position_embeddings"), _baichuan_shapes,
                    lambda w, c, t: _baichuan(w, c, t, with_alibi=False, normalized_head=False)),
    "baichuan2_7b": (_baichuan_config(2, "BaichuanForCausalLM", "max_position_embeddings", z_loss_weight=0), _baichuan_shapes,
                     lambda w, c, t: _baichuan(w, c, t, with_alibi=False, normalized_head=True)),
    "baichuan_13b": (_baichuan_config(2, "BaichuanForCausalLM", "model_max_length"), _baichuan_shapes,
                     lambda w, c, t: _baichuan(w, c, t, with_alibi=True, normalized_head=False)),
    "baichuan2_13b": (_baichuan_config(2, "BaichuanForCausalLM", "model_max_length", z_loss_weight=0), _baichuan_shapes,
                      lambda w, c, t: _baichuan(w, c, t, with_alibi=True, normalized_head=True)),
    "bailing_moe_v2": (_llama_config("bailing_moe", "BailingMoeV2ForCausalLM", num_hidden_layers=3, head_dim=8, rms_norm_eps=1e-6,
                                     num_experts=8, num_experts_per_tok=3, moe_intermediate_size=20,
                                     num_shared_experts=1, first_k_dense_replace=1, n_group=4, topk_group=2,
                                     norm_topk_prob=True, routed_scaling_factor=2.5, score_function="sigmoid",
                                     moe_router_enable_expert_bias=True, use_qk_norm=True, use_bias=False,
                                     use_qkv_bias=False, partial_rotary_factor=0.5, rope_theta=600000.0),
                       _bailing_shapes, _bailing),
    "chatglm3": ({"model_type": "chatglm", "architectures": ["ChatGLMModel"], "hidden_size": 48, "ffn_hidden_size": 72,
                  "num_layers": 2, "num_attention_heads": 6, "multi_query_attention": True, "multi_query_group_num": 2,
                  "kv_channels": 8, "padded_vocab_size": VOCAB_SIZE, "seq_length": 64, "layernorm_epsilon": 1e-5,
                  "rmsnorm": True, "post_layer_norm": True, "add_bias_linear": False, "add_qkv_bias": True,
                  "apply_residual_connection_post_layernorm": False, "original_rope": True, "rope_ratio": 50,
                  "tie_word_embeddings": False}, _chatglm_shapes, _chatglm),
    "grok1": (_llama_config("grok-1", "Grok1ModelForCausalLM", hidden_act="gelu", num_experts=4, num_experts_per_tok=2,
                            embedding_multiplier_scale=78.38367176906169, output_multiplier_scale=0.5773502691896257,
                            attn_output_multiplier=8**-0.5, max_attn_value=3.0), _grok_shapes, _grok),
    "hunyuan_large": (_llama_config("hunyuan", "HunYuanForCausalLM", num_hidden_layers=4, head_dim=8, num_experts=4,
                                    moe_topk=1, num_shared_expert=1, use_cla=True, cla_share_factor=2, use_qk_norm=True,
                                    tie_word_embeddings=True, use_mixed_mlp_moe=True,
                                    rope_scaling={"type": "dynamic", "alpha": 1000.0, "factor": 1.0}),
                      _hunyuan_shapes, _hunyuan),
    "internlm": (_llama_config("internlm", "InternLMForCausalLM", num_key_value_heads=6, bias=True, rms_norm_eps=1e-6),
                 lambda c: _llama_shapes(c, bias="qkvo"), _internlm),
    "internlm2": (_INTERNLM2, _internlm2_shapes, _internlm2),
    "internlm3": (_llama_config("internlm3", "InternLM3ForCausalLM", head_dim=8, bias=False, qkv_bias=False,
                                rope_theta=50000.0), _llama_shapes, _internlm),
    "minicpm": (_MINICPM, _minicpm_shapes, _minicpm),
    "minicpm_moe": (_MINICPM | {"num_experts": 4, "num_experts_per_tok": 2}, _minicpm_shapes, _minicpm),
    "plm": (_llama_config("plm", "PLMForCausalLM", num_key_value_heads=6, rms_norm_eps=1e-6, hidden_act="relu2",
                          kv_lora_rank=24, q_lora_rank=None, qk_nope_head_dim=10, qk_rope_head_dim=8, v_head_dim=12,
                          rope_theta=100000.0, tie_word_embeddings=True), _plm_shapes, _plm),
    "qwen1": ({"model_type": "qwen", "architectures": ["QWenLMHeadModel"], "hidden_size": 48, "intermediate_size": 144,
               "num_hidden_layers": 2, "num_attention_heads": 6, "kv_channels": 8, "vocab_size": VOCAB_SIZE,
               "seq_length": 64, "max_position_embeddings": 64, "layer_norm_epsilon": 1e-6, "no_bias": True,
               "rotary_emb_base": 10000, "rotary_pct": 1.0, "use_dynamic_ntk": True, "use_logn_attn": True,
               "tie_word_embeddings": False}, _qwen_shapes, _qwen),
}
