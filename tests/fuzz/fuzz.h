// What every fuzz target shares. A target takes any bytes and may only return or throw
// qianli::Error inside itself; everything else, a failed fuzz::require included, is a finding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace qianli::fuzz {

inline std::span<const std::byte> bytes(const uint8_t* data, size_t size) {
  return std::as_bytes(std::span(data, size));
}

// Reads every byte, so that the sanitizer sees a span that leaves its input.
inline void touch(std::span<const std::byte> bytes) {
  [[maybe_unused]] static volatile unsigned sink = 0;
  unsigned sum = 0;
  for (const std::byte b : bytes) sum += static_cast<unsigned>(b);
  sink = sum;
}

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

}  // namespace qianli::fuzz
