#include "qianli/nn/rotary_table.h"

#include <ATen/ops/empty.h>

#include <cmath>

#include "qianli/model/rotary.h"

namespace qianli::nn {
namespace {

template <class Real>
void fill(const model::RotaryFrequencies& frequencies, int64_t positions, Real* cos, Real* sin) {
  const auto half = static_cast<int64_t>(frequencies.inverse.size());
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t i = 0; i < half; ++i) {
      // Angles in the table's own precision: float32 models were trained with float32 angles.
      const Real angle = static_cast<Real>(p) * static_cast<Real>(frequencies.inverse[i]);
      cos[p * half + i] = static_cast<Real>(std::cos(angle) * frequencies.amplitude);
      sin[p * half + i] = static_cast<Real>(std::sin(angle) * frequencies.amplitude);
    }
  }
}

}  // namespace

ops::RotaryTable rotary_table(const model::ModelSpec& spec, const at::Tensor& like, int64_t positions,
                              int64_t sequence_length) {
  const bool exact = like.scalar_type() == at::kDouble;
  const auto frequencies = model::rotary_frequencies(
      spec.rope, spec.rotary_size(spec.rope), spec.max_position_embeddings, sequence_length,
      exact ? model::RotaryPrecision::kDouble : model::RotaryPrecision::kSingle);
  const auto options = at::TensorOptions().dtype(exact ? at::kDouble : at::kFloat);
  const auto half = static_cast<int64_t>(frequencies.inverse.size());
  at::Tensor cos = at::empty({positions, half}, options), sin = at::empty({positions, half}, options);
  if (exact) {
    fill(frequencies, positions, cos.data_ptr<double>(), sin.data_ptr<double>());
  } else {
    fill(frequencies, positions, cos.data_ptr<float>(), sin.data_ptr<float>());
  }
  return {cos.to(like.device()), sin.to(like.device())};
}

}  // namespace qianli::nn
