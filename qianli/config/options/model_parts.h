// The options of attention and mixer kinds that few models have, and of the heads for tokens
// further ahead.
#pragma once

#include "qianli/config/options/model.h"

namespace qianli::config {

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
void CompressedAttentionConfig::fields(Visitor& v) {
  v(q_lora_rank,
    {.key = "q_lora_rank", .help = "Size of the latent of queries.", .absent = kOfModel, .min = 1});
  v(output_groups, {.key = "output_groups",
                    .help = "Groups of heads whose outputs go through a latent each.",
                    .absent = kOfModel,
                    .min = 1});
  v(output_lora_rank, {.key = "output_lora_rank",
                       .help = "Size of the latent of a group.",
                       .absent = kOfModel,
                       .min = 1});
  v(sparse_ratio, {.key = "sparse_ratio",
                   .help = "Tokens to a key of a sparse_compressed layer.",
                   .unit = "tokens",
                   .absent = kOfModel,
                   .min = 1});
  v(heavy_ratio, {.key = "heavy_ratio",
                  .help = "Tokens to a key of a heavy_compressed layer.",
                  .unit = "tokens",
                  .absent = kOfModel,
                  .min = 1});
}

template <class Visitor>
void HyperConnectionsConfig::fields(Visitor& v) {
  v(streams, {.key = "streams",
              .help = "Rows of the residual stream per token.",
              .absent = kOfModel,
              .min = 1});
  v(sinkhorn_iterations, {.key = "sinkhorn_iterations",
                          .help = "Normalisations of the matrix that mixes the rows.",
                          .absent = kOfModel,
                          .min = 1});
  v(eps, {.key = "eps",
          .help = "Epsilon of the weights and of these normalisations.",
          .absent = kOfModel,
          .min = 0});
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
  v(loss_coeff, {.key = "loss_coeff",
                 .help = "Weight of the loss that trains the indexer: how far its scores are from "
                         "the attention's own probabilities. 0: it gets no gradient.",
                 .flag = "--indexer-loss-coeff",
                 .absent = kOfModel,
                 .min = 0});
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

}  // namespace qianli::config
