#include "qianli/model/rotary.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "qianli/base/error.h"

namespace qianli::model {
namespace {

// Real is float or double: every operation rounds to it. Powers are taken in double and rounded.
template <class Real>
class Frequencies {
 public:
  explicit Frequencies(const ModelSpec& spec) : spec_(spec), scaling_(spec.rope_scaling) {}

  std::vector<Real> of(int64_t sequence_length) const {
    switch (scaling_.kind) {
      case RopeScalingKind::kNone:
        return unscaled(spec_.rope_base);
      case RopeScalingKind::kLinear:
        return linear();
      case RopeScalingKind::kDynamic:
        return unscaled(dynamic_base(sequence_length));
      case RopeScalingKind::kLlama3:
        return llama3();
      case RopeScalingKind::kYarn:
        return yarn();
    }
    return {};
  }

 private:
  // base^(2 i / d)
  Real period(double base, int64_t i) const {
    const Real exponent = static_cast<Real>(2 * i) / static_cast<Real>(spec_.head_dim);
    return static_cast<Real>(std::pow(double{static_cast<Real>(base)}, double{exponent}));
  }

  std::vector<Real> unscaled(double base) const {
    std::vector<Real> inverse(static_cast<size_t>(spec_.head_dim / 2));
    for (size_t i = 0; i < inverse.size(); ++i) {
      inverse[i] = Real{1} / period(base, static_cast<int64_t>(i));
    }
    return inverse;
  }

  std::vector<Real> linear() const {
    auto inverse = unscaled(spec_.rope_base);
    for (Real& f : inverse) f /= static_cast<Real>(scaling_.factor);
    return inverse;
  }

  double dynamic_base(int64_t sequence_length) const {
    const auto maximum = static_cast<double>(spec_.max_position_embeddings);
    const double length = std::max(static_cast<double>(sequence_length), maximum);
    const auto d = static_cast<double>(spec_.head_dim);
    const double stretch = scaling_.factor * length / maximum - (scaling_.factor - 1);
    return spec_.rope_base * std::pow(stretch, d / (d - 2));
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
    auto inverse = unscaled(spec_.rope_base);
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
    const auto d = static_cast<double>(spec_.head_dim);
    const auto original = static_cast<double>(scaling_.original_max_positions);
    return d * std::log(original / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(spec_.rope_base));
  }

  std::vector<Real> yarn() const {
    double low = correction_dimension(scaling_.beta_fast);
    double high = correction_dimension(scaling_.beta_slow);
    if (scaling_.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(spec_.head_dim - 1));
    if (low == high) high += 0.001;  // keeps the ramp finite
    std::vector<Real> inverse(static_cast<size_t>(spec_.head_dim / 2));
    for (size_t i = 0; i < inverse.size(); ++i) {
      const Real ramp =
          (static_cast<Real>(i) - static_cast<Real>(low)) / static_cast<Real>(high - low);
      const Real kept = Real{1} - std::clamp(ramp, Real{0}, Real{1});
      const Real wave = period(spec_.rope_base, static_cast<int64_t>(i));
      const Real divided = Real{1} / (static_cast<Real>(scaling_.factor) * wave);
      inverse[i] = divided * (Real{1} - kept) + Real{1} / wave * kept;
    }
    return inverse;
  }

  const ModelSpec& spec_;
  const RopeScaling& scaling_;
};

double amplitude(const RopeScaling& scaling) {
  if (scaling.kind != RopeScalingKind::kYarn) return 1.0;
  if (scaling.attention_factor) return *scaling.attention_factor;
  return scaling.factor <= 1 ? 1.0 : 0.1 * std::log(scaling.factor) + 1.0;
}

}  // namespace

RotaryFrequencies rotary_frequencies(const ModelSpec& spec, int64_t sequence_length,
                                     RotaryPrecision precision) {
  if (spec.position != PositionKind::kRotary) {
    throw ConfigError("model", "expected a model with rotary positions, got " + spec.family);
  }
  RotaryFrequencies frequencies{.inverse = {}, .amplitude = amplitude(spec.rope_scaling)};
  if (precision == RotaryPrecision::kDouble) {
    frequencies.inverse = Frequencies<double>(spec).of(sequence_length);
  } else {
    const auto single = Frequencies<float>(spec).of(sequence_length);
    frequencies.inverse.assign(single.begin(), single.end());
  }
  return frequencies;
}

}  // namespace qianli::model
