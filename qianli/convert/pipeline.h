// Work cut into pieces: made by several threads at once, taken one after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace qianli::convert {

// For i in [0, count): make(i, buffer) fills a buffer, on any of `threads` threads; take(buffer) is
// called by the caller's thread in the order of i. No more than 2 * threads buffers exist, which
// are used again and again. The first exception of either ends the work and is thrown.
void in_order(int64_t count, int threads,
              const std::function<void(int64_t i, std::vector<std::byte>& buffer)>& make,
              const std::function<void(std::span<const std::byte> buffer)>& take);

}  // namespace qianli::convert
