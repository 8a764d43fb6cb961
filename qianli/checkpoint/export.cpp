#include "qianli/checkpoint/export.h"

#include <cstring>

#include "qianli/checkpoint/stored_tensor.h"
#include "qianli/convert/write_model.h"

namespace qianli::checkpoint {
namespace {

// The weights of a model in memory, under their own names.
class ParameterSource : public formats::TensorSource {
 public:
  explicit ParameterSource(const nn::ParameterSet& parameters)
      : TensorSource("the model"), parameters_(parameters) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      add({.name = parameters.entry(i).name,
           .dtype = stored_dtype(parameters.exact(i).scalar_type()),
           .shape = parameters.entry(i).shape});
    }
  }

 private:
  std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const override {
    const at::Tensor values = parameters_.exact(index);
    if (!values.is_cpu()) return std::nullopt;
    return std::span(static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes());
  }
  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    const at::Tensor rows = parameters_.exact(index).narrow(0, first, count).to(at::kCPU);
    std::memcpy(out.data(), rows.const_data_ptr(), out.size());
  }

  const nn::ParameterSet& parameters_;
};

}  // namespace

void export_hugging_face(const fs::path& folder, const model::ModelSpec& spec,
                         const nn::ParameterSet& parameters, const ExportOptions& options) {
  convert::ModelSource model;
  model.kind = "model";
  model.spec = spec;
  model.table = model::parameter_table(spec);
  model.companions = options.tokenizer;
  const std::shared_ptr<const formats::TensorSource> weights =
      std::make_shared<ParameterSource>(parameters);
  model.reader = std::make_unique<convert::ParameterReader>(
      model.table, convert::own_tensors(model.table), std::vector{weights}, "the model");
  convert::write_hugging_face(
      model, folder,
      {.dtype = options.dtype, .max_shard_bytes = static_cast<uint64_t>(options.max_shard_bytes)},
      {});
}

}  // namespace qianli::checkpoint
