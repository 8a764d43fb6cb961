// The token sequences that are written for one example.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qianli::data {

struct Sample {
  std::vector<std::vector<int32_t>> fields;  // as SampleEncoder::fields() names them
  bool cut = false;
  bool too_long = false;  // not to be written: a field has the sequence's length, or more
  std::vector<std::string> warnings;

  int64_t longest() const;
  // Of all ids, and how many of them have a label; `fields` as the encoder names them.
  int64_t tokens(const std::vector<std::string>& fields) const;
  int64_t trained(const std::vector<std::string>& fields) const;
};

}  // namespace qianli::data
