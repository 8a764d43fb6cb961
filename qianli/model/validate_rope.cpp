// Rotary positions.
#include <algorithm>
#include <cmath>

#include "qianli/model/checks.h"

namespace qianli::model {
namespace {

void check_yarn(const RopeScaling& scaling) {
  check_positive("rope.scaling.beta_slow", scaling.beta_slow);
  expect(std::isfinite(scaling.beta_fast) && scaling.beta_fast >= scaling.beta_slow,
         fmt::format("expected rope.scaling.beta_fast of at least beta_slow ({}), got {}",
                     scaling.beta_slow, scaling.beta_fast));
  check_positive("rope.scaling.mscale", scaling.mscale);
  check_positive("rope.scaling.mscale_all_dim", scaling.mscale_all_dim);
}

void check_factors(const char* name, const std::vector<double>& factors, int64_t pairs) {
  expect(static_cast<int64_t>(factors.size()) == pairs,
         fmt::format("expected one number per rotated pair ({}) in rope.scaling.{}, got {}", pairs,
                     name, factors.size()));
  for (const double factor : factors) check_positive(name, factor);
}

void check_rope_scaling(const RopeScaling& scaling, int64_t dimensions) {
  if (scaling.kind == RopeScalingKind::kNone) return;
  expect(std::isfinite(scaling.factor) && scaling.factor >= 1,
         fmt::format("expected rope.scaling.factor of 1 or more, got {}", scaling.factor));
  check_positive("rope.scaling.attention_factor", scaling.attention_factor);
  const bool from_original = scaling.kind == RopeScalingKind::kLlama3 ||
                             scaling.kind == RopeScalingKind::kYarn ||
                             scaling.kind == RopeScalingKind::kLongrope;
  if (from_original) {
    check_count("rope.scaling.original_max_positions", scaling.original_max_positions);
  }
  switch (scaling.kind) {
    case RopeScalingKind::kNone:
    case RopeScalingKind::kLinear:
      return;
    case RopeScalingKind::kDynamic:
    case RopeScalingKind::kNtkAlpha:
      expect(dimensions > 2,
             "expected more than 2 rotated dimensions of a head with this rope.scaling, got 2");
      return;
    case RopeScalingKind::kLlama3:
      check_positive("rope.scaling.low_freq_factor", scaling.low_freq_factor);
      expect(
          std::isfinite(scaling.high_freq_factor) &&
              scaling.high_freq_factor > scaling.low_freq_factor,
          fmt::format("expected rope.scaling.high_freq_factor above low_freq_factor ({}), got {}",
                      scaling.low_freq_factor, scaling.high_freq_factor));
      return;
    case RopeScalingKind::kYarn:
      return check_yarn(scaling);
    case RopeScalingKind::kLongrope:
      check_factors("short_factor", scaling.short_factor, dimensions / 2);
      check_factors("long_factor", scaling.long_factor, dimensions / 2);
      check_positive("rope.scaling.short_mscale", scaling.short_mscale);
      check_positive("rope.scaling.long_mscale", scaling.long_mscale);
      expect(scaling.original_max_positions > 1,
             "expected original positions above 1 for longrope");
      return;
  }
}

void check_rope(const ModelSpec& spec, const Rope& rope) {
  expect(std::isfinite(rope.base) && rope.base > 1,
         fmt::format("expected rope.base above 1, got {}", rope.base));
  expect(std::isfinite(rope.fraction) && rope.fraction > 0 && rope.fraction <= 1,
         fmt::format("expected rope.fraction in (0, 1], got {}", rope.fraction));
  const int64_t dimensions = spec.rotary_size(rope);
  expect(
      dimensions >= 2 && dimensions % 2 == 0,
      fmt::format("expected an even number of rotated dimensions of head_dim, got {}", dimensions),
      "rotary positions turn pairs of dimensions");
  check_rope_scaling(rope.scaling, dimensions);
}

}  // namespace

void check_positions(const ModelSpec& spec) {
  if (spec.position == PositionKind::kRotary) {
    if (!uses_attention(spec)) return;
    check_rope(spec, spec.rope);
    if (spec.sliding_rope) check_rope(spec, *spec.sliding_rope);
    return;
  }
  expect(spec.rope.scaling.kind == RopeScalingKind::kNone && !spec.sliding_rope,
         fmt::format("expected no rope.scaling with {} positions, got {}", to_string(spec.position),
                     to_string(spec.rope.scaling.kind)));
  expect(spec.rotary_pattern.empty(), "expected no rotary_pattern without rotary positions");
}

}  // namespace qianli::model
