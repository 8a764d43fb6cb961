// MindSpore's names of element types.
#pragma once

#include <string_view>
#include <utility>

#include "qianli/formats/dtype.h"

namespace qianli::formats {

inline constexpr std::pair<std::string_view, Dtype> kMindsporeTypes[] = {
    {"Bool", Dtype::kBool},     {"Int8", Dtype::kI8},
    {"Int16", Dtype::kI16},     {"Int32", Dtype::kI32},
    {"Int64", Dtype::kI64},     {"UInt8", Dtype::kU8},
    {"UInt16", Dtype::kU16},    {"UInt32", Dtype::kU32},
    {"UInt64", Dtype::kU64},    {"Float16", Dtype::kF16},
    {"BFloat16", Dtype::kBF16}, {"Float32", Dtype::kF32},
    {"Float64", Dtype::kF64},   {"Complex64", Dtype::kC64},
    {"Int4", Dtype::kI8},  // two values in a byte, and a byte per element of the shape
};

// Values larger than this are split, and a message of the format may not have 2 GiB.
inline constexpr std::string_view kMindsporeText = "str";
inline constexpr std::string_view kMindsporeCrcMark = "crc_num";
inline constexpr size_t kMindsporeCrcBytes = 10;  // big-endian, behind the mark

}  // namespace qianli::formats
