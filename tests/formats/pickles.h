// Pickles by hand, for tests.
#pragma once

#include <string>
#include <string_view>

#include "tests/formats/bytes.h"

namespace qianli::formats::pickles {

inline std::string global(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}
inline std::string text(std::string_view value) {
  return "X" + bytes_of(static_cast<uint32_t>(value.size())) + std::string(value);
}
inline std::string integer(int32_t value) { return "J" + bytes_of(value); }
// A complete pickle of protocol 2.
inline std::string of(std::string_view body) { return "\x80\x02" + std::string(body) + "."; }

// torch's tensor on the float32 storage `key`.
inline std::string tensor(std::string_view key, int32_t elements, int32_t offset,
                          std::string_view sizes, std::string_view strides) {
  return global("torch._utils", "_rebuild_tensor_v2") + "((" + text("storage") +
         global("torch", "FloatStorage") + text(key) + text("cpu") + integer(elements) + "tQ" +
         integer(offset) + std::string(sizes) + std::string(strides) + "\x89)tR";
}

}  // namespace qianli::formats::pickles
