// Embedding look-up: y[i] = table[ids[i]].
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/parameter.h"

namespace qianli::ops {

// ids: [T] int64, each in [0, vocabulary); table: [vocabulary, H]. Returns [T, H].
// Throws DataError naming the first id outside the vocabulary.
at::Tensor embedding(const at::Tensor& ids, Parameter& table);

namespace reference {
at::Tensor embedding(const at::Tensor& ids, const at::Tensor& table);
}

}  // namespace qianli::ops
