#include "qianli/convert/produce.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/stop.h"
#include "qianli/base/threads.h"
#include "qianli/convert/pipeline.h"
#include "qianli/formats/number_formats.h"
#include "qianli/formats/reject.h"

namespace qianli::convert {
namespace {

// Made and written at a time: so little that it is still in a cache when it is written.
constexpr int64_t kPieceBytes = int64_t{1} << 20;

int64_t covered_elements(const ForeignTensor& tensor) {
  int64_t elements = 0;
  for (const Part& part : tensor.parts) elements += part.rows * part.columns;
  return elements;
}

formats::Dtype dtype_for(const ModelSource& model, const ForeignTensor& tensor,
                         std::optional<formats::Dtype> wanted) {
  if (tensor.parts.empty()) return wanted.value_or(formats::Dtype::kF32);
  const size_t parameter = tensor.parts.front().parameter;
  if (model.table[parameter].integral) return formats::Dtype::kI64;
  const formats::Dtype natural = model.reader->natural_dtype(parameter);
  return wanted && !model.table[parameter].buffer ? *wanted : natural;
}

// What fp16 has no numbers for becomes infinite, and a model of infinities computes nothing.
void refuse_infinities(const ForeignTensor& tensor, std::span<const std::byte> numbers) {
  for (size_t i = 0; i + 2 <= numbers.size(); i += 2) {
    uint16_t bits;
    std::memcpy(&bits, numbers.data() + i, 2);
    if ((bits & 0x7fff) != 0x7c00) continue;
    throw CheckpointError(
        "convert",
        fmt::format("{}: expected numbers that fp16 has (up to 65504), got larger",
                    formats::shown_name(tensor.name)),
        "bf16 and fp32 have them: --dtype");
  }
}

}  // namespace

Targets::Targets(const ModelSource& model, ProgressFunction progress)
    : model_(model), threads_(available_cores()), progress_(std::move(progress)) {}

Targets::Targets(const ModelSource& model, std::vector<ForeignTensor> tensors,
                 std::optional<formats::Dtype> dtype, ProgressFunction progress)
    : Targets(model, std::move(progress)) {
  for (ForeignTensor& tensor : tensors) {
    const formats::Dtype own = dtype_for(model, tensor, dtype);
    add(std::move(tensor), own);
  }
}

Targets Targets::of_types(const ModelSource& model, std::vector<ForeignTensor> tensors,
                          const std::vector<formats::Dtype>& dtypes, ProgressFunction progress) {
  Targets targets(model, std::move(progress));
  for (size_t i = 0; i < tensors.size(); ++i) targets.add(std::move(tensors[i]), dtypes.at(i));
  return targets;
}

void Targets::add(ForeignTensor tensor, formats::Dtype dtype) {
  specs_.push_back({.name = tensor.name, .dtype = dtype, .shape = tensor.shape});
  total_bytes_ += specs_.back().num_bytes();
  tensors_.push_back(std::move(tensor));
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
  if (!sink) {
    done_ += spec.num_bytes();
    return;
  }
  const ForeignTensor& tensor = tensors_[index];
  const auto width = static_cast<int64_t>(formats::bit_size(spec.dtype)) / 8;
  const int64_t all = spec.num_elements(), row = row_elements(tensor) * width;
  const int64_t step = std::max<int64_t>(1, kPieceBytes / row) * row;
  const int64_t bytes = all * width;
  const auto piece = [&](int64_t i) { return std::min(step, bytes - i * step); };
  if (const auto whole = model_.reader->in_place(tensor, spec.dtype)) {
    for (int64_t first = 0; first < bytes; first += step) {
      hand_over(
          whole->subspan(static_cast<size_t>(first), static_cast<size_t>(piece(first / step))),
          sink);
    }
    return;
  }
  const bool padded = covered_elements(tensor) < all;
  in_order((bytes + step - 1) / step, threads_, buffers_,
           [&](int64_t i, std::vector<std::byte>& buffer) {
             buffer.resize(static_cast<size_t>(piece(i)));
             if (padded) std::ranges::fill(buffer, std::byte{0});
             model_.reader->assemble(tensor, spec.dtype, i * step / width, buffer);
             if (spec.dtype == formats::Dtype::kF16) refuse_infinities(tensor, buffer);
           },
           [&](std::span<const std::byte> buffer) { hand_over(buffer, sink); });
}

void Targets::hand_over(std::span<const std::byte> bytes, const formats::ByteSink& sink) const {
  throw_if_stopped("convert");
  sink(bytes);
  done_ += bytes.size();
  if (progress_) progress_(done_, total_bytes_);
}

formats::TensorProducer Targets::producer(size_t file) const {
  std::unordered_map<std::string_view, size_t> places;
  for (size_t i = 0; i < specs_.size(); ++i) {
    if (tensors_[i].file == file) places.emplace(specs_[i].name, i);
  }
  return [this, places = std::move(places)](const formats::TensorSpec& tensor,
                                            const formats::ByteSink& sink) {
    produce(places.at(tensor.name), sink);
  };
}

void refuse_existing(const std::filesystem::path& target) {
  if (!std::filesystem::exists(target)) return;
  throw_file_error(FileRole::kCheckpoint, fmt::format("{} exists already", target.string()),
                   "choose another name; nothing was overwritten");
}

}  // namespace qianli::convert
