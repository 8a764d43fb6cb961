#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <unordered_map>

#include "qianli/base/error.h"
#include "qianli/convert/gguf/reader.h"
#include "qianli/convert/gguf/spec.h"
#include "qianli/convert/gguf/stored.h"
#include "qianli/convert/gguf/tensors.h"
#include "qianli/convert/gguf/tokenizer.h"
#include "qianli/formats/number_formats.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using formats::TensorSource;
using formats::TensorSpec;
using model::ModelSpec;

constexpr int64_t kMaxFactors = 65536;

std::vector<float> small_vector(const TensorSource& source, const std::string& name) {
  const TensorSpec& spec = source.at(name);
  if (spec.num_elements() > kMaxFactors) {
    throw CheckpointError(
        "convert", fmt::format("{}: expected {} of at most {} elements, got {}", source.source(),
                               name, kMaxFactors, spec.num_elements()));
  }
  std::vector<std::byte> bytes(spec.num_bytes());
  source.read(spec, bytes);
  std::vector<float> numbers(static_cast<size_t>(spec.num_elements()));
  formats::to_float32(spec.dtype, bytes, numbers);
  return numbers;
}

std::vector<int64_t> without_ones(std::vector<int64_t> shape) {
  std::erase(shape, 1);
  return shape;
}

// Axes of one element come and go between versions of llama.cpp.
void take_shapes(const TensorSource& source, std::vector<ForeignTensor>& tensors) {
  for (ForeignTensor& tensor : tensors) {
    const TensorSpec* found = source.find(tensor.name);
    if (found && without_ones(found->shape) == without_ones(tensor.shape)) {
      tensor.shape = found->shape;
    }
  }
}

void name_factors(const TensorSource& source, std::vector<ForeignTensor>& tensors) {
  for (const char* name :
       {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}) {
    if (const TensorSpec* found = source.find(name)) {
      tensors.push_back({.name = name, .shape = found->shape});
    }
  }
}

// Heads further ahead may bring the embedding and output layer once more.
void name_copies(const TensorSource& source, const ModelSpec& spec, const Table& table,
                 std::vector<ForeignTensor>& tensors) {
  for (int64_t j = 0; j < spec.mtp.num_layers; ++j) {
    for (const char* name : {"nextn.embed_tokens.weight", "nextn.shared_head_head.weight"}) {
      const std::string full = fmt::format("blk.{}.{}", spec.num_layers + j, name);
      const TensorSpec* found = source.find(full);
      if (found && found->shape == table.front().shape) {
        tensors.push_back({.name = full, .shape = found->shape, .copy = true});
      }
    }
  }
}

std::unordered_map<std::string, formats::GgmlType> types_of(const fs::path& path) {
  std::unordered_map<std::string, formats::GgmlType> types;
  const auto file = formats::GgufFile::open(path);
  for (const formats::GgufTensor& tensor : file->tensors()) {
    types.emplace(tensor.spec.name, tensor.type);
  }
  return types;
}

// `source` as it is after it went through the file at `path`.
std::unique_ptr<ModelSource> stored_like(const fs::path& path, const ModelSource& source) {
  const GgufArchitecture& architecture = gguf_architecture_of(source.spec);
  auto model = std::make_unique<ModelSource>();
  model->kind = source.kind;
  model->spec = source.spec;
  if (!architecture.heads_ahead) model->spec.mtp.num_layers = 0;
  model->table = model::parameter_table(model->spec);
  const auto types = types_of(path);
  const auto has = [&](const std::string& name) { return types.contains(name); };
  auto tensors = gguf_tensors(model->spec, model->table, architecture, has);
  std::vector<StoredTensor> stored;
  for (const ForeignTensor& tensor : tensors) {
    if (!has(tensor.name)) continue;  // told when the file is opened
    stored.push_back({.tensor = tensor,
                      .type = types.at(tensor.name),
                      .values = gguf_values(architecture, tensor.name)});
  }
  std::shared_ptr<const TensorSource> after = after_storing(*source.reader, std::move(stored));
  model->reader = std::make_unique<ParameterReader>(model->table, std::move(tensors),
                                                    std::vector{after}, path.string());
  return model;
}

}  // namespace

bool is_gguf(const fs::path& path) {
  if (!fs::is_regular_file(path)) return false;
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  return std::memcmp(magic, "GGUF", sizeof magic) == 0;
}

std::unique_ptr<ModelSource> open_gguf(const fs::path& path, const SourceOptions&) {
  const auto file = formats::GgufFile::open(path);
  const GgufKeys keys(file->metadata(), path.string());
  std::unique_ptr<TensorSource> source = formats::open_gguf_source(path);
  const auto has = [&](const std::string& name) { return source->find(name) != nullptr; };
  auto model = std::make_unique<ModelSource>();
  model->kind = "GGUF file";
  model->spec = read_gguf_spec(
      {.keys = keys,
       .has = has,
       .floats = [&](const std::string& name) { return small_vector(*source, name); },
       .rows =
           [&](const std::string& name) {
             const TensorSpec* spec = source->find(name);
             return spec ? formats::num_rows(*spec) : 0;
           }});
  model->table = model::parameter_table(model->spec);
  const GgufArchitecture& architecture = gguf_architecture_of(model->spec);
  auto tensors = gguf_tensors(model->spec, model->table, architecture, has);
  take_shapes(*source, tensors);
  name_factors(*source, tensors);
  name_copies(*source, model->spec, model->table, tensors);
  const auto exact = file->numbers(kExactKey).value_or(std::vector<double>());
  std::shared_ptr<const TensorSource> parameters =
      as_parameters(std::move(source), architecture, {exact.begin(), exact.end()});
  model->reader = std::make_unique<ParameterReader>(model->table, std::move(tensors),
                                                    std::vector{parameters}, path.string());
  model->companion_files = tokenizer_files(*file);
  model->after_storing = [path](const ModelSource& before) { return stored_like(path, before); };
  return model;
}

}  // namespace qianli::convert
