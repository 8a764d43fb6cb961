// Rotary position embedding (Su et al., arXiv:2104.09864): frequencies, with the scaling rules
// linear, dynamic and fixed NTK, llama3, yarn (arXiv:2309.00071) and longrope (arXiv:2402.13753).
#pragma once

#include <cstdint>
#include <vector>

#include "qianli/model/spec.h"

namespace qianli::model {

// kSingle rounds to float32 after every operation in the order of transformers'
// modeling_rope_utils: published models were trained with those frequencies, and at position 4000
// one last place of an inverse frequency already turns a pair by 2e-4. Powers are rounded to
// nearest; transformers' own are one place off in about one of a hundred. kDouble is for proofs in
// float64.
enum class RotaryPrecision { kSingle, kDouble };

// Angle of pair i at position p: p * inverse[i] (in float32 for kSingle, as in transformers), i in
// [0, dimensions / 2). Pairs are (i, i + dimensions / 2), or (2 i, 2 i + 1) where the rope is
// interleaved. cos and sin are multiplied by `amplitude` (1 but for yarn and longrope).
struct RotaryFrequencies {
  std::vector<double> inverse;  // kSingle: values of float32
  double amplitude = 1.0;
};

// `dimensions`: how many of a head are turned, ModelSpec::rotary_size. `max_positions`: the model's
// max_position_embeddings, and `sequence_length` that of the sequence at hand, which matters where
// length_independent_up_to says so. The rope is one of a validated spec.
RotaryFrequencies rotary_frequencies(const Rope& rope, int64_t dimensions, int64_t max_positions,
                                     int64_t sequence_length,
                                     RotaryPrecision precision = RotaryPrecision::kSingle);

// Sequences up to this length have the same frequencies; beyond, dynamic ones change with every
// length and longrope once.
int64_t length_independent_up_to(const Rope& rope, int64_t max_positions);

}  // namespace qianli::model
