#include "qianli/ops/cuda/sort.h"

#include <bit>
#include <cub/device/device_radix_sort.cuh>

#include "qianli/ops/cuda/scratch.h"
#include "qianli/ops/cuda/status.h"

namespace qianli::ops::cuda {

void sort_pairs(const uint32_t* keys, const uint32_t* values, uint32_t* sorted_keys,
                uint32_t* sorted_values, int64_t count, int64_t key_limit, Stream stream) {
  const int bits = std::bit_width(static_cast<uint64_t>(key_limit > 1 ? key_limit - 1 : 1));
  const auto sort = [&](void* scratch, std::size_t& bytes) {
    check(cub::DeviceRadixSort::SortPairs(scratch, bytes, keys, sorted_keys, values, sorted_values,
                                          static_cast<int>(count), 0, bits,
                                          static_cast<cudaStream_t>(stream)),
          "sort_pairs");
  };
  std::size_t bytes = 0;
  sort(nullptr, bytes);
  const Scratch scratch(bytes, stream);
  sort(scratch.as<void>(), bytes);
}

}  // namespace qianli::ops::cuda
