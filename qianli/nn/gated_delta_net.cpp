#include "qianli/nn/gated_delta_net.h"

#include <ATen/ops/cat.h>

#include "qianli/nn/kv_cache.h"
#include "qianli/ops/causal_conv1d.h"
#include "qianli/ops/decay.h"
#include "qianli/ops/gated_delta_rule.h"

namespace qianli::nn {

GatedDeltaNet::GatedDeltaNet(const model::ModelSpec& spec, ParameterSet& parameters,
                             const std::string& prefix, int64_t index)
    : sizes_(*spec.gated_delta_net),
      norm_eps_(spec.norm_eps),
      index_(index),
      in_proj_(find_linear(parameters, prefix + ".in_proj")),
      out_proj_(find_linear(parameters, prefix + ".out_proj")),
      conv_(parameters.at(prefix + ".conv1d.weight")),
      a_log_(parameters.at(prefix + ".A_log")),
      dt_bias_(parameters.at(prefix + ".dt_bias")),
      norm_(parameters.at(prefix + ".out_norm.weight")) {}

BlockOutput GatedDeltaNet::forward(const BlockInput& x, ForwardPass& pass) {
  const Projections projected = project(x);
  const at::Tensor mixed = mix(projected, pass.input);
  const at::Tensor gated =
      ops::gated_rms_norm(mixed, projected.z, norm_, norm_eps_, ops::GatePlace::kAfterNorm);
  return {gated.view({gated.size(0), sizes_.value_size()}), out_proj_};
}

// Rows of the projection are woven by key head: q, k, its values, its gates z; then b and a.
GatedDeltaNet::Projections GatedDeltaNet::project(const BlockInput& x) const {
  const at::Tensor projected = x.through(in_proj_);
  const int64_t tokens = projected.size(0), heads = sizes_.num_key_heads, dk = sizes_.key_head_dim;
  const int64_t values = sizes_.value_size() / heads, per_key = sizes_.num_value_heads / heads;
  const auto parts = projected.split_with_sizes(
      {2 * sizes_.key_size() + 2 * sizes_.value_size(), 2 * sizes_.num_value_heads}, 1);
  const auto wide = parts[0]
                        .view({tokens, heads, 2 * dk + 2 * values})
                        .split_with_sizes({dk, dk, values, values}, 2);
  const auto gates =
      parts[1].view({tokens, heads, 2 * per_key}).split_with_sizes({per_key, per_key}, 2);
  const auto by_value_head = [&](const at::Tensor& gate) {
    return gate.reshape({tokens, sizes_.num_value_heads});
  };
  return {.qkv = at::cat({wide[0].flatten(1), wide[1].flatten(1), wide[2].flatten(1)}, 1),
          .z = wide[3].reshape({tokens, sizes_.num_value_heads, sizes_.value_head_dim}),
          .beta = by_value_head(gates[0]).to(ops::wide_type(projected)).sigmoid(),
          .g = ops::log_decay(by_value_head(gates[1]), a_log_, dt_bias_)};
}

// [T, nv, dv]
at::Tensor GatedDeltaNet::mix(const Projections& projected, const DecoderInput& input) const {
  RecurrentStates* kept = input.cache ? &input.cache->recurrent(index_) : nullptr;
  const std::vector<int64_t> slots = kept ? input.cache->slots() : std::vector<int64_t>();
  const at::Tensor qkv =
      kept ? kept->convolve(projected.qkv, conv_, nullptr, input.segment_starts, slots)
           : ops::causal_conv1d(projected.qkv, conv_, nullptr, input.segment_starts, true);
  const auto parts =
      qkv.split_with_sizes({sizes_.key_size(), sizes_.key_size(), sizes_.value_size()}, 1);
  const int64_t tokens = qkv.size(0);
  const std::vector<int64_t> keys{tokens, sizes_.num_key_heads, sizes_.key_head_dim};
  const auto result = ops::gated_delta_rule(
      {.q = parts[0].view(keys),
       .k = parts[1].view(keys),
       .v = parts[2].view({tokens, sizes_.num_value_heads, sizes_.value_head_dim}),
       .g = projected.g,
       .beta = projected.beta,
       .starts = input.segment_starts,
       .initial_state = kept ? kept->of(slots) : at::Tensor(),
       .keep_state = kept != nullptr});
  if (kept) kept->keep(slots, result.final_state);
  return result.out;
}

}  // namespace qianli::nn
