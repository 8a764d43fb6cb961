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
          std::optional<formats::Dtype> dtype);
  // One type for each tensor.
  static Targets of_types(const ModelSource& model, std::vector<ForeignTensor> tensors,
                          const std::vector<formats::Dtype>& dtypes);

  const std::vector<ForeignTensor>& tensors() const { return tensors_; }
  // One for each tensor, in their order.
  const std::vector<formats::TensorSpec>& specs() const { return specs_; }
  uint64_t total_bytes() const { return total_bytes_; }
  // One line that says all that the tensors' bytes depend on: the source's files (names, sizes,
  // times of change), every tensor and its parts, and `more`. A model in memory is like no other.
  std::string identity(const std::string& more) const;
  // That of most elements.
  formats::Dtype prevailing_dtype() const;

  // Hands all bytes of tensor `index` to the sink, in pieces of a few rows that several threads put
  // together; in place where it lies in the source as it is wanted. Throws StoppedError where a
  // stop was asked for. One call at a time.
  void produce(size_t index, const formats::ByteSink& sink) const;
  // The same by name, for writers of one file, with progress.
  formats::TensorProducer producer(const ProgressFunction& progress) const;

 private:
  explicit Targets(const ModelSource& model);
  void add(ForeignTensor tensor, formats::Dtype dtype);
  void finish();

  const ModelSource& model_;
  std::vector<ForeignTensor> tensors_;
  std::vector<formats::TensorSpec> specs_;
  std::unordered_map<std::string_view, size_t> places_;
  uint64_t total_bytes_ = 0;
  int threads_;
  mutable Buffers buffers_;
};

void refuse_existing(const std::filesystem::path& target);

}  // namespace qianli::convert
