#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/convert/gguf_spec.h"
#include "qianli/convert/gguf_stored.h"
#include "qianli/convert/gguf_tensors.h"
#include "qianli/convert/produce.h"
#include "qianli/convert/write_model.h"
#include "qianli/model/hugging_face.h"

namespace qianli::convert {
namespace {

using formats::Dtype;
using formats::GgmlType;
using model::ModelSpec;

// llama.cpp's numbers for the type of most weights (LlamaFileType).
const std::map<GgmlType, int64_t> kFileTypes = {
    {GgmlType::kF32, 0}, {GgmlType::kF16, 1}, {GgmlType::kQ8_0, 7}, {GgmlType::kBF16, 32}};
constexpr int64_t kQuantizationVersion = 2;

GgmlType plain_type(Dtype dtype) {
  if (dtype == Dtype::kF16) return GgmlType::kF16;
  if (dtype == Dtype::kBF16) return GgmlType::kBF16;
  return GgmlType::kF32;
}

GgmlType type_for(const ModelSource& model, const ForeignTensor& tensor,
                  const TargetOptions& options) {
  if (stays_float32(tensor.name, tensor.shape)) return GgmlType::kF32;
  if (options.q8_0) return tensor.shape.back() % 32 == 0 ? GgmlType::kQ8_0 : GgmlType::kF16;
  const Dtype stored = model.reader->dtype(tensor.parts.front().parameter);
  return plain_type(options.dtype.value_or(stored));
}

std::vector<StoredTensor> tensors_to_store(const ModelSource& model, const ModelSpec& spec,
                                           const Table& table, const GgufArchitecture& architecture,
                                           const TargetOptions& options) {
  std::vector<StoredTensor> stored;
  for (const RotaryFactors& factors : rotary_factors(spec)) {
    const auto count = static_cast<int64_t>(factors.values.size());
    stored.push_back(
        {.tensor = {.name = factors.name, .shape = {count}}, .constant = factors.values});
  }
  for (ForeignTensor& tensor : gguf_tensors(spec, table, architecture)) {
    const GgmlType type = type_for(model, tensor, options);
    const GgufValues values = gguf_values(architecture, tensor.name);
    stored.push_back({.tensor = std::move(tensor), .type = type, .values = values});
  }
  return stored;
}

GgmlType prevailing_type(const std::vector<StoredTensor>& tensors) {
  std::map<GgmlType, int64_t> elements;
  for (const StoredTensor& one : tensors) {
    int64_t count = 1;
    for (const int64_t size : one.tensor.shape) count *= size;
    elements[one.type] += count;
  }
  return std::ranges::max_element(elements, {}, [](const auto& e) { return e.second; })->first;
}

// Refuses what the file's keys would not tell a reader.
GgufKeys checked_keys(const ModelSpec& spec, const GgufArchitecture& architecture,
                      const std::vector<StoredTensor>& tensors) {
  std::unordered_map<std::string_view, const StoredTensor*> places;
  for (const StoredTensor& one : tensors) places.emplace(one.tensor.name, &one);
  const ModelSpec told = as_gguf_tells(spec, architecture);
  GgufKeys keys = keys_of_spec(told, architecture);
  check_tellable(told, architecture,
                 {.keys = keys,
                  .has = [&](const std::string& name) { return places.contains(name); },
                  .floats = [&](const std::string& name) { return places.at(name)->constant; },
                  .rows =
                      [&](const std::string& name) {
                        const auto place = places.find(name);
                        return place == places.end() ? 0 : place->second->tensor.shape.at(0);
                      }});
  return keys;
}

void report_lost(const ModelSpec& spec, const GgufArchitecture& architecture) {
  if (spec.sliding_window && !architecture.window_period) {
    log::warn("convert",
              "GGUF's {} knows no window: programs that run the file see all positions instead of "
              "the last {}",
              architecture.name, *spec.sliding_window);
  }
  if (spec.mtp.num_layers > 0 && !architecture.heads_ahead) {
    log::warn("convert",
              "GGUF's {} has no place for multi-token prediction: its layers are left out",
              architecture.name);
  }
}

formats::GgufMetadata metadata_of(const GgufKeys& keys, const std::string& name, GgmlType type) {
  formats::GgufMetadata metadata{{"general.architecture", *keys.text("general.architecture")},
                                 {"general.type", std::string("model")},
                                 {"general.name", name},
                                 {"general.file_type", kFileTypes.at(type)},
                                 {"general.quantization_version", kQuantizationVersion}};
  for (const auto& [key, value] : keys.values()) {
    if (key != "general.architecture") metadata.emplace_back(key, value);
  }
  return metadata;
}

}  // namespace

void write_gguf(const ModelSource& model, const std::filesystem::path& target,
                const TargetOptions& options, const ProgressFunction& progress) {
  const GgufArchitecture& architecture = gguf_architecture_of(model.spec);
  report_lost(model.spec, architecture);
  ModelSpec spec = model.spec;
  if (!architecture.heads_ahead) spec.mtp.num_layers = 0;  // the end of the table
  const Table table = model::parameter_table(spec);
  const auto stored = tensors_to_store(model, spec, table, architecture, options);
  GgufKeys keys = checked_keys(spec, architecture, stored);
  keys.set(kConfigKey, model::to_hugging_face(spec, "float32").dump());
  uint64_t total = 0, done = 0;
  std::vector<formats::GgufTensorToWrite> tensors;
  std::vector<ForeignTensor> foreign;
  std::unordered_map<std::string_view, const StoredTensor*> places;
  for (const StoredTensor& one : stored) {
    tensors.push_back({one.tensor.name, one.tensor.shape, one.type});
    foreign.push_back(one.tensor);
    places.emplace(one.tensor.name, &one);
    total += formats::TensorSpec{"", written_dtype(one.type), one.tensor.shape}.num_bytes();
  }
  check_cover(table, foreign, target.string());
  refuse_existing(target);
  const auto produce = [&](const formats::TensorSpec& tensor, const formats::ByteSink& sink) {
    sink(bytes_to_write(*model.reader, *places.at(tensor.name)));
    done += tensor.num_bytes();
    if (progress) progress(done, total);
  };
  formats::GgufMetadata metadata =
      metadata_of(keys, target.stem().string(), prevailing_type(stored));
  if (auto exact = exact_values(*model.reader, stored); !exact.empty()) {
    metadata.emplace_back(kExactKey, std::move(exact));
  }
  formats::write_gguf(target, metadata, tensors, produce);
}

}  // namespace qianli::convert
