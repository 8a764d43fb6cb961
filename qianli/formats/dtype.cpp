#include "qianli/formats/dtype.h"

#include <limits>

namespace qianli::formats {
namespace {

struct Row {
  std::string_view name;
  int bits;
};

constexpr std::array<Row, kNumDtypes> kTable{{
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
}};
static_assert(static_cast<int>(Dtype::kU64) + 1 == kNumDtypes);

}  // namespace

int bit_size(Dtype dtype) { return kTable[static_cast<size_t>(dtype)].bits; }

std::string_view dtype_name(Dtype dtype) { return kTable[static_cast<size_t>(dtype)].name; }

std::optional<Dtype> dtype_from_name(std::string_view name) {
  for (size_t i = 0; i < kTable.size(); ++i) {
    if (kTable[i].name == name) return static_cast<Dtype>(i);
  }
  return std::nullopt;
}

std::optional<uint64_t> byte_size(Dtype dtype, std::span<const int64_t> shape) {
  // Zero dimensions are left out of the product: the strides of [0, 2^62, 4] would overflow as
  // well.
  constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  auto bits = static_cast<uint64_t>(bit_size(dtype));
  bool empty = false;
  for (const int64_t dimension : shape) {
    if (dimension < 0) return std::nullopt;
    if (dimension == 0) {
      empty = true;
    } else {
      const auto factor = static_cast<uint64_t>(dimension);
      if (bits > kMost / factor) return std::nullopt;
      bits *= factor;
    }
  }
  if (empty) return 0;
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

}  // namespace qianli::formats
