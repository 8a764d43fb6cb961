// The proof that a conversion kept the model.
#pragma once

#include <cstdint>

#include "qianli/convert/model_source.h"

namespace qianli::convert {

struct Proof {
  uint64_t parameters = 0;
  uint64_t elements = 0;
  bool rounded = false;  // some parameters lie in another type than in the original
};

// Compares every element of every parameter: those of `original`, in the target's types, with those
// of `target`, bit for bit, and the target's copies with what they repeat. That both hold each
// exactly once was checked when they were opened.
// A target that rounds (ModelSource::after_storing) is compared with the source as it is rounded.
// Throws CheckpointError naming the first switch of the model, or parameter and row, that differs.
Proof verify(const ModelSource& original, const ModelSource& target);

}  // namespace qianli::convert
