// Answers that a request is held to: what may come next, given what was generated.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qianli::infer {

class Choices {
 public:
  // Each a sequence of at least one id; empty: anything goes.
  explicit Choices(std::vector<std::vector<int64_t>> choices) : choices_(std::move(choices)) {}

  bool any() const { return !choices_.empty(); }
  struct Next {
    std::vector<int64_t> ids;  // ascending, each once
    bool may_end = false;      // a choice is complete
  };
  Next behind(std::span<const int64_t> generated) const;

 private:
  std::vector<std::vector<int64_t>> choices_;
};

}  // namespace qianli::infer
