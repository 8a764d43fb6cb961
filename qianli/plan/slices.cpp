#include "qianli/plan/slices.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "qianli/base/error.h"

namespace qianli::plan {
namespace {

// Of the first `length` tokens under a causal mask.
double work(const SliceOptions& options, double length) {
  return options.token * length + options.key * length * length / 2;
}

// The length whose work is this: the positive root of the above.
double length_of(const SliceOptions& options, double work) {
  if (options.key == 0) return work / options.token;
  const double b = options.token;
  return (std::sqrt(b * b + 2 * options.key * work) - b) / options.key;
}

}  // namespace

std::vector<int64_t> slice_lengths(const SliceOptions& options) {
  const int64_t multiple = options.multiple, slices = options.slices;
  if (slices < 1 || multiple < 1 || options.sequence_length < 1 ||
      options.sequence_length / multiple < slices || !(options.token >= 0) || !(options.key >= 0) ||
      !(options.token + options.key > 0)) {
    throw ConfigError("schedule",
                      fmt::format("expected a sequence of at least {} slices of {} tokens, got {}",
                                  slices, multiple, options.sequence_length));
  }
  const auto length = static_cast<double>(options.sequence_length);
  const int64_t blocks = options.sequence_length / multiple;
  std::vector<int64_t> lengths;
  int64_t begin = 0;
  for (int64_t i = 1; i <= slices; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(slices);
    const double end = options.balance == SliceBalance::kAverage
                           ? share * length
                           : length_of(options, share * work(options, length));
    // At least one block for this slice and for each that follows.
    const int64_t block = std::clamp(std::llround(end / static_cast<double>(multiple)) + 0LL,
                                     begin / multiple + 1LL, blocks - (slices - i) + 0LL);
    const int64_t cut = i == slices ? options.sequence_length : block * multiple;
    lengths.push_back(cut - begin);
    begin = cut;
  }
  return lengths;
}

std::vector<double> slice_work(const SliceOptions& options, const std::vector<int64_t>& lengths) {
  std::vector<double> shares;
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    const auto from = static_cast<double>(begin), to = static_cast<double>(begin + length);
    shares.push_back(work(options, to) - work(options, from));
    begin += length;
  }
  const double mean =
      work(options, static_cast<double>(begin)) / static_cast<double>(lengths.size());
  for (double& share : shares) share /= mean;
  return shares;
}

}  // namespace qianli::plan
