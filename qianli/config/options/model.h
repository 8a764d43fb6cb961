// The options of section `model`: its own switches.
#pragma once

#include "qianli/config/config.h"

namespace qianli::config {

inline constexpr std::string_view kOfModel = "that of the preset or folder";

template <class Visitor>
void ModelConfig::fields(Visitor& v) {
  v(source, {.key = "preset",
             .help = "Name of a preset (`qianli presets`) or a folder with config.json. "
                     "`model: NAME` is short for `model: {preset: NAME}`."});
  v(load_weights,
    {.key = "load_weights",
     .help = "Start from the weights in the folder (true) or from fresh ones (false).",
     .flag = "--load",
     .absent = "true for a folder, false for a preset"});
  v(family, {.key = "family",
             .help = "Architecture family whose switches and names the model follows "
                     "(docs/models.md lists them).",
             .absent = kOfModel});
  v(num_layers, {.key = "num_layers",
                 .help = "Transformer layers.",
                 .flag = "--num-layers",
                 .absent = kOfModel,
                 .min = 1});
  v(hidden_size, {.key = "hidden_size",
                  .help = "Width of the residual stream.",
                  .flag = "--hidden-size",
                  .absent = kOfModel,
                  .min = 1});
  v(ffn_hidden_size, {.key = "ffn_hidden_size",
                      .help = "Inner width of the MLP (of one branch when it is gated).",
                      .flag = "--ffn-hidden-size",
                      .absent = kOfModel,
                      .min = 1});
  v(num_attention_heads, {.key = "num_attention_heads",
                          .help = "Query heads.",
                          .flag = "--num-attention-heads",
                          .absent = kOfModel,
                          .min = 1});
  v(num_query_groups, {.key = "num_query_groups",
                       .help = "Key and value heads; fewer than the query heads shares them.",
                       .flag = "--num-query-groups",
                       .absent = kOfModel,
                       .min = 1});
  v(head_dim, {.key = "head_dim",
               .help = "Size of one attention head.",
               .flag = "--kv-channels",
               .absent = kOfModel,
               .min = 1});
  v(vocab_size, {.key = "vocab_size",
                 .help = "Rows of the embedding.",
                 .unit = "tokens",
                 .flag = "--padded-vocab-size",
                 .absent = kOfModel,
                 .min = 1});
  v(max_position_embeddings, {.key = "max_position_embeddings",
                              .help = "Longest sequence the model is made for.",
                              .unit = "tokens",
                              .flag = "--max-position-embeddings",
                              .absent = kOfModel,
                              .min = 1});
  v(norm, {.key = "norm",
           .help = "Kind of the norms.",
           .flag = "--normalization",
           .absent = kOfModel,
           .choices = {"RMSNorm", "LayerNorm"}});
  v(norm_placement,
    {.key = "norm_placement",
     .help = "Norms before the branches, on both sides of them, or of two branches side by side.",
     .absent = kOfModel,
     .choices = {"pre", "sandwich", "parallel", "parallel_two"}});
  v(norm_eps, {.key = "norm_eps",
               .help = "Epsilon of the norms.",
               .flag = "--norm-epsilon",
               .absent = kOfModel,
               .min = 0,
               .open_min = true});
  v(qk_norm,
    {.key = "qk_norm",
     .help = "Norm of queries and keys: of each head before or after the rotary embedding, of all "
             "heads together, or a LayerNorm per head.",
     .flag = "--qk-layernorm",
     .absent = kOfModel,
     .choices = {"none", "head", "head_after_rotary", "projection", "layer_norm_per_head"}});
  v(position, {.key = "position",
               .help = "Position embedding.",
               .flag = "--position-embedding-type",
               .absent = kOfModel,
               .choices = {"rotary", "learned", "alibi", "none"}});
  v(rope, {.key = "rope", .help = "Rotary positions."});
  v(sliding_rope, {.key = "sliding_rope",
                   .help = "Rotary positions of the layers with a window, where they differ."});
  v(rotary_pattern, {.key = "rotary_pattern",
                     .help = "Which layers have rotary positions, repeated: true and false with "
                             "commas; none: all.",
                     .absent = kOfModel});
  v(layer_pattern, {.key = "layer_pattern",
                    .help = "What mixes positions, layer by layer, repeated: names with commas of "
                            "attention, sliding_attention, sparse_compressed, heavy_compressed, "
                            "gated_delta_net, mamba2, none.",
                    .absent = kOfModel});
  v(sliding_window,
    {.key = "sliding_window",
     .help = "A position of a sliding layer sees this many last positions, itself included.",
     .unit = "tokens",
     .flag = "--sliding-window",
     .absent = kOfModel,
     .min = 1});
  v(sliding_num_attention_heads, {.key = "sliding_num_attention_heads",
                                  .help = "Query heads of a sliding layer, where they differ.",
                                  .absent = kOfModel,
                                  .min = 1});
  v(sliding_num_query_groups, {.key = "sliding_num_query_groups",
                               .help = "Key and value heads of a sliding layer, where they differ.",
                               .absent = kOfModel,
                               .min = 1});
  v(gated_mlp, {.key = "gated_mlp",
                .help = "Two branches in the MLP, one of which gates the other.",
                .flag = "--swiglu",
                .absent = kOfModel});
  v(activation, {.key = "activation",
                 .help = "Activation of the MLP.",
                 .absent = kOfModel,
                 .choices = {"silu", "gelu", "gelu_tanh", "relu", "relu2", "clamped_swiglu"}});
  v(activation_limit,
    {.key = "activation_limit",
     .help =
         "Clamps the gate from above and the other branch from both sides: a number, or one per "
         "layer with commas, repeated; 0 for none.",
     .absent = kOfModel});
  v(qkv_bias, {.key = "qkv_bias",
               .help = "Bias on the query, key and value projections.",
               .flag = "--add-qkv-bias",
               .absent = kOfModel});
  v(attention_out_bias, {.key = "attention_out_bias",
                         .help = "Bias on the projection behind attention.",
                         .flag = "--add-dense-bias",
                         .absent = kOfModel});
  v(mlp_bias, {.key = "mlp_bias",
               .help = "Biases in the MLP.",
               .flag = "--disable-bias-linear (the opposite)",
               .absent = kOfModel});
  v(tie_word_embeddings, {.key = "tie_word_embeddings",
                          .help = "Use the embedding as output projection too.",
                          .flag = "--untie-embeddings-and-output-weights (the opposite)",
                          .absent = kOfModel});
  v(query_pre_attn_scalar,
    {.key = "query_pre_attn_scalar",
     .help = "Attention scores are divided by the root of this instead of that of the head size.",
     .flag = "--query-pre-attn-scalar",
     .absent = kOfModel,
     .min = 0,
     .open_min = true});
  v(attention_softcap, {.key = "attention_softcap",
                        .help = "Attention scores are bent to stay within this.",
                        .flag = "--attn-logit-softcapping",
                        .absent = kOfModel,
                        .min = 0,
                        .open_min = true});
  v(final_logit_softcap, {.key = "final_logit_softcap",
                          .help = "Logits are bent to stay within this.",
                          .flag = "--output-logit-softcapping",
                          .absent = kOfModel,
                          .min = 0,
                          .open_min = true});
  v(embedding_multiplier, {.key = "embedding_multiplier",
                           .help = "Factor of the embeddings.",
                           .flag = "--scale-emb",
                           .absent = kOfModel,
                           .min = 0,
                           .open_min = true});
  v(residual_multiplier, {.key = "residual_multiplier",
                          .help = "Factor of both branches of a layer.",
                          .absent = kOfModel,
                          .min = 0,
                          .open_min = true});
  v(logits_multiplier, {.key = "logits_multiplier",
                        .help = "Factor of the logits.",
                        .flag = "--output-multiplier-scale",
                        .absent = kOfModel,
                        .min = 0,
                        .open_min = true});
  v(latent_attention, {.key = "latent_attention", .help = "Multi-head latent attention."});
  v(compressed_attention, {.key = "compressed_attention",
                           .help = "Attention to a window and to keys that stand for several "
                                   "tokens, of one wide key head."});
  v(indexer, {.key = "indexer",
              .help = "Which keys a query of latent attention sees, or which compressed ones."});
  v(hyper_connections, {.key = "hyper_connections",
                        .help = "A residual stream of several rows per token, mixed between the "
                                "blocks."});
  v(moe, {.key = "moe", .help = "Mixture of experts."});
  v(gated_delta_net, {.key = "gated_delta_net", .help = "Layers of the gated delta rule."});
  v(mamba2, {.key = "mamba2", .help = "Mamba-2 layers."});
  v(mtp, {.key = "mtp", .help = "Multi-token prediction."});
  v(init_std, {.key = "init_std",
               .help = "Standard deviation of the normal weight initialisation.",
               .flag = "--init-method-std",
               .absent = kOfModel,
               .min = 0});
}

}  // namespace qianli::config
