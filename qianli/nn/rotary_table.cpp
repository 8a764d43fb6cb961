#include "qianli/nn/rotary_table.h"

#include <ATen/ops/empty.h>

#include <algorithm>
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

ops::RotaryTable make_table(const model::RotaryFrequencies& frequencies, int64_t positions,
                            const at::Tensor& like) {
  const bool exact = like.scalar_type() == at::kDouble;
  const auto options = at::TensorOptions().dtype(exact ? at::kDouble : at::kFloat);
  const auto half = static_cast<int64_t>(frequencies.inverse.size());
  at::Tensor cos = at::empty({positions, half}, options),
             sin = at::empty({positions, half}, options);
  if (exact) {
    fill(frequencies, positions, cos.data_ptr<double>(), sin.data_ptr<double>());
  } else {
    fill(frequencies, positions, cos.data_ptr<float>(), sin.data_ptr<float>());
  }
  return {cos.to(like.device()), sin.to(like.device())};
}

// The part of the sequence's length that a rule looks at: equal values share a table.
int64_t length_for(const model::ModelSpec& spec, const model::Rope& rope, int64_t needed) {
  const int64_t same = model::length_independent_up_to(rope, spec.max_position_embeddings);
  if (needed <= same) return 0;
  return rope.scaling.kind == model::RopeScalingKind::kLongrope ? same + 1 : needed;
}

}  // namespace

const ops::RotaryTable& RotaryTables::at(const model::Rope& rope, const DecoderInput& input) {
  const int64_t needed = input.max_position + 1;
  const int64_t length = length_for(spec_, rope, needed);
  Entry& entry = entries_[&rope];
  if (entry.table.cos.defined() && entry.table.cos.size(0) >= needed &&
      entry.sequence_length == length) {
    return entry.table;
  }
  const auto precision = like_.scalar_type() == at::kDouble ? model::RotaryPrecision::kDouble
                                                            : model::RotaryPrecision::kSingle;
  const auto frequencies =
      model::rotary_frequencies(rope, spec_.rotary_size(rope), spec_.max_position_embeddings,
                                std::max(needed, length), precision);
  // Twice what is asked for, so that decoding token by token makes it rarely.
  entry.table = make_table(frequencies, std::max<int64_t>(64, 2 * needed), like_);
  entry.sequence_length = length;
  return entry.table;
}

}  // namespace qianli::nn
