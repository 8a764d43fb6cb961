// Elements of stored tensors: in place where the file is mapped, else read, row by row of axis 0,
// and kept for a while, because the parts of a tensor are asked for one after the other.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "qianli/formats/tensor_source.h"

namespace qianli::convert {

// Elements from `first` on; `owner` keeps bytes that were read.
struct StoredElements {
  int64_t first = 0;
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

class RecentRows {
 public:
  // At least the elements [begin, end) of `tensor`, one of `source`'s. By several threads at once:
  // rows that one of them reads already are waited for.
  StoredElements get(const formats::TensorSource& source, const formats::TensorSpec& tensor,
                     int64_t begin, int64_t end);

 private:
  struct Rows {
    const formats::TensorSpec* tensor;
    int64_t first, count;
    std::once_flag read;
    std::vector<std::byte> bytes;
  };
  std::shared_ptr<Rows> find_or_add(const formats::TensorSpec& tensor, int64_t first,
                                    int64_t count);

  std::mutex mutex_;
  std::vector<std::shared_ptr<Rows>> recent_;  // the last is the newest
};

}  // namespace qianli::convert
