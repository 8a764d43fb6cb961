// A tensor as it stands in a file: name, element type, shape, and bytes row-major, little-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "qianli/formats/dtype.h"

namespace qianli::formats {

// What is known of a tensor without its bytes.
struct TensorSpec {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;  // empty: a scalar

  uint64_t num_bytes() const;  // 0 where byte_size() has none
  int64_t num_elements() const;
};

// A tensor with its bytes. They belong to the mapped file, or to whoever made the entry.
struct TensorEntry : TensorSpec {
  std::span<const std::byte> bytes;
};

// Takes the next bytes of the tensor being written.
using ByteSink = std::function<void(std::span<const std::byte>)>;
// Called once per tensor in the order of the file; hands exactly num_bytes() bytes to the sink, in
// as many pieces as it likes. The sink is empty, and nothing to be done, where a file that grows
// (base/output_file.h) has the tensor already.
using TensorProducer = std::function<void(const TensorSpec&, const ByteSink&)>;

// "[2, 3]"
std::string shape_text(std::span<const int64_t> shape);

}  // namespace qianli::formats
