// Every option, once: key, help, unit, range and the Megatron-LM or MindSpeed-LLM flag of the same
// meaning. Included by field.cpp only; the readers, the help and the schema are made from it.
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
  v(layer_pattern, {.key = "layer_pattern",
                    .help = "What mixes positions, layer by layer, repeated: names with commas of "
                            "attention, sliding_attention, gated_delta_net, mamba2, none.",
                    .absent = kOfModel});
  v(sliding_window,
    {.key = "sliding_window",
     .help = "A position of a sliding layer sees this many last positions, itself included.",
     .unit = "tokens",
     .flag = "--sliding-window",
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
  v(activation_limit, {.key = "activation_limit",
                       .help = "Clamps the gate from above and the other branch from both sides.",
                       .absent = kOfModel,
                       .min = 0,
                       .open_min = true});
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
  v(indexer, {.key = "indexer", .help = "Which keys a query of latent attention sees."});
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

template <class Visitor>
void RopeConfig::fields(Visitor& v) {
  v(base, {.key = "base",
           .help = "Base of the rotary frequencies.",
           .flag = "--rotary-base",
           .absent = kOfModel,
           .min = 0,
           .open_min = true});
  v(fraction, {.key = "fraction",
               .help = "Share of a head that is rotated.",
               .flag = "--rotary-percent",
               .absent = kOfModel,
               .min = 0,
               .max = 1,
               .open_min = true});
  v(interleaved,
    {.key = "interleaved",
     .help = "Rotate neighbouring dimensions as pairs instead of those half a head apart.",
     .flag = "--rotary-interleaved",
     .absent = kOfModel});
  v(scaling, {.key = "scaling", .help = "Rule for sequences longer than those of pre-training."});
}

template <class Visitor>
void RopeScalingConfig::fields(Visitor& v) {
  v(kind, {.key = "kind",
           .help = "Rule of the scaling.",
           .flag = "--rope-scaling-type",
           .absent = kOfModel,
           .choices = {"default", "linear", "dynamic", "ntk_alpha", "llama3", "yarn", "longrope"}});
  v(factor, {.key = "factor",
             .help = "How many times longer; alpha of ntk_alpha.",
             .flag = "--rope-scaling-factor",
             .absent = kOfModel,
             .min = 0,
             .open_min = true});
  v(original_max_positions, {.key = "original_max_positions",
                             .help = "Longest sequence of pre-training.",
                             .unit = "tokens",
                             .flag = "--original-max-position-embeddings",
                             .absent = kOfModel,
                             .min = 1});
  v(low_freq_factor,
    {.key = "low_freq_factor",
     .help = "llama3: waves longer than the original positions by this are divided.",
     .flag = "--low-freq-factor",
     .absent = kOfModel,
     .min = 0,
     .open_min = true});
  v(high_freq_factor,
    {.key = "high_freq_factor",
     .help = "llama3: waves shorter than the original positions by this are kept.",
     .flag = "--high-freq-factor",
     .absent = kOfModel,
     .min = 0,
     .open_min = true});
  v(beta_fast, {.key = "beta_fast",
                .help = "yarn: turns within the original positions above which a wave is kept.",
                .flag = "--beta-fast",
                .absent = kOfModel,
                .min = 0,
                .open_min = true});
  v(beta_slow, {.key = "beta_slow",
                .help = "yarn: turns below which a wave is divided.",
                .flag = "--beta-slow",
                .absent = kOfModel,
                .min = 0,
                .open_min = true});
  v(attention_factor, {.key = "attention_factor",
                       .help = "yarn and longrope: factor of cosines and sines.",
                       .absent = kOfModel,
                       .min = 0,
                       .open_min = true});
  v(truncate, {.key = "truncate",
               .help = "yarn: round the range of waves between to whole dimensions.",
               .absent = kOfModel});
  v(mscale, {.key = "mscale",
             .help = "yarn of DeepSeek: multiplier in the factor of cosines and sines.",
             .flag = "--rope-scaling-mscale",
             .absent = kOfModel,
             .min = 0,
             .open_min = true});
  v(mscale_all_dim, {.key = "mscale_all_dim",
                     .help = "yarn of DeepSeek: multiplier in the scale of the scores.",
                     .flag = "--rope-scaling-mscale-all-dim",
                     .absent = kOfModel,
                     .min = 0,
                     .open_min = true});
  v(short_factor,
    {.key = "short_factor",
     .help = "longrope: one factor per rotated pair up to the original positions, with commas.",
     .flag = "--short-factor",
     .absent = kOfModel});
  v(long_factor, {.key = "long_factor",
                  .help = "longrope: one factor per rotated pair beyond them, with commas.",
                  .flag = "--long-factor",
                  .absent = kOfModel});
  v(short_mscale, {.key = "short_mscale",
                   .help = "longrope: factor of cosines and sines up to the original positions.",
                   .flag = "--short-mscale",
                   .absent = kOfModel,
                   .min = 0,
                   .open_min = true});
  v(long_mscale, {.key = "long_mscale",
                  .help = "longrope: factor of cosines and sines beyond them.",
                  .flag = "--long-mscale",
                  .absent = kOfModel,
                  .min = 0,
                  .open_min = true});
}

template <class Visitor>
void LatentAttentionConfig::fields(Visitor& v) {
  v(q_lora_rank, {.key = "q_lora_rank",
                  .help = "Size of the latent of queries.",
                  .flag = "--q-lora-rank",
                  .absent = kOfModel,
                  .min = 1});
  v(kv_lora_rank, {.key = "kv_lora_rank",
                   .help = "Size of the latent of keys and values.",
                   .flag = "--kv-lora-rank",
                   .absent = kOfModel,
                   .min = 1});
  v(qk_nope_head_dim, {.key = "qk_nope_head_dim",
                       .help = "Dimensions of a head without positions.",
                       .flag = "--qk-head-dim",
                       .absent = kOfModel,
                       .min = 1});
  v(qk_rope_head_dim, {.key = "qk_rope_head_dim",
                       .help = "Dimensions of a head with rotary positions.",
                       .flag = "--qk-pos-emb-head-dim",
                       .absent = kOfModel,
                       .min = 1});
  v(v_head_dim, {.key = "v_head_dim",
                 .help = "Size of the values of a head.",
                 .flag = "--v-head-dim",
                 .absent = kOfModel,
                 .min = 1});
}

template <class Visitor>
void IndexerConfig::fields(Visitor& v) {
  v(num_heads, {.key = "num_heads",
                .help = "Heads of the indexer.",
                .flag = "--index-n-heads",
                .absent = kOfModel,
                .min = 1});
  v(head_dim, {.key = "head_dim",
               .help = "Size of a head of the indexer.",
               .flag = "--index-head-dim",
               .absent = kOfModel,
               .min = 1});
  v(top_k, {.key = "top_k",
            .help = "Keys that a query sees.",
            .flag = "--index-topk",
            .absent = kOfModel,
            .min = 1});
  v(frequency, {.key = "frequency",
                .help = "Of how many layers one chooses for all.",
                .flag = "--index-topk-freq",
                .absent = kOfModel,
                .min = 1});
  v(skip, {.key = "skip",
           .help = "First layers that choose for themselves.",
           .flag = "--index-skip-topk-offset",
           .absent = kOfModel,
           .min = 0});
}

template <class Visitor>
void MoeConfig::fields(Visitor& v) {
  v(num_experts, {.key = "num_experts",
                  .help = "Experts of a layer.",
                  .flag = "--num-experts",
                  .absent = kOfModel,
                  .min = 1});
  v(top_k, {.key = "top_k",
            .help = "Experts that a token goes to.",
            .flag = "--moe-router-topk",
            .absent = kOfModel,
            .min = 1});
  v(ffn_hidden_size, {.key = "ffn_hidden_size",
                      .help = "Inner width of one expert.",
                      .flag = "--moe-ffn-hidden-size",
                      .absent = kOfModel,
                      .min = 1});
  v(shared_ffn_hidden_size, {.key = "shared_ffn_hidden_size",
                             .help = "Inner width of all shared experts together; 0: none.",
                             .flag = "--moe-shared-expert-intermediate-size",
                             .absent = kOfModel,
                             .min = 0});
  v(shared_gate, {.key = "shared_gate",
                  .help = "Weigh the shared experts by a gate.",
                  .flag = "--shared-expert-gate",
                  .absent = kOfModel});
  v(num_zero_experts, {.key = "num_zero_experts",
                       .help = "Experts that return their input.",
                       .flag = "--num-zero-experts",
                       .absent = kOfModel,
                       .min = 0});
  v(score, {.key = "score",
            .help = "How the router scores experts.",
            .flag = "--moe-router-score-function",
            .absent = kOfModel,
            .choices = {"softmax", "top_k_softmax", "sigmoid", "sparse_mixer"}});
  v(normalize_top_k, {.key = "normalize_top_k",
                      .help = "Divide the weights of the chosen experts by their sum.",
                      .flag = "--norm-topk-prob",
                      .absent = kOfModel});
  v(scaling_factor, {.key = "scaling_factor",
                     .help = "Factor of the weights.",
                     .flag = "--moe-router-topk-scaling-factor",
                     .absent = kOfModel,
                     .min = 0,
                     .open_min = true});
  v(num_groups, {.key = "num_groups",
                 .help = "Groups of experts.",
                 .flag = "--moe-router-num-groups",
                 .absent = kOfModel,
                 .min = 1});
  v(topk_groups, {.key = "topk_groups",
                  .help = "Groups that a token chooses from.",
                  .flag = "--moe-router-group-topk",
                  .absent = kOfModel,
                  .min = 1});
  v(selection_bias, {.key = "selection_bias",
                     .help = "Balance experts by a bias on the choice instead of a loss.",
                     .flag = "--moe-router-enable-expert-bias",
                     .absent = kOfModel});
  v(first_k_dense, {.key = "first_k_dense",
                    .help = "First layers without experts.",
                    .flag = "--first-k-dense-replace",
                    .absent = kOfModel,
                    .min = 0});
  v(layer_frequency, {.key = "layer_frequency",
                      .help = "Of how many layers one has experts.",
                      .flag = "--moe-layer-freq",
                      .absent = kOfModel,
                      .min = 1});
  v(dense_layers, {.key = "dense_layers",
                   .help = "Layers without experts, counted from 0, with commas.",
                   .absent = kOfModel});
  v(aux_loss_coeff, {.key = "aux_loss_coeff",
                     .help = "Coefficient of the balancing loss over a microbatch.",
                     .flag = "--moe-aux-loss-coeff",
                     .absent = kOfModel,
                     .min = 0});
  v(sequence_aux_loss_coeff, {.key = "sequence_aux_loss_coeff",
                              .help = "Coefficient of the balancing loss over each sequence.",
                              .flag = "--seq-aux",
                              .absent = kOfModel,
                              .min = 0});
  v(device_aux_loss_coeff, {.key = "device_aux_loss_coeff",
                            .help = "Coefficient of the balancing loss over groups of experts.",
                            .flag = "--moe-device-level-aux-loss-coeff",
                            .absent = kOfModel,
                            .min = 0});
  v(communication_aux_loss_coeff,
    {.key = "communication_aux_loss_coeff",
     .help = "Coefficient of the loss that balances what groups receive.",
     .flag = "--moe-comm-aux-loss-coeff",
     .absent = kOfModel,
     .min = 0});
  v(z_loss_coeff, {.key = "z_loss_coeff",
                   .help = "Coefficient of the loss that keeps the router's logits small.",
                   .flag = "--moe-z-loss-coeff",
                   .absent = kOfModel,
                   .min = 0});
  v(bias_update_rate, {.key = "bias_update_rate",
                       .help = "Step of the selection bias, once per optimizer step.",
                       .flag = "--moe-router-bias-update-rate",
                       .absent = kOfModel,
                       .min = 0});
  v(input_jitter, {.key = "input_jitter",
                   .help = "Multiply the router's input by a random number this close to 1.",
                   .flag = "--moe-input-jitter-eps",
                   .absent = kOfModel,
                   .min = 0});
  v(capacity_factor, {.key = "capacity_factor",
                      .help = "An expert takes this many times its fair share of tokens at most.",
                      .flag = "--moe-expert-capacity-factor",
                      .absent = kOfModel,
                      .min = 0,
                      .open_min = true});
  v(pad_to_capacity, {.key = "pad_to_capacity",
                      .help = "Give every expert as many tokens as it may take.",
                      .flag = "--moe-pad-expert-input-to-capacity",
                      .absent = kOfModel});
}

template <class Visitor>
void GatedDeltaNetConfig::fields(Visitor& v) {
  v(num_key_heads, {.key = "num_key_heads",
                    .help = "Heads of queries and keys.",
                    .flag = "--linear-num-key-heads",
                    .absent = kOfModel,
                    .min = 1});
  v(num_value_heads, {.key = "num_value_heads",
                      .help = "Value heads, a multiple of the key heads.",
                      .flag = "--linear-num-value-heads",
                      .absent = kOfModel,
                      .min = 1});
  v(key_head_dim, {.key = "key_head_dim",
                   .help = "Size of a key head.",
                   .flag = "--linear-key-head-dim",
                   .absent = kOfModel,
                   .min = 1});
  v(value_head_dim, {.key = "value_head_dim",
                     .help = "Size of a value head.",
                     .flag = "--linear-value-head-dim",
                     .absent = kOfModel,
                     .min = 1});
  v(conv_kernel, {.key = "conv_kernel",
                  .help = "Positions that the convolution sees.",
                  .absent = kOfModel,
                  .min = 1});
}

template <class Visitor>
void Mamba2Config::fields(Visitor& v) {
  v(state_size, {.key = "state_size",
                 .help = "Size of the state.",
                 .flag = "--mamba-state-dim",
                 .absent = kOfModel,
                 .min = 1});
  v(head_dim, {.key = "head_dim",
               .help = "Size of a head.",
               .flag = "--mamba-head-dim",
               .absent = kOfModel,
               .min = 1});
  v(num_groups, {.key = "num_groups",
                 .help = "Groups of heads that share B and C.",
                 .flag = "--mamba-num-groups",
                 .absent = kOfModel,
                 .min = 1});
  v(inner_size,
    {.key = "inner_size", .help = "Heads times their size.", .absent = kOfModel, .min = 1});
  v(conv_kernel, {.key = "conv_kernel",
                  .help = "Positions that the convolution sees.",
                  .flag = "--mamba-d-conv",
                  .absent = kOfModel,
                  .min = 1});
  v(chunk_size, {.key = "chunk_size",
                 .help = "Positions that are computed at a time.",
                 .unit = "tokens",
                 .flag = "--mamba-chunk-size",
                 .absent = kOfModel,
                 .min = 1});
}

template <class Visitor>
void MtpConfig::fields(Visitor& v) {
  v(num_layers, {.key = "num_layers",
                 .help = "Layers that predict tokens further ahead; 0: none.",
                 .flag = "--mtp-num-layers",
                 .absent = kOfModel,
                 .min = 0});
  v(loss_scaling_factor, {.key = "loss_scaling_factor",
                          .help = "Factor of their loss.",
                          .flag = "--mtp-loss-scaling-factor",
                          .absent = kOfModel,
                          .min = 0});
}

template <class Visitor>
void DataSource::fields(Visitor& v) {
  v(path, {.key = "path", .help = "Text file, JSONL file, or the prefix of a .bin/.idx pair."});
  v(weight, {.key = "weight",
             .help = "Share of the samples that come from here, relative to the other sources.",
             .min = 0,
             .open_min = true});
}

template <class Visitor>
void DataConfig::fields(Visitor& v) {
  v(path,
    {.key = "path",
     .help = "What to train on: a text file, a JSONL file, the prefix of a .bin/.idx pair, or "
             "a list of these, each as a path or as {path: PATH, weight: NUMBER}.",
     .flag = "--data-path"});
  v(tokenizer, {.key = "tokenizer",
                .help = "Folder with tokenizer.json, or that file. Not needed for .bin/.idx data.",
                .flag = "--tokenizer-name-or-path",
                .absent = "the model's folder"});
  v(sequence_length, {.key = "sequence_length",
                      .help = "Tokens the model sees per sample.",
                      .unit = "tokens",
                      .flag = "--seq-length",
                      .min = 1,
                      .max = 1 << 24});
  v(split, {.key = "split",
            .help = "Proportions of training, validation and test documents.",
            .flag = "--split"});
  v(seed, {.key = "seed",
           .help = "Seed of the order of samples.",
           .flag = "--seed",
           .absent = "train.seed",
           .min = 0});
  v(text_key, {.key = "text_key",
               .help = "Field of a JSONL record that holds the text.",
               .flag = "--json-keys"});
  v(append_eod,
    {.key = "append_eod",
     .help = "End every document of a text or JSONL file with the end-of-document token.",
     .flag = "--append-eod"});
  v(eod_mask_loss, {.key = "eod_mask_loss",
                    .help = "Leave positions that hold the end-of-document token out of the loss.",
                    .flag = "--eod-mask-loss"});
  v(reset_position_ids, {.key = "reset_position_ids",
                         .help = "Count positions from 0 again after each end of document.",
                         .flag = "--reset-position-ids"});
  v(reset_attention_mask, {.key = "reset_attention_mask",
                           .help = "Attend only within a document.",
                           .flag = "--reset-attention-mask"});
  v(cache_dir, {.key = "cache_dir",
                .help = "Folder for tokenised text and sample indexes, shared between runs.",
                .flag = "--data-cache-path",
                .absent = "inside the run folder"});
  v(validation_path, {.key = "validation_path",
                      .help = "Separate data for validation; data.path then all goes to training.",
                      .flag = "--valid-data-path",
                      .absent = "the second part of data.split"});
}

template <class Visitor>
void TrainConfig::fields(Visitor& v) {
  v(steps, {.key = "steps",
            .help = "Optimizer steps of the whole run; must be given to train.",
            .unit = "steps",
            .flag = "--train-iters",
            .min = 0});
  v(micro_batch_size,
    {.key = "micro_batch_size",
     .help = "Samples of one forward and backward pass; decides the memory needed.",
     .unit = "samples",
     .flag = "--micro-batch-size",
     .min = 1,
     .max = 1 << 20});
  v(global_batch_size, {.key = "global_batch_size",
                        .help = "Samples of one optimizer step; a multiple of micro_batch_size.",
                        .unit = "samples",
                        .flag = "--global-batch-size",
                        .absent = "train.micro_batch_size",
                        .min = 1,
                        .max = 1 << 24});
  v(seed, {.key = "seed",
           .help = "Seed of weights and, unless data.seed is given, of the order of samples.",
           .flag = "--seed",
           .min = 0});
  v(eval_every, {.key = "eval_every",
                 .help = "Steps between validations; 0 never validates.",
                 .unit = "steps",
                 .flag = "--eval-interval",
                 .min = 0});
  v(eval_batches, {.key = "eval_batches",
                   .help = "Batches of global_batch_size samples per validation.",
                   .unit = "batches",
                   .flag = "--eval-iters",
                   .min = 1});
}

template <class Visitor>
void ParameterGroup::fields(Visitor& v) {
  v(match, {.key = "match",
            .help = "Parameters this is for: a glob over the whole name (`*.bias`), or a regular "
                    "expression in slashes that may match anywhere (`/layers\\.[01]\\./`)."});
  v(lr_scale,
    {.key = "lr_scale", .help = "Multiplies the learning rate; 0 freezes.", .min = 0, .max = 1e6});
  v(weight_decay, {.key = "weight_decay",
                   .help = "Weight decay of these parameters, vectors included.",
                   .absent = "the usual rule: optim.weight_decay for matrices, 0 for vectors",
                   .min = 0});
}

template <class Visitor>
void OptimConfig::fields(Visitor& v) {
  v(name, {.key = "name", .help = "The optimizer.", .flag = "--optimizer", .choices = {"adamw"}});
  v(lr, {.key = "lr", .help = "Peak learning rate.", .flag = "--lr", .min = 0});
  v(min_lr, {.key = "min_lr", .help = "Floor of the learning rate.", .flag = "--min-lr", .min = 0});
  v(lr_schedule,
    {.key = "lr_schedule",
     .help = "How the learning rate goes from lr to min_lr after the warm-up; wsd holds "
             "lr and falls in the last wsd_decay_steps.",
     .flag = "--lr-decay-style",
     .choices = {"constant", "linear", "cosine", "wsd", "inverse_sqrt"}});
  v(warmup_steps, {.key = "warmup_steps",
                   .help = "Steps over which the learning rate rises linearly from 0.",
                   .unit = "steps",
                   .flag = "--lr-warmup-iters",
                   .min = 0});
  v(decay_steps, {.key = "decay_steps",
                  .help = "Step at which the learning rate reaches min_lr.",
                  .unit = "steps",
                  .flag = "--lr-decay-iters",
                  .absent = "train.steps",
                  .min = 1});
  v(wsd_decay_steps, {.key = "wsd_decay_steps",
                      .help = "Length of the fall at the end of the wsd schedule.",
                      .unit = "steps",
                      .flag = "--lr-wsd-decay-iters",
                      .absent = "a tenth of decay_steps with lr_schedule wsd",
                      .min = 1});
  v(wsd_decay_style, {.key = "wsd_decay_style",
                      .help = "Shape of the fall at the end of the wsd schedule.",
                      .flag = "--lr-wsd-decay-style",
                      .choices = {"linear", "cosine", "exponential"}});
  v(weight_decay, {.key = "weight_decay",
                   .help = "Decoupled weight decay; applies to matrices, not to vectors.",
                   .flag = "--weight-decay",
                   .min = 0});
  v(betas, {.key = "betas",
            .help = "Decay rates of the running mean of gradients and of their squares.",
            .flag = "--adam-beta1, --adam-beta2",
            .min = 0,
            .max = 1,
            .open_max = true});
  v(eps, {.key = "eps",
          .help = "Added to the root of the mean square before dividing.",
          .flag = "--adam-eps",
          .min = 0,
          .open_min = true});
  v(clip_grad_norm, {.key = "clip_grad_norm",
                     .help = "Scales gradients down to this global norm; 0 does not clip.",
                     .flag = "--clip-grad",
                     .min = 0});
  v(groups, {.key = "groups",
             .help = "Settings for parameters by name; the first group that matches wins."});
}

inline constexpr std::string_view kOneRank = "this version trains on one rank; leave it at 1";

template <class Visitor>
void ParallelConfig::fields(Visitor& v) {
  v(tensor, {.key = "tensor",
             .help = "Ranks that share each weight matrix.",
             .unit = "ranks",
             .flag = "--tensor-model-parallel-size",
             .min = 1,
             .max = 1,
             .hint = kOneRank});
  v(sequence, {.key = "sequence",
               .help = "Shard norms along the sequence inside the tensor group; needs tensor > 1.",
               .flag = "--sequence-parallel"});
  v(pipeline, {.key = "pipeline",
               .help = "Pipeline stages.",
               .unit = "ranks",
               .flag = "--pipeline-model-parallel-size",
               .min = 1,
               .max = 1,
               .hint = kOneRank});
  v(context, {.key = "context",
              .help = "Ranks that share a sequence.",
              .unit = "ranks",
              .flag = "--context-parallel-size",
              .min = 1,
              .max = 1,
              .hint = kOneRank});
  v(expert, {.key = "expert",
             .help = "Ranks that share the experts.",
             .unit = "ranks",
             .flag = "--expert-model-parallel-size",
             .min = 1,
             .max = 1,
             .hint = kOneRank});
  v(zero, {.key = "zero",
           .help = "ZeRO level: what the data-parallel ranks shard. On one rank 0 and 1 are equal.",
           .flag = "--use-distributed-optimizer",
           .min = 0,
           .max = 1,
           .hint = "this version trains on one rank; use 0 or 1"});
}

template <class Visitor>
void CheckpointConfig::fields(Visitor& v) {
  v(every, {.key = "every",
            .help = "Steps between checkpoints; 0 saves only at the end.",
            .unit = "steps",
            .flag = "--save-interval",
            .min = 0});
  v(keep,
    {.key = "keep", .help = "How many of the last checkpoints to keep; 0 keeps all.", .min = 0});
  v(resume,
    {.key = "resume",
     .help = "Where to go on: `auto` from the newest checkpoint of the run folder if there is "
             "one, `never`, or a checkpoint folder.",
     .flag = "--load"});
  v(asynchronous, {.key = "asynchronous",
                   .help = "Write checkpoints while training goes on.",
                   .flag = "--async-save"});
  v(save_final, {.key = "save_final", .help = "Save when the run ends."});
  v(hugging_face,
    {.key = "hugging_face",
     .help = "At the end also write a Hugging Face folder (config.json, safetensors)."});
}

template <class Visitor>
void LogConfig::fields(Visitor& v) {
  v(every, {.key = "every",
            .help = "Steps between lines on the terminal; metrics.jsonl has every step.",
            .unit = "steps",
            .flag = "--log-interval",
            .min = 1});
  v(tensorboard, {.key = "tensorboard",
                  .help = "Write TensorBoard events to the run folder.",
                  .flag = "--tensorboard-dir"});
  v(report, {.key = "report", .help = "Write report.html to the run folder."});
  v(peak_tflops,
    {.key = "peak_tflops",
     .help = "Peak of the device that model FLOPs utilisation (mfu) is measured against.",
     .unit = "TFLOP/s",
     .absent = "known or measured for the device",
     .min = 0,
     .open_min = true});
}

template <class Visitor>
void RunConfig::fields(Visitor& v) {
  v(dir, {.key = "dir",
          .help = "Run folder: resolved config, metrics, log, checkpoints, report.",
          .flag = "--save",
          .absent = "runs/ and the name of the config file without its ending"});
}

template <class Visitor>
void OpsConfig::fields(Visitor& v) {
  const auto op = [&v](std::optional<std::string>& backend, std::string_view key,
                       std::vector<std::string_view> choices = {"reference", "native", "cuda"}) {
    v(backend, {.key = key,
                .help = "Which implementation serves this op (`qianli backends` lists them).",
                .absent = "the fastest that fits the device and type",
                .choices = std::move(choices)});
  };
  op(embedding, "embedding");
  op(linear, "linear", {"reference", "torch"});
  op(grouped_linear, "grouped_linear", {"reference", "native", "torch"});
  op(permute, "permute", {"reference", "native"});
  op(rms_norm, "rms_norm");
  op(layer_norm, "layer_norm");
  op(rotary, "rotary");
  op(activation, "activation");
  op(attention, "attention", {"reference", "native", "torch"});
  op(cross_entropy, "cross_entropy");
  op(adamw, "adamw");
  op(squared_norm, "squared_norm");
  op(causal_conv1d, "causal_conv1d", {"reference", "native"});
  op(gated_delta_rule, "gated_delta_rule", {"reference", "native", "torch"});
  op(state_space, "state_space", {"reference", "native", "torch"});
}

template <class Visitor>
void Config::fields(Visitor& v) {
  v(model,
    {.key = "model", .help = "The model: a preset, a folder, or either with switches of its own."});
  v(data, {.key = "data", .help = "What the model reads."});
  v(train, {.key = "train", .help = "How long and in which batches to train."});
  v(optim, {.key = "optim", .help = "Optimizer and learning-rate schedule."});
  v(precision, {.key = "precision",
                .help = "Number type of weights and activations; auto is bf16 where the device is "
                        "fast at it and fp32 elsewhere, fp64 is for proofs.",
                .flag = "--bf16",
                .choices = {"auto", "fp32", "bf16", "fp64"}});
  v(parallel, {.key = "parallel", .help = "Sizes of the rank mesh."});
  v(checkpoint, {.key = "checkpoint", .help = "Saving and resuming."});
  v(log, {.key = "log", .help = "What is told about the run, and how often."});
  v(run, {.key = "run", .help = "Where the run lives."});
  v(ops, {.key = "ops", .help = "Implementations chosen by hand, op by op."});
  v(device, {.key = "device",
             .help = "Device to compute on; auto is a CUDA device where there is one.",
             .choices = {"auto", "cpu", "cuda"}});
}

}  // namespace qianli::config
