#include "qianli/convert/assembled_source.h"

#include <algorithm>
#include <cstring>

namespace qianli::convert {
namespace {

class AssembledSource : public formats::TensorSource {
 public:
  AssembledSource(std::shared_ptr<const ModelSource> model, std::vector<ForeignTensor> tensors,
                  std::string source)
      : TensorSource(std::move(source)), model_(std::move(model)), tensors_(std::move(tensors)) {
    for (const ForeignTensor& tensor : tensors_)
      add({tensor.name, model_->reader->dtype(parameter_of(tensor)), tensor.shape});
  }

 private:
  static size_t parameter_of(const ForeignTensor& tensor) { return tensor.parts.front().parameter; }

  formats::Dtype natural(size_t index) const override {
    return model_->reader->natural_dtype(parameter_of(tensors_[index]));
  }
  std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const override {
    return model_->reader->in_place(tensors_[index], tensors()[index].dtype);
  }
  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    const ForeignTensor& tensor = tensors_[index];
    const formats::TensorSpec& spec = tensors()[index];
    std::ranges::fill(out, std::byte{0});  // what no part covers
    const int64_t row = spec.num_elements() / formats::num_rows(spec);
    if (row % row_elements(tensor) == 0 || count == formats::num_rows(spec)) {
      return model_->reader->assemble(tensor, spec.dtype, first * row, out);
    }
    std::vector<std::byte> whole(spec.num_bytes());
    model_->reader->assemble(tensor, spec.dtype, whole);
    std::memcpy(out.data(), whole.data() + static_cast<uint64_t>(first) * formats::row_bytes(spec),
                out.size());
  }

  std::shared_ptr<const ModelSource> model_;
  std::vector<ForeignTensor> tensors_;
};

}  // namespace

std::shared_ptr<const formats::TensorSource> assembled_source(
    std::shared_ptr<const ModelSource> model, std::vector<ForeignTensor> tensors,
    std::string source) {
  return std::make_shared<AssembledSource>(std::move(model), std::move(tensors), std::move(source));
}

}  // namespace qianli::convert
