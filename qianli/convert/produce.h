// The tensors of a target and their bytes.
#pragma once

#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "qianli/convert/pipeline.h"
#include "qianli/convert/write_model.h"

namespace qianli::convert {

class Targets {
 public:
  // Buffers keep their type whatever `dtype` says. Without it, quantised weights become bf16.
  Targets(const ModelSource& model, std::vector<ForeignTensor> tensors,
          std::optional<formats::Dtype> dtype, ProgressFunction progress = {});
  // One type for each tensor.
  static Targets of_types(const ModelSource& model, std::vector<ForeignTensor> tensors,
                          const std::vector<formats::Dtype>& dtypes, ProgressFunction progress);

  const std::vector<ForeignTensor>& tensors() const { return tensors_; }
  // One for each tensor, in their order.
  const std::vector<formats::TensorSpec>& specs() const { return specs_; }
  uint64_t total_bytes() const { return total_bytes_; }
  // One line that says all that a conversion's bytes depend on: the program's version, the source's
  // files (names, sizes, times of change), its companions, every tensor and its parts, and `more`.
  // A model in memory is like no other.
  std::string identity(const std::string& more) const;
  // That of most elements.
  formats::Dtype prevailing_dtype() const;

  // Hands all bytes of tensor `index` to the sink, in pieces of a few rows that several threads put
  // together; in place where it lies in the source as it is wanted. Tells progress after each; an
  // empty sink has the tensor, which only counts. Throws StoppedError where a stop was asked for.
  // One call at a time.
  void produce(size_t index, const formats::ByteSink& sink) const;
  // The same by name, for the writer of a file.
  formats::TensorProducer producer(size_t file = 0) const;

 private:
  Targets(const ModelSource& model, ProgressFunction progress);
  void add(ForeignTensor tensor, formats::Dtype dtype);
  void hand_over(std::span<const std::byte> bytes, const formats::ByteSink& sink) const;

  const ModelSource& model_;
  std::vector<ForeignTensor> tensors_;
  std::vector<formats::TensorSpec> specs_;
  uint64_t total_bytes_ = 0;
  int threads_;
  ProgressFunction progress_;
  mutable uint64_t done_ = 0;
  mutable Buffers buffers_;
};

void refuse_existing(const std::filesystem::path& target);

}  // namespace qianli::convert
