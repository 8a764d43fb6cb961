#include "qianli/convert/gguf/stored.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "qianli/base/error.h"
#include "qianli/formats/number_formats.h"

namespace qianli::convert {
namespace {

using formats::Dtype;
using formats::GgmlType;
using formats::TensorSpec;

bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

class Parameters : public formats::TensorSource {
 public:
  Parameters(std::unique_ptr<formats::TensorSource> file, const GgufArchitecture& architecture,
             std::vector<float> exact)
      : TensorSource(file->source()), file_(std::move(file)), exact_(std::move(exact)) {
    size_t changed = 0;
    for (TensorSpec spec : file_->tensors()) {
      values_.push_back(gguf_values(architecture, spec.name));
      starts_.push_back(changed);
      if (values_.back() != GgufValues::kSame) {
        spec.dtype = Dtype::kF32;
        changed += static_cast<size_t>(spec.num_elements());
      }
      add(spec);
    }
    if (exact_.empty() || exact_.size() == changed) return;
    throw CheckpointError("convert", fmt::format("{}: expected {} numbers under {}, got {}",
                                                 source(), changed, kExactKey, exact_.size()));
  }

 private:
  const TensorSpec& original(size_t index) const { return file_->tensors()[index]; }
  std::string describe(size_t index) const override { return file_->stored_as(original(index)); }
  Dtype natural(size_t index) const override {
    return values_[index] == GgufValues::kSame ? file_->natural_dtype(original(index))
                                               : Dtype::kF32;
  }

  std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const override {
    return values_[index] == GgufValues::kSame ? file_->view(original(index)) : std::nullopt;
  }

  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    const TensorSpec& spec = original(index);
    if (values_[index] == GgufValues::kSame) return file_->read_rows(spec, first, count, out);
    std::vector<std::byte> bytes(static_cast<size_t>(count) * formats::row_bytes(spec));
    file_->read_rows(spec, first, count, bytes);
    std::vector<float> stored(out.size() / sizeof(float));
    formats::to_float32(spec.dtype, bytes, stored);
    std::vector<float> numbers = stored;
    from_stored(values_[index], numbers);
    const size_t start =
        starts_[index] + static_cast<size_t>(first) * stored.size() / static_cast<size_t>(count);
    if (!exact_.empty()) take_exact(index, start, stored, numbers);
    std::memcpy(out.data(), numbers.data(), out.size());
  }

  void take_exact(size_t index, size_t start, std::span<const float> stored,
                  std::span<float> numbers) const {
    const std::span<const float> known = std::span(exact_).subspan(start, numbers.size());
    std::vector<float> leads_to(known.begin(), known.end());
    to_stored(values_[index], leads_to);
    for (size_t i = 0; i < numbers.size(); ++i) {
      if (same_bits(leads_to[i], stored[i])) numbers[i] = known[i];
    }
  }

  std::unique_ptr<formats::TensorSource> file_;
  std::vector<GgufValues> values_;
  std::vector<float> exact_;
  std::vector<size_t> starts_;  // of each tensor in exact_
};

class AfterStoring : public formats::TensorSource {
 public:
  AfterStoring(const ParameterReader& source, std::vector<StoredTensor> tensors)
      : TensorSource("the model to be converted"), reader_(source), tensors_(std::move(tensors)) {
    for (const StoredTensor& one : tensors_) {
      add({.name = one.tensor.name, .dtype = written_dtype(one.type), .shape = one.tensor.shape});
    }
  }

 private:
  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    const StoredTensor& tensor = tensors_[index];
    const TensorSpec& spec = tensors()[index];
    const int64_t row = spec.num_elements() / formats::num_rows(spec);
    reader_.assemble(tensor.tensor, spec.dtype, first * row, out);
    if (tensor.type != GgmlType::kQ8_0) return;  // exact_values() bring changed ones back
    std::vector<float> numbers(static_cast<size_t>(count * row));
    std::memcpy(numbers.data(), out.data(), out.size());
    std::vector<std::byte> blocks(numbers.size() / 32 * 34);
    formats::quantize_q8_0(numbers, blocks);
    formats::dequantize(GgmlType::kQ8_0, blocks, numbers);
    std::memcpy(out.data(), numbers.data(), out.size());
  }

  const ParameterReader& reader_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace

Dtype written_dtype(GgmlType type) { return formats::plain_dtype(type).value_or(Dtype::kF32); }

std::vector<float> exact_values(const ParameterReader& source,
                                const std::vector<StoredTensor>& tensors) {
  std::vector<float> all;
  bool come_back = true;
  for (const StoredTensor& tensor : tensors) {
    if (tensor.values == GgufValues::kSame) continue;
    const TensorSpec spec{tensor.tensor.name, Dtype::kF32, tensor.tensor.shape};
    std::vector<float> numbers(static_cast<size_t>(spec.num_elements()));
    source.assemble(tensor.tensor, spec.dtype, std::as_writable_bytes(std::span(numbers)));
    std::vector<float> back = numbers;
    to_stored(tensor.values, back);
    from_stored(tensor.values, back);
    come_back = come_back && std::ranges::equal(numbers, back, same_bits);
    all.insert(all.end(), numbers.begin(), numbers.end());
  }
  if (come_back) all.clear();
  return all;
}

std::unique_ptr<formats::TensorSource> as_parameters(std::unique_ptr<formats::TensorSource> file,
                                                     const GgufArchitecture& architecture,
                                                     std::vector<float> exact) {
  return std::make_unique<Parameters>(std::move(file), architecture, std::move(exact));
}

std::unique_ptr<formats::TensorSource> after_storing(const ParameterReader& source,
                                                     std::vector<StoredTensor> tensors) {
  return std::make_unique<AfterStoring>(source, std::move(tensors));
}

}  // namespace qianli::convert
