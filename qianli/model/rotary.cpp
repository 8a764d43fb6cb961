#include "qianli/model/rotary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace qianli::model {
namespace {

// Real is float or double: every operation rounds to it. Powers are taken in double and rounded.
template <class Real>
class Frequencies {
 public:
  Frequencies(const Rope& rope, int64_t dimensions, int64_t max_positions)
      : rope_(rope),
        scaling_(rope.scaling),
        dimensions_(dimensions),
        max_positions_(max_positions) {}

  std::vector<Real> of(int64_t sequence_length) const {
    switch (scaling_.kind) {
      case RopeScalingKind::kNone:
        return unscaled(rope_.base);
      case RopeScalingKind::kLinear:
        return linear();
      case RopeScalingKind::kDynamic:
        return unscaled(dynamic_base(sequence_length));
      case RopeScalingKind::kNtkAlpha:
        return unscaled(stretched_base(scaling_.factor));
      case RopeScalingKind::kLlama3:
        return llama3();
      case RopeScalingKind::kYarn:
        return yarn();
      case RopeScalingKind::kLongrope:
        return longrope(sequence_length);
    }
    return {};
  }

 private:
  // base^(2 i / d)
  Real period(double base, int64_t i) const {
    const Real exponent = static_cast<Real>(2 * i) / static_cast<Real>(dimensions_);
    return static_cast<Real>(std::pow(double{static_cast<Real>(base)}, double{exponent}));
  }

  std::vector<Real> unscaled(double base) const {
    std::vector<Real> inverse(static_cast<size_t>(dimensions_ / 2));
    for (size_t i = 0; i < inverse.size(); ++i) {
      inverse[i] = Real{1} / period(base, static_cast<int64_t>(i));
    }
    return inverse;
  }

  std::vector<Real> linear() const {
    auto inverse = unscaled(rope_.base);
    for (Real& f : inverse) f /= static_cast<Real>(scaling_.factor);
    return inverse;
  }

  double dynamic_base(int64_t sequence_length) const {
    const auto maximum = static_cast<double>(max_positions_);
    const double length = std::max(static_cast<double>(sequence_length), maximum);
    return stretched_base(scaling_.factor * length / maximum - (scaling_.factor - 1));
  }

  double stretched_base(double stretch) const {
    const auto d = static_cast<double>(dimensions_);
    return rope_.base * std::pow(stretch, d / (d - 2));
  }

  // Each wave is stretched by a factor of its own.
  std::vector<Real> longrope(int64_t sequence_length) const {
    const bool beyond = sequence_length > scaling_.original_max_positions;
    const auto& factors = beyond ? scaling_.long_factor : scaling_.short_factor;
    std::vector<Real> inverse(static_cast<size_t>(dimensions_ / 2));
    for (size_t i = 0; i < inverse.size(); ++i) {
      inverse[i] =
          Real{1} / (static_cast<Real>(factors[i]) * period(rope_.base, static_cast<int64_t>(i)));
    }
    return inverse;
  }

  // Short waves stay, long ones are divided by the factor, those between are blended.
  std::vector<Real> llama3() const {
    const auto factor = static_cast<Real>(scaling_.factor);
    const auto low = static_cast<Real>(scaling_.low_freq_factor);
    const auto original = static_cast<Real>(scaling_.original_max_positions);
    const auto range = static_cast<Real>(scaling_.high_freq_factor - scaling_.low_freq_factor);
    const double positions = static_cast<double>(scaling_.original_max_positions);
    const auto longest_kept = static_cast<Real>(positions / scaling_.high_freq_factor);
    const auto shortest_divided = static_cast<Real>(positions / scaling_.low_freq_factor);
    auto inverse = unscaled(rope_.base);
    for (Real& f : inverse) {
      const Real wavelength = static_cast<Real>(2 * std::numbers::pi) / f;
      if (wavelength > shortest_divided) {
        f /= factor;
      } else if (!(wavelength < longest_kept)) {
        const Real smooth = (original / wavelength - low) / range;
        f = (Real{1} - smooth) * f / factor + smooth * f;
      }
    }
    return inverse;
  }

  // The dimension whose wave turns `rotations` times within the original positions.
  double correction_dimension(double rotations) const {
    const auto d = static_cast<double>(dimensions_);
    const auto original = static_cast<double>(scaling_.original_max_positions);
    return d * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(rope_.base));
  }

  std::vector<Real> yarn() const {
    double low = correction_dimension(scaling_.beta_fast);
    double high = correction_dimension(scaling_.beta_slow);
    if (scaling_.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(dimensions_ - 1));
    if (low == high) high += 0.001;  // keeps the ramp finite
    std::vector<Real> inverse(static_cast<size_t>(dimensions_ / 2));
    for (size_t i = 0; i < inverse.size(); ++i) {
      const Real ramp =
          (static_cast<Real>(i) - static_cast<Real>(low)) / static_cast<Real>(high - low);
      const Real kept = Real{1} - std::clamp(ramp, Real{0}, Real{1});
      const Real wave = period(rope_.base, static_cast<int64_t>(i));
      const Real divided = Real{1} / (static_cast<Real>(scaling_.factor) * wave);
      inverse[i] = divided * (Real{1} - kept) + Real{1} / wave * kept;
    }
    return inverse;
  }

  const Rope& rope_;
  const RopeScaling& scaling_;
  int64_t dimensions_;
  int64_t max_positions_;
};

// M(s) of yarn.
double magnitude(double scale, double factor) {
  return factor <= 1 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
}

double yarn_amplitude(const RopeScaling& scaling) {
  if (scaling.attention_factor) return *scaling.attention_factor;
  if (scaling.mscale && scaling.mscale_all_dim) {
    return magnitude(*scaling.mscale, scaling.factor) /
           magnitude(*scaling.mscale_all_dim, scaling.factor);
  }
  return magnitude(1.0, scaling.factor);
}

double longrope_amplitude(const RopeScaling& scaling, int64_t max_positions,
                          int64_t sequence_length) {
  const bool beyond = sequence_length > scaling.original_max_positions;
  if (const auto& given = beyond ? scaling.long_mscale : scaling.short_mscale) return *given;
  if (scaling.attention_factor) return *scaling.attention_factor;
  const auto original = static_cast<double>(scaling.original_max_positions);
  const double stretch = static_cast<double>(max_positions) / original;
  return stretch <= 1 ? 1.0 : std::sqrt(1.0 + std::log(stretch) / std::log(original));
}

double amplitude(const RopeScaling& scaling, int64_t max_positions, int64_t sequence_length) {
  if (scaling.kind == RopeScalingKind::kYarn) return yarn_amplitude(scaling);
  if (scaling.kind == RopeScalingKind::kLongrope) {
    return longrope_amplitude(scaling, max_positions, sequence_length);
  }
  return 1.0;
}

}  // namespace

int64_t length_independent_up_to(const Rope& rope, int64_t max_positions) {
  switch (rope.scaling.kind) {
    case RopeScalingKind::kDynamic:
      return max_positions;
    case RopeScalingKind::kLongrope:
      return rope.scaling.original_max_positions;
    default:
      return std::numeric_limits<int64_t>::max();
  }
}

RotaryFrequencies rotary_frequencies(const Rope& rope, int64_t dimensions, int64_t max_positions,
                                     int64_t sequence_length, RotaryPrecision precision) {
  RotaryFrequencies frequencies{
      .inverse = {}, .amplitude = amplitude(rope.scaling, max_positions, sequence_length)};
  if (precision == RotaryPrecision::kDouble) {
    frequencies.inverse = Frequencies<double>(rope, dimensions, max_positions).of(sequence_length);
  } else {
    const auto single = Frequencies<float>(rope, dimensions, max_positions).of(sequence_length);
    frequencies.inverse.assign(single.begin(), single.end());
  }
  return frequencies;
}

}  // namespace qianli::model
