#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <unordered_map>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/convert/conversion_folder.h"
#include "qianli/convert/gguf/assumptions.h"
#include "qianli/convert/gguf/spec.h"
#include "qianli/convert/gguf/stored.h"
#include "qianli/convert/gguf/tensors.h"
#include "qianli/convert/gguf/tokenizer.h"
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
constexpr const char* kFile = "model.gguf";  // until it has the target's name

GgmlType plain_type(Dtype dtype) {
  if (dtype == Dtype::kF16) return GgmlType::kF16;
  if (dtype == Dtype::kBF16) return GgmlType::kBF16;
  return GgmlType::kF32;
}

GgmlType type_for(const ModelSource& model, const ForeignTensor& tensor,
                  const TargetOptions& options) {
  if (stays_float32(tensor.name, tensor.shape)) return GgmlType::kF32;
  if (options.q8_0) return tensor.shape.back() % 32 == 0 ? GgmlType::kQ8_0 : GgmlType::kF16;
  if (options.dtype) return plain_type(*options.dtype);
  const size_t parameter = tensor.parts.front().parameter;
  return plain_type(model.reader->natural_dtype(parameter));
}

std::vector<StoredTensor> tensors_to_store(const ModelSource& model, const ModelSpec& spec,
                                           const Table& table, const GgufArchitecture& architecture,
                                           const TargetOptions& options) {
  std::vector<StoredTensor> stored;
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

// Refuses what the file's keys and tensors would not tell a reader.
GgufKeys checked_keys(const ModelSpec& spec, const GgufArchitecture& architecture,
                      const std::vector<StoredTensor>& tensors,
                      const std::vector<RotaryFactors>& factors) {
  std::unordered_map<std::string_view, int64_t> rows;
  std::unordered_map<std::string_view, const std::vector<float>*> numbers;
  for (const StoredTensor& one : tensors) rows.emplace(one.tensor.name, one.tensor.shape.at(0));
  for (const RotaryFactors& one : factors) numbers.emplace(one.name, &one.values);
  const ModelSpec told = as_gguf_tells(spec, architecture);
  GgufKeys keys = keys_of_spec(told, architecture);
  check_tellable(
      told, architecture,
      {.keys = keys,
       .has =
           [&](const std::string& name) { return rows.contains(name) || numbers.contains(name); },
       .floats = [&](const std::string& name) { return *numbers.at(name); },
       .rows = [&](const std::string& name) { return rows.contains(name) ? rows.at(name) : 0; }});
  return keys;
}

void refuse_lost_layers(const ModelSpec& spec, const GgufArchitecture& architecture) {
  if (spec.mtp.num_layers == 0 || architecture.heads_ahead) return;
  throw ConfigError(
      "convert",
      fmt::format("GGUF's {} has no place for the {} layers of multi-token prediction",
                  architecture.name, spec.mtp.num_layers),
      "llama.cpp does without them: --drop-mtp leaves them out");
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

// The rotary factors, then the parameters.
class Content {
 public:
  Content(const ModelSource& model, const std::vector<StoredTensor>& stored,
          const std::vector<RotaryFactors>& factors, ProgressFunction progress)
      : stored_(stored),
        factors_(factors),
        targets_(Targets::of_types(model, foreign(stored), dtypes(stored), std::move(progress))) {}

  const std::vector<ForeignTensor>& parameters() const { return targets_.tensors(); }

  std::vector<formats::GgufTensorToWrite> tensors() const {
    std::vector<formats::GgufTensorToWrite> all;
    for (const RotaryFactors& one : factors_) {
      all.push_back({one.name, {static_cast<int64_t>(one.values.size())}, GgmlType::kF32});
    }
    for (const StoredTensor& one : stored_) {
      all.push_back({one.tensor.name, one.tensor.shape, one.type});
    }
    return all;
  }

  std::string identity() const {
    std::string types;
    for (const StoredTensor& one : stored_)
      types += fmt::format("{} ", static_cast<uint32_t>(one.type));
    return targets_.identity(types);
  }

  // In the order of tensors().
  void produce(const formats::ByteSink& sink) {
    const size_t index = next_++;
    if (index < factors_.size()) {
      if (sink) sink(std::as_bytes(std::span(factors_[index].values)));
      return;
    }
    const GgufValues values = stored_[index - factors_.size()].values;
    if (!sink || values == GgufValues::kSame) {
      return targets_.produce(index - factors_.size(), sink);
    }
    targets_.produce(index - factors_.size(),
                     [&](std::span<const std::byte> bytes) { sink_changed(values, bytes, sink); });
  }

 private:
  static std::vector<ForeignTensor> foreign(const std::vector<StoredTensor>& stored) {
    std::vector<ForeignTensor> tensors;
    for (const StoredTensor& one : stored) tensors.push_back(one.tensor);
    return tensors;
  }
  static std::vector<Dtype> dtypes(const std::vector<StoredTensor>& stored) {
    std::vector<Dtype> dtypes;
    for (const StoredTensor& one : stored) dtypes.push_back(written_dtype(one.type));
    return dtypes;
  }
  static void sink_changed(GgufValues values, std::span<const std::byte> bytes,
                           const formats::ByteSink& sink) {
    std::vector<float> numbers(bytes.size() / sizeof(float));
    std::memcpy(numbers.data(), bytes.data(), bytes.size());
    to_stored(values, numbers);
    sink(std::as_bytes(std::span(numbers)));
  }

  const std::vector<StoredTensor>& stored_;
  const std::vector<RotaryFactors>& factors_;
  Targets targets_;
  size_t next_ = 0;
};

}  // namespace

void write_gguf(const ModelSource& model, const std::filesystem::path& target,
                const TargetOptions& options, const ProgressFunction& progress) {
  const GgufArchitecture& architecture = gguf_architecture_of(model.spec);
  if (!options.drop_mtp) refuse_lost_layers(model.spec, architecture);
  ModelSpec spec = model.spec;
  if (!architecture.heads_ahead) spec.mtp.num_layers = 0;  // the end of the table
  const Table table = model::parameter_table(spec);
  const auto stored = tensors_to_store(model, spec, table, architecture, options);
  const auto factors = rotary_factors(spec);
  GgufKeys keys = checked_keys(spec, architecture, stored, factors);
  keys.set(kConfigKey, model::to_hugging_face(spec, "float32").dump());
  Content content(model, stored, factors, progress);
  check_cover(table, content.parameters(), target.string());
  ConversionFolder folder(target, content.identity(), options.journal_step);
  for (const std::string& missed : missed_assumptions(model.spec, architecture)) {
    log::warn("convert", "{}", missed);
  }
  formats::GgufMetadata metadata =
      metadata_of(keys, target.stem().string(), prevailing_type(stored));
  for (auto& [key, value] : tokenizer_metadata(companions_of(model), spec.vocab_size)) {
    metadata.emplace_back(key, std::move(value));
  }
  if (auto exact = exact_values(*model.reader, stored); !exact.empty()) {
    metadata.emplace_back(kExactKey, std::move(exact));
  }
  folder.write(kFile, [&](FileGrowth growth) {
    formats::write_gguf(
        folder.path() / kFile, metadata, content.tensors(),
        [&](const formats::TensorSpec&, const formats::ByteSink& sink) { content.produce(sink); },
        FileRole::kCheckpoint, std::move(growth));
  });
  folder.commit(kFile);
}

}  // namespace qianli::convert
