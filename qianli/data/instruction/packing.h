// Which samples share a sequence: MindSpeed-LLM's best-fit bins.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qianli::data {

enum class Packing {
  kNone,
  kPlain,  // the attention mask is 1 everywhere; training tells samples apart by their ends of text
  kNeat,   // the attention mask is the number of the sample in its sequence, from 1; 0 in padding
};

// Numbers of the samples of each bin, in their order within it. A bin takes the largest sample that
// still fits, again and again; of equally long ones the last comes first. Lengths are at most the
// capacity.
std::vector<std::vector<int64_t>> pack_bins(std::span<const int32_t> lengths, int64_t capacity);

}  // namespace qianli::data
