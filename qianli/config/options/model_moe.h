// The options of `model.moe`.
#pragma once

#include "qianli/config/options/model.h"

namespace qianli::config {

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
            .choices = {"softmax", "top_k_softmax", "sigmoid", "sqrt_softplus", "sparse_mixer"}});
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
  v(router_dtype, {.key = "router_dtype",
                   .help = "In which the router computes, whatever the model's type.",
                   .flag = "--moe-router-dtype",
                   .absent = kOfModel,
                   .choices = {"fp32", "fp64"}});
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
  v(num_hash_layers, {.key = "num_hash_layers",
                      .help = "First layers that take the experts of a token from a table.",
                      .absent = kOfModel,
                      .min = 0});
  v(activation_limit, {.key = "activation_limit",
                       .help = "model.activation_limit of the routed experts, where it differs.",
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
  v(sinkhorn, {.key = "sinkhorn",
               .help = "Training: choose experts from scores balanced over the microbatch by "
                       "Sinkhorn's iteration.",
               .flag = "--moe-router-load-balancing-type",
               .absent = kOfModel});
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
  v(token_drop_policy,
    {.key = "token_drop_policy",
     .help = "Which tokens an expert keeps: those of the largest weights, or the earliest.",
     .flag = "--moe-token-drop-policy",
     .absent = kOfModel,
     .choices = {"probs", "position"}});
  v(pad_to_capacity, {.key = "pad_to_capacity",
                      .help = "Give every expert as many tokens as it may take.",
                      .flag = "--moe-pad-expert-input-to-capacity",
                      .absent = kOfModel});
}

}  // namespace qianli::config
