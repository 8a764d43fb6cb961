// Rotary position embedding (Su et al., arXiv:2104.09864): frequencies, with the scaling rules
// linear, dynamic NTK, llama3 and yarn (arXiv:2309.00071).
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
// [0, head_dim / 2). Pairs are (i, i + head_dim/2). cos and sin are multiplied by `amplitude` (1
// but for yarn).
struct RotaryFrequencies {
  std::vector<double> inverse;  // kSingle: values of float32
  double amplitude = 1.0;
};

// `sequence_length` is that of the sequence at hand; only the dynamic rule looks at it, and only
// beyond max_position_embeddings. The spec is validated and has rotary positions.
RotaryFrequencies rotary_frequencies(const ModelSpec& spec, int64_t sequence_length,
                                     RotaryPrecision precision = RotaryPrecision::kSingle);

}  // namespace qianli::model
