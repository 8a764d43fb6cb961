// Work cut into pieces: made by several threads at once, taken one after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace qianli::convert {

// Kept by the caller from one call to the next: fresh memory costs as much as the copy into it.
using Buffers = std::vector<std::vector<std::byte>>;

// For i in [0, count): make(i, buffer) fills a buffer, on any of `threads` threads; take(buffer) is
// called by the caller's thread in the order of i. No more than 2 * threads buffers are used. The
// first exception of either ends the work and is thrown.
void in_order(int64_t count, int threads, Buffers& buffers,
              const std::function<void(int64_t i, std::vector<std::byte>& buffer)>& make,
              const std::function<void(std::span<const std::byte> buffer)>& take);

}  // namespace qianli::convert
