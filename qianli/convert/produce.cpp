#include "qianli/convert/produce.h"

#include <fmt/core.h>

#include <map>

#include "qianli/base/file.h"
#include "qianli/formats/number_formats.h"

namespace qianli::convert {
namespace {

formats::Dtype dtype_for(const ModelSource& model, const ForeignTensor& tensor,
                         std::optional<formats::Dtype> wanted) {
  if (tensor.parts.empty()) return wanted.value_or(formats::Dtype::kF32);
  const size_t parameter = tensor.parts.front().parameter;
  const formats::Dtype stored = model.reader->dtype(parameter);
  if (model.table[parameter].buffer) return stored;
  if (wanted) return *wanted;
  return model.reader->is_quantized(parameter) ? formats::Dtype::kBF16 : stored;
}

}  // namespace

Targets::Targets(const ModelSource& model, std::vector<ForeignTensor> tensors,
                 std::optional<formats::Dtype> dtype)
    : model_(model), tensors_(std::move(tensors)) {
  for (const ForeignTensor& tensor : tensors_) {
    specs_.push_back(
        {.name = tensor.name, .dtype = dtype_for(model, tensor, dtype), .shape = tensor.shape});
    total_bytes_ += specs_.back().num_bytes();
  }
  for (size_t i = 0; i < specs_.size(); ++i) places_.emplace(specs_[i].name, i);
}

formats::Dtype Targets::prevailing_dtype() const {
  std::map<formats::Dtype, int64_t> elements;
  for (const formats::TensorSpec& spec : specs_) elements[spec.dtype] += spec.num_elements();
  const auto most =
      std::max_element(elements.begin(), elements.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return most->first;
}

void Targets::produce(size_t index, const formats::ByteSink& sink) const {
  const formats::TensorSpec& spec = specs_[index];
  if (const auto bytes = model_.reader->in_place(tensors_[index], spec.dtype)) return sink(*bytes);
  std::vector<std::byte> bytes(spec.num_bytes());
  model_.reader->assemble(tensors_[index], spec.dtype, bytes);
  sink(bytes);
}

formats::TensorProducer Targets::producer(const ProgressFunction& progress) const {
  return [this, progress, done = uint64_t{0}](const formats::TensorSpec& tensor,
                                              const formats::ByteSink& sink) mutable {
    produce(places_.at(tensor.name), sink);
    done += tensor.num_bytes();
    if (progress) progress(done, total_bytes_);
  };
}

void refuse_existing(const std::filesystem::path& target) {
  if (!std::filesystem::exists(target)) return;
  throw_file_error(FileRole::kCheckpoint, fmt::format("{} exists already", target.string()),
                   "choose another name; nothing was overwritten");
}

}  // namespace qianli::convert
