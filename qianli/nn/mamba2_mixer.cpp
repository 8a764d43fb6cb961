#include "qianli/nn/mamba2_mixer.h"

#include "qianli/nn/kv_cache.h"
#include "qianli/ops/causal_conv1d.h"
#include "qianli/ops/decay.h"
#include "qianli/ops/state_space.h"

namespace qianli::nn {

Mamba2Mixer::Mamba2Mixer(const model::ModelSpec& spec, ParameterSet& parameters,
                         const std::string& prefix, int64_t index)
    : sizes_(*spec.mamba2),
      norm_eps_(spec.norm_eps),
      index_(index),
      in_proj_(find_linear(parameters, prefix + ".in_proj")),
      out_proj_(find_linear(parameters, prefix + ".out_proj")),
      conv_(parameters.at(prefix + ".conv1d.weight")),
      conv_bias_(parameters.find(prefix + ".conv1d.bias")),
      a_log_(parameters.at(prefix + ".A_log")),
      skip_(parameters.at(prefix + ".D")),
      dt_bias_(parameters.at(prefix + ".dt_bias")),
      norm_(parameters.at(prefix + ".norm.weight")) {}

BlockOutput Mamba2Mixer::forward(const BlockInput& x, ForwardPass& pass) {
  const int64_t inner = sizes_.inner_size, keys = sizes_.num_groups * sizes_.state_size;
  const at::Tensor projected = x.through(in_proj_);
  const auto parts = projected.split_with_sizes({inner, inner + 2 * keys, sizes_.num_heads()}, 1);
  const at::Tensor y = mix(parts[1], parts[2], pass.input);
  // Each group has statistics of its own, as in the original model: what a group computes does not
  // depend on the others, so groups can be cut over ranks.
  const std::vector<int64_t> groups{projected.size(0), sizes_.num_groups,
                                    inner / sizes_.num_groups};
  const auto place =
      sizes_.norm_before_gate ? ops::GatePlace::kAfterNorm : ops::GatePlace::kBeforeNorm;
  const at::Tensor gated =
      ops::gated_rms_norm(y.view(groups), parts[0].view(groups), norm_, norm_eps_, place);
  return {gated.view({projected.size(0), inner}), out_proj_};
}

at::Tensor Mamba2Mixer::mix(const at::Tensor& given, const at::Tensor& dt,
                            const DecoderInput& input) const {
  RecurrentStates* kept = input.cache ? &input.cache->recurrent(index_) : nullptr;
  const std::vector<int64_t> slots = kept ? input.cache->slots() : std::vector<int64_t>();
  const at::Tensor xbc =
      kept ? kept->convolve(given, conv_, conv_bias_, input.segment_starts, slots)
           : ops::causal_conv1d(given, conv_, conv_bias_, input.segment_starts, true);
  const int64_t tokens = xbc.size(0), keys = sizes_.num_groups * sizes_.state_size;
  const auto parts = xbc.split_with_sizes({sizes_.inner_size, keys, keys}, 1);
  const std::vector<int64_t> groups{tokens, sizes_.num_groups, sizes_.state_size};
  const auto result =
      ops::state_space({.x = parts[0].view({tokens, sizes_.num_heads(), sizes_.head_dim}),
                        .dt = ops::step_size(dt, dt_bias_),
                        .b = parts[1].view(groups),
                        .c = parts[2].view(groups),
                        .starts = input.segment_starts,
                        .initial_state = kept ? kept->of(slots) : at::Tensor(),
                        .keep_state = kept != nullptr},
                       a_log_, skip_);
  if (kept) kept->keep(slots, result.final_state);
  return result.out;
}

}  // namespace qianli::nn
