// Rows of a weight with a product of low rank added to them. (Hu et al., "LoRA", 2021)
#pragma once

#include <cstdint>
#include <span>

namespace qianli::convert {

// row[j] += scale * sum over k of factors[k] * matrix[k * row.size() + j], in float32: the sum is
// taken in the order of k with fused multiplications where the machine has them, then scaled, then
// added, as a product of matrices in PyTorch is.
void add_low_rank(std::span<const float> factors, std::span<const float> matrix, float scale,
                  std::span<float> row);

}  // namespace qianli::convert
