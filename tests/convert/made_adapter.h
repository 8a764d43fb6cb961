// Adapters in PEFT's form, made up.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "qianli/base/json.h"

namespace qianli::testing {

struct Matrix {
  std::vector<int64_t> shape;
  std::vector<float> values;
  float at(int64_t row, int64_t column) const {
    return values[static_cast<size_t>(row * shape[1] + column)];
  }
};

// Small multiples of 1/8: sums and products of these are exact in any order.
Matrix filled(std::vector<int64_t> shape, int seed);

struct MadeAdapter {
  OrderedJson config = {{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 4}};
  std::map<std::string, Matrix> tensors;  // without the prefix

  void add(const std::string& module, int64_t out, int64_t in, int64_t rank = 2);
  void write(const std::filesystem::path& folder) const;
};

}  // namespace qianli::testing
