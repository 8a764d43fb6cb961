#include "qianli/model/spec.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/model/family.h"

namespace qianli::model {
namespace {

constexpr int64_t kMaxCount = (int64_t{1} << 31) - 1;  // of any one size
constexpr int64_t kMaxLayers = 100000;
constexpr int64_t kMaxHeadDim = 65536;
constexpr double kMaxParameters = 1e13;

void expect(bool holds, const std::string& problem, const std::string& hint = {}) {
  if (!holds) throw ConfigError("model", problem, hint);
}

void check_count(const char* name, int64_t value, int64_t limit = kMaxCount) {
  expect(value >= 1 && value <= limit,
         fmt::format("expected {} between 1 and {}, got {}", name, limit, value));
}

void check_sizes(const ModelSpec& spec) {
  check_count("num_layers", spec.num_layers, kMaxLayers);
  check_count("hidden_size", spec.hidden_size);
  check_count("ffn_hidden_size", spec.ffn_hidden_size);
  check_count("num_attention_heads", spec.num_attention_heads);
  check_count("num_query_groups", spec.num_query_groups, spec.num_attention_heads);
  check_count("head_dim", spec.head_dim, kMaxHeadDim);
  check_count("vocab_size", spec.vocab_size);
  check_count("max_position_embeddings", spec.max_position_embeddings);
  if (spec.sliding_window) check_count("sliding_window", *spec.sliding_window);
  expect(spec.num_attention_heads % spec.num_query_groups == 0,
         fmt::format(
             "expected num_attention_heads to be a multiple of num_query_groups, got {} and {}",
             spec.num_attention_heads, spec.num_query_groups));
  // Products of two sizes below 2^31 fit in int64_t, so this one cannot overflow.
  expect(spec.query_size() <= kMaxCount,
         fmt::format("expected num_attention_heads * head_dim up to {}, got {}", kMaxCount,
                     spec.query_size()));
}

// In double, which cannot overflow here, before anything multiplies the sizes in int64_t.
void check_total(const ModelSpec& spec) {
  const double h = static_cast<double>(spec.hidden_size);
  const double attention =
      h * static_cast<double>(2 * spec.query_size() + 2 * spec.key_value_size());
  const double mlp = h * static_cast<double>(spec.ffn_hidden_size) * (spec.gated_mlp ? 3 : 2);
  const double embedding =
      h * static_cast<double>(spec.vocab_size) * (spec.tie_word_embeddings ? 1 : 2);
  const double positions = spec.position == PositionKind::kLearned
                               ? h * static_cast<double>(spec.max_position_embeddings)
                               : 0;
  const double total =
      static_cast<double>(spec.num_layers) * (attention + mlp) + embedding + positions;
  expect(total <= kMaxParameters,
         fmt::format("expected at most {:.0e} parameters, got {:.3e}", kMaxParameters, total),
         "look for a size with too many digits");
}

void check_positive(const char* name, double value) {
  expect(std::isfinite(value) && value > 0,
         fmt::format("expected {} to be a positive number, got {}", name, value));
}

void check_rope_scaling(const ModelSpec& spec) {
  const RopeScaling& scaling = spec.rope_scaling;
  if (scaling.kind == RopeScalingKind::kNone) return;
  expect(std::isfinite(scaling.factor) && scaling.factor >= 1,
         fmt::format("expected rope_scaling.factor of 1 or more, got {}", scaling.factor));
  if (scaling.kind == RopeScalingKind::kDynamic) {
    expect(spec.head_dim > 2, "expected head_dim above 2 for dynamic rope scaling, got 2");
  }
  if (scaling.kind == RopeScalingKind::kLlama3) {
    check_count("rope_scaling.original_max_position_embeddings", scaling.original_max_positions);
    check_positive("rope_scaling.low_freq_factor", scaling.low_freq_factor);
    expect(std::isfinite(scaling.high_freq_factor) &&
               scaling.high_freq_factor > scaling.low_freq_factor,
           fmt::format("expected rope_scaling.high_freq_factor above low_freq_factor ({}), got {}",
                       scaling.low_freq_factor, scaling.high_freq_factor));
  }
  if (scaling.kind == RopeScalingKind::kYarn) {
    check_count("rope_scaling.original_max_position_embeddings", scaling.original_max_positions);
    check_positive("rope_scaling.beta_slow", scaling.beta_slow);
    expect(std::isfinite(scaling.beta_fast) && scaling.beta_fast >= scaling.beta_slow,
           fmt::format("expected rope_scaling.beta_fast of at least beta_slow ({}), got {}",
                       scaling.beta_slow, scaling.beta_fast));
    if (scaling.attention_factor) {
      check_positive("rope_scaling.attention_factor", *scaling.attention_factor);
    }
  }
}

void check_positions(const ModelSpec& spec) {
  if (spec.position == PositionKind::kLearned) {
    expect(spec.rope_scaling.kind == RopeScalingKind::kNone,
           "expected no rope_scaling with learned positions, got " +
               to_string(spec.rope_scaling.kind));
    return;
  }
  expect(spec.head_dim % 2 == 0,
         fmt::format("expected an even head_dim with rotary positions, got {}", spec.head_dim),
         "rotary positions turn pairs of dimensions");
  expect(std::isfinite(spec.rope_base) && spec.rope_base > 1,
         fmt::format("expected rope_base above 1, got {}", spec.rope_base));
  check_rope_scaling(spec);
}

void check_token_id(const char* name, int64_t id) {
  expect(id >= 0 && id <= kMaxCount,
         fmt::format("expected {} between 0 and {}, got {}", name, kMaxCount, id));
}

// Mean number of positions a token of a causal sequence sees, in the continuous convention of
// Megatron-LM: s / 2, or with a window of w < s: w - w^2 / (2 s).
double mean_context(const ModelSpec& spec, double length) {
  if (!spec.sliding_window || static_cast<double>(*spec.sliding_window) >= length)
    return length / 2;
  const auto window = static_cast<double>(*spec.sliding_window);
  return window - window * window / (2 * length);
}

// Two FLOPs per weight a token is multiplied with, and 4 a d per position it sees: q k^T and the
// weighted sum of v. Norms, activations, rotary positions and look-ups are not counted.
double forward_flops(const ModelSpec& spec, double context) {
  const auto h = static_cast<double>(spec.hidden_size);
  const auto query = static_cast<double>(spec.query_size());
  const auto key_value = static_cast<double>(spec.key_value_size());
  const double attention = h * (query + 2 * key_value) + query * h;
  const double mlp = (spec.gated_mlp ? 3.0 : 2.0) * h * static_cast<double>(spec.ffn_hidden_size);
  return static_cast<double>(spec.num_layers) * (2 * (attention + mlp) + 4 * query * context) +
         2 * h * static_cast<double>(spec.vocab_size);
}

}  // namespace

void ModelSpec::validate() const {
  find_family(family);
  check_sizes(*this);
  check_total(*this);
  check_positions(*this);
  expect(std::isfinite(norm_eps) && norm_eps >= 0 && norm_eps < 1,
         fmt::format("expected norm_eps in [0, 1), got {}", norm_eps));
  expect(!(norm == NormKind::kRmsNorm && norm_bias),
         "expected norm_bias with LayerNorm only, got RMSNorm");
  expect(std::isfinite(init_std) && init_std >= 0 && init_std <= 1,
         fmt::format("expected init_std in [0, 1], got {}", init_std));
  if (bos_token_id) check_token_id("bos_token_id", *bos_token_id);
  if (pad_token_id) check_token_id("pad_token_id", *pad_token_id);
  for (const int64_t id : eos_token_ids) check_token_id("eos_token_id", id);
}

double training_flops(const ModelSpec& spec, int64_t sequences, int64_t sequence_length) {
  const auto length = static_cast<double>(sequence_length);
  // Backward costs twice the forward pass: gradients of inputs and of weights.
  return 3 * static_cast<double>(sequences) * length *
         forward_flops(spec, mean_context(spec, length));
}

double forward_flops_per_token(const ModelSpec& spec, int64_t context_length) {
  const int64_t seen =
      spec.sliding_window ? std::min(*spec.sliding_window, context_length) : context_length;
  return forward_flops(spec, static_cast<double>(seen));
}

}  // namespace qianli::model
