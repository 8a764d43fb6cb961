"""A tiny configuration for every family that transformers implements: odd shapes, every switch of the family on, lengths
at which windows, scaled rotary positions and groups of experts take effect within 40 positions."""

from transformers import CONFIG_MAPPING

import step3p5_model  # noqa: F401  registers it

VOCAB_SIZE = 97
LENGTH = 40


def _rope(rope_type="default", theta=10000.0, **parameters):
    return {"rope_type": rope_type, "rope_theta": theta, **parameters}


def _llama_like(**more):
    return dict(
        vocab_size=VOCAB_SIZE, hidden_size=48, intermediate_size=72, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None,
        tie_word_embeddings=False,
    ) | more


_EXPERTS = dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=20)
_DEEPSEEK_YARN = _rope("yarn", theta=100.0, factor=4.0, original_max_position_embeddings=16, beta_fast=32, beta_slow=1,
                       mscale=0.707, mscale_all_dim=0.707)
_LATENT = dict(kv_lora_rank=24, q_lora_rank=20, qk_nope_head_dim=10, qk_rope_head_dim=8, v_head_dim=12)
_DEEPSEEK_MOE = dict(n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=20, n_shared_experts=2,
                     first_k_dense_replace=1, n_group=4, topk_group=2, routed_scaling_factor=2.5, norm_topk_prob=True)
_LONG = [1.0 + 0.3 * i for i in range(4)]
_SHORT = [1.0 + 0.05 * i for i in range(4)]

# name: (model_type, keyword arguments of its configuration class)
CONFIGS = {
    "bloom": ("bloom", dict(vocab_size=VOCAB_SIZE, hidden_size=48, n_layer=2, n_head=6, hidden_dropout=0.0,
                            attention_dropout=0.0)),
    "cohere": ("cohere", _llama_like(logit_scale=0.25, use_qk_norm=False, tie_word_embeddings=True)),
    "cohere_plus": ("cohere", _llama_like(logit_scale=0.8, use_qk_norm=True, tie_word_embeddings=True)),
    "cohere2": ("cohere2", _llama_like(logit_scale=0.25, sliding_window=8, num_hidden_layers=4, head_dim=8,
                                       tie_word_embeddings=True)),
    "dbrx": ("dbrx", dict(vocab_size=VOCAB_SIZE, d_model=48, n_heads=6, n_layers=2, max_seq_len=64,
                          attn_config=dict(clip_qkv=0.5, kv_n_heads=2, rope_theta=10000.0),
                          ffn_config=dict(ffn_hidden_size=20, moe_num_experts=4, moe_top_k=2, moe_loss_weight=0.05,
                                          hidden_size=48))),
    "deepseek_v2": ("deepseek_v2", _llama_like(**_LATENT, **_DEEPSEEK_MOE | dict(topk_method="group_limited_greedy",
                                               norm_topk_prob=False, routed_scaling_factor=16.0),
                                               num_key_value_heads=6, rope_parameters=_DEEPSEEK_YARN)),
    "deepseek_v2_lite": ("deepseek_v2", _llama_like(**_LATENT | dict(q_lora_rank=None), **_DEEPSEEK_MOE |
                                                    dict(topk_method="greedy", n_group=1, topk_group=1,
                                                         norm_topk_prob=False, routed_scaling_factor=1.0),
                                                    num_key_value_heads=6, rope_parameters=_DEEPSEEK_YARN)),
    "deepseek_v3": ("deepseek_v3", _llama_like(**_LATENT, **_DEEPSEEK_MOE, num_key_value_heads=6, num_hidden_layers=3,
                                               rope_parameters=_DEEPSEEK_YARN | dict(mscale=1.0, mscale_all_dim=1.0))),
    "deepseek_v32": ("deepseek_v32", _llama_like(**_LATENT, **_DEEPSEEK_MOE, num_key_value_heads=6, index_n_heads=3,
                                                 index_head_dim=16, index_topk=7,
                                                 rope_parameters=_rope())),
    "falcon_7b": ("falcon", dict(vocab_size=VOCAB_SIZE, hidden_size=48, num_hidden_layers=2, num_attention_heads=6,
                                 multi_query=True, new_decoder_architecture=False, parallel_attn=True, bias=False,
                                 alibi=False, max_position_embeddings=64)),
    "falcon_40b": ("falcon", dict(vocab_size=VOCAB_SIZE, hidden_size=48, num_hidden_layers=2, num_attention_heads=6,
                                  num_kv_heads=2, multi_query=False, new_decoder_architecture=True, parallel_attn=True,
                                  bias=False, alibi=False, max_position_embeddings=64)),
    "gemma": ("gemma", _llama_like(head_dim=12, num_key_value_heads=1, tie_word_embeddings=True)),
    "gemma2": ("gemma2", _llama_like(head_dim=12, query_pre_attn_scalar=20, sliding_window=8, num_hidden_layers=3,
                                     attn_logit_softcapping=5.0, final_logit_softcapping=3.0,
                                     tie_word_embeddings=True)),
    "gemma3_text": ("gemma3_text", _llama_like(head_dim=12, query_pre_attn_scalar=20, sliding_window=8,
                                               num_hidden_layers=7, tie_word_embeddings=True,
                                               rope_parameters={
                                                   "sliding_attention": _rope(theta=100.0),
                                                   "full_attention": _rope("linear", theta=1000.0, factor=8.0)})),
    "glm": ("glm", _llama_like(head_dim=8, attention_bias=True, rope_parameters=_rope(partial_rotary_factor=0.5))),
    "glm4": ("glm4", _llama_like(head_dim=8, attention_bias=False, rope_parameters=_rope(partial_rotary_factor=0.5))),
    "glm4_moe": ("glm4_moe", _llama_like(**_DEEPSEEK_MOE, head_dim=8, attention_bias=True, use_qk_norm=True,
                                         rope_parameters=_rope(partial_rotary_factor=0.5))),
    "glm_moe_dsa": ("glm_moe_dsa", _llama_like(**_LATENT, **_DEEPSEEK_MOE, num_key_value_heads=6, index_n_heads=3,
                                               index_head_dim=16, index_topk=7, num_hidden_layers=3,
                                               rope_parameters=_rope())),
    "gpt2": ("gpt2", dict(vocab_size=VOCAB_SIZE, n_positions=64, n_embd=48, n_layer=2, n_head=6, n_inner=72, attn_pdrop=0.0,
                          embd_pdrop=0.0, resid_pdrop=0.0)),
    "gpt_bigcode": ("gpt_bigcode", dict(vocab_size=VOCAB_SIZE, n_positions=64, n_embd=48, n_layer=2, n_head=6, n_inner=72,
                                        multi_query=True, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)),
    "gpt_oss": ("gpt_oss", _llama_like(head_dim=8, num_local_experts=5, num_experts_per_tok=2, sliding_window=8,
                                       rope_parameters=_rope("yarn", theta=100.0, factor=4.0, beta_fast=32.0,
                                                             beta_slow=1.0, truncate=False,
                                                             original_max_position_embeddings=16))),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", _llama_like(num_experts=4, moe_topk=2, head_dim=8, attention_bias=False,
                                                     rope_parameters=_rope("dynamic", alpha=100.0, factor=1.0))),
    "hy_v3": ("hy_v3", _llama_like(**_EXPERTS, head_dim=8, mlp_layer_types=["dense", "sparse"],
                                   num_shared_experts=1, router_scaling_factor=2.8)),
    "llama": ("llama", _llama_like(head_dim=8, rope_parameters=_rope(
        "llama3", theta=100.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=16))),
    "longcat_flash": ("longcat_flash", dict(vocab_size=VOCAB_SIZE, hidden_size=48, num_layers=2, num_attention_heads=6,
                                            ffn_hidden_size=72, expert_ffn_hidden_size=20, moe_topk=3,
                                            n_routed_experts=6, zero_expert_num=2, routed_scaling_factor=6.0,
                                            kv_lora_rank=24, q_lora_rank=20, qk_nope_head_dim=10, qk_rope_head_dim=8,
                                            v_head_dim=12, head_dim=8, max_position_embeddings=64,
                                            rope_parameters=_rope())),
    "mamba2": ("mamba2", dict(vocab_size=VOCAB_SIZE, hidden_size=48, num_hidden_layers=2, state_size=10, head_dim=12,
                              num_heads=8, expand=2, n_groups=1, conv_kernel=4, chunk_size=16, time_step_limit=(0.0, float("inf")),
                              tie_word_embeddings=True)),
    "minicpm3": ("minicpm3", _llama_like(**_LATENT, num_key_value_heads=6, scale_emb=12, scale_depth=1.4, dim_model_base=16,
                                         tie_word_embeddings=True,
                                         rope_parameters=_rope("longrope", short_factor=_SHORT, long_factor=_LONG, factor=2.0,
                                                               original_max_position_embeddings=32))),
    "minimax_m2": ("minimax_m2", _llama_like(head_dim=8, num_local_experts=5, num_experts_per_tok=2,
                                             rope_parameters=_rope(partial_rotary_factor=0.5))),
    "mistral": ("mistral", _llama_like(head_dim=8, sliding_window=8)),
    "mixtral": ("mixtral", _llama_like(head_dim=8, num_local_experts=5, num_experts_per_tok=2)),
    "phi3": ("phi3", _llama_like(num_key_value_heads=6, original_max_position_embeddings=32, sliding_window=None,
                                 rope_parameters=_rope("longrope", short_factor=_SHORT, long_factor=_LONG,
                                                       original_max_position_embeddings=32))),
    "phimoe": ("phimoe", _llama_like(num_local_experts=4, num_experts_per_tok=2, attention_bias=True, lm_head_bias=True,
                                     sliding_window=None, router_jitter_noise=0.01, input_jitter_noise=0.0,
                                     rope_parameters=_rope("longrope", short_factor=_SHORT, long_factor=_LONG,
                                                           short_mscale=1.24, long_mscale=1.24,
                                                           original_max_position_embeddings=48))),
    "qwen2": ("qwen2", _llama_like(tie_word_embeddings=True, use_sliding_window=True, sliding_window=8,
                                   max_window_layers=1)),
    "qwen2_moe": ("qwen2_moe", _llama_like(**_EXPERTS, shared_expert_intermediate_size=28, norm_topk_prob=False,
                                           num_hidden_layers=3, mlp_only_layers=[1])),
    "qwen3": ("qwen3", _llama_like(head_dim=10, rope_parameters=_rope(
        "yarn", theta=100.0, factor=4.0, original_max_position_embeddings=16))),
    "qwen3_moe": ("qwen3_moe", _llama_like(**_EXPERTS, head_dim=12, norm_topk_prob=True)),
    "qwen3_next": ("qwen3_next", _llama_like(**_EXPERTS, head_dim=16, num_hidden_layers=4, shared_expert_intermediate_size=28,
                                             linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8,
                                             linear_value_head_dim=6, linear_conv_kernel_dim=4, norm_topk_prob=True,
                                             rope_parameters=_rope(partial_rotary_factor=0.25))),
    "seed_oss": ("seed_oss", _llama_like(head_dim=12, attention_bias=True, attention_out_bias=False)),
    "starcoder2": ("starcoder2", _llama_like(sliding_window=8, use_bias=True, tie_word_embeddings=True,
                                             residual_dropout=0.0, embedding_dropout=0.0, attention_dropout=0.0)),
}

# In the words of the published file: four kinds of layers (dense or with experts, windowed or not), and limits that
# clamp in this model's range.
CONFIGS["step3p5"] = ("step3p5", dict(
    vocab_size=VOCAB_SIZE, hidden_size=48, intermediate_size=72, num_hidden_layers=5, num_attention_heads=6,
    num_attention_groups=2, head_dim=8, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    tie_word_embeddings=False, sliding_window=8, moe_num_experts=5, moe_top_k=2, moe_intermediate_size=20,
    share_expert_dim=28, moe_router_scaling_factor=3.0, moe_layers_enum="2,3,4",
    layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    attention_other_setting=dict(attention_type="sliding_attention", num_attention_heads=10, num_attention_groups=2,
                                 head_dim=8, true_head_dim=8),
    rope_theta=[500.0, 100.0, 100.0, 500.0, 100.0], partial_rotary_factors=[0.5, 1.0, 1.0, 0.5, 1.0],
    rope_scaling=dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                      original_max_position_embeddings=16), yarn_only_types=["full_attention"],
    swiglu_limits=[0.0, None, 0.4, 0.0, 0.6], swiglu_limits_shared=[0.3, 0.0, 0.5, None, 0.2], use_rope_layers=[],
    query_pre_attn_scalar=60))  # norms of queries and keys near 2 would make scores so large that float32 loses them

# All three kinds of layers, windows that do not fall on those of compressed keys, indexers that drop some, two layers
# that route by token, limits that clamp.
CONFIGS["deepseek_v4"] = ("deepseek_v4", dict(
    vocab_size=VOCAB_SIZE, hidden_size=48, moe_intermediate_size=20, num_hidden_layers=5, num_attention_heads=6, head_dim=20,
    max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None, tie_word_embeddings=False,
    q_lora_rank=28, o_groups=3, o_lora_rank=11, sliding_window=9,
    layer_types=["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention",
                 "compressed_sparse_attention", "heavily_compressed_attention"],
    compress_rates=dict(compressed_sparse_attention=4, heavily_compressed_attention=11),
    index_n_heads=16, index_head_dim=12, index_topk=4, partial_rotary_factor=0.4, hc_mult=3, hc_sinkhorn_iters=6,
    n_routed_experts=7, num_experts_per_tok=3, mlp_layer_types=["hash_moe"] * 2 + ["moe"] * 3, routed_scaling_factor=2.5,
    swiglu_limit=0.4, rope_theta=100.0, compress_rope_theta=300.0,
    num_nextn_predict_layers=0,
    rope_parameters=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=32, beta_slow=1)))

# The same with heads for tokens further ahead (prediction_heads.py).
WITH_HEADS = {
    "deepseek_v3_mtp": ("deepseek_v3", _llama_like(**_LATENT, **_DEEPSEEK_MOE, num_key_value_heads=6,
                                                   num_nextn_predict_layers=2, rope_parameters=_rope())),
    "glm4_moe_mtp": ("glm4_moe", _llama_like(**_DEEPSEEK_MOE, head_dim=8, attention_bias=True, use_qk_norm=True,
                                             num_nextn_predict_layers=1, rope_parameters=_rope(partial_rotary_factor=0.5))),
    "qwen3_next_mtp": ("qwen3_next", _llama_like(**_EXPERTS, head_dim=16, num_hidden_layers=2, full_attention_interval=2,
                                                 shared_expert_intermediate_size=28, linear_num_key_heads=2,
                                                 linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=6,
                                                 linear_conv_kernel_dim=4, norm_topk_prob=True, num_nextn_predict_layers=1,
                                                 rope_parameters=_rope(partial_rotary_factor=0.25))),
}


def make_config(name):
    model_type, arguments = (CONFIGS | WITH_HEADS)[name]
    return CONFIG_MAPPING[model_type](**arguments)
