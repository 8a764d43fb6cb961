#include "qianli/model/checks.h"

#include <algorithm>
#include <cmath>

#include "qianli/base/error.h"

namespace qianli::model {

void expect(bool holds, const std::string& problem, const std::string& hint) {
  if (!holds) throw ConfigError("model", problem, hint);
}

void check_count(const char* name, int64_t value, int64_t limit, int64_t least) {
  expect(value >= least && value <= limit,
         fmt::format("expected {} between {} and {}, got {}", name, least, limit, value));
}

void check_multiple(const char* name, int64_t value, const char* of, int64_t divisor) {
  expect(value % divisor == 0, fmt::format("expected {} to be a multiple of {}, got {} and {}",
                                           name, of, value, divisor));
}

void check_product(const char* name, int64_t a, int64_t b) {
  // Products of two sizes below 2^31 fit in int64_t, so this one cannot overflow.
  expect(a * b <= kMaxCount, fmt::format("expected {} up to {}, got {}", name, kMaxCount, a * b));
}

void check_positive(const char* name, double value) {
  expect(std::isfinite(value) && value > 0,
         fmt::format("expected {} to be a positive number, got {}", name, value));
}

void check_positive(const char* name, const std::optional<double>& value) {
  if (value) check_positive(name, *value);
}

void check_not_negative(const char* name, double value) {
  expect(std::isfinite(value) && value >= 0,
         fmt::format("expected {} to be 0 or more, got {}", name, value));
}

bool uses(const ModelSpec& spec, MixerKind kind) {
  return std::ranges::find(spec.layer_pattern, kind) != spec.layer_pattern.end();
}

bool uses_attention(const ModelSpec& spec) {
  return spec.layer_pattern.empty() || uses(spec, MixerKind::kAttention) ||
         uses(spec, MixerKind::kSlidingAttention) || uses_compressed_keys(spec);
}

bool uses_compressed_keys(const ModelSpec& spec) {
  return uses(spec, MixerKind::kSparseCompressed) || uses(spec, MixerKind::kHeavyCompressed);
}

// Layers with a window may have heads of their own.
}  // namespace qianli::model
