#include "qianli/checkpoint/step_writer.h"

#include <fmt/core.h>

#include <span>
#include <stdexcept>
#include <string_view>
#include <unordered_map>

#include "qianli/base/file.h"
#include "qianli/checkpoint/hashed_file.h"
#include "qianli/checkpoint/manifest.h"
#include "qianli/formats/safetensors.h"
#include "qianli/model/hugging_face.h"

namespace qianli::checkpoint {
namespace {

// Hashed while it is in the cache, then written in one call.
constexpr size_t kChunkBytes = size_t{4} << 20;

struct Stored {
  TensorKind kind;
  const StepContents::Place* place;
  formats::TensorEntry entry;  // under its key in the file
};

formats::Dtype dtype_of(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat) return formats::Dtype::kF32;
  if (tensor.scalar_type() == at::kDouble) return formats::Dtype::kF64;
  throw std::logic_error("checkpoints keep float32 or float64");
}

Stored stored(TensorKind kind, const StepContents::Place& place, const at::Tensor& flat) {
  Stored tensor{.kind = kind, .place = &place};
  tensor.entry.name = place.name;
  if (kind != TensorKind::kWeight) {
    tensor.entry.name = fmt::format("{}.{}", kind_name(kind), place.name);
  }
  const at::Tensor& source = place.buffer.defined() ? place.buffer : flat;
  const auto* first = static_cast<const std::byte*>(source.const_data_ptr());
  const auto element = static_cast<size_t>(source.element_size());
  tensor.entry.dtype = dtype_of(source);
  tensor.entry.shape = place.shape;
  tensor.entry.bytes = {first + place.flat.offset * element, place.flat.count * element};
  if (place.buffer.defined()) tensor.entry.bytes = {first, source.nbytes()};
  return tensor;
}

// Consecutive tensors up to `max_bytes`; a larger tensor gets its own shard.
std::vector<std::span<const Stored>> cut_into_shards(std::span<const Stored> tensors,
                                                     uint64_t max_bytes) {
  std::vector<std::span<const Stored>> shards;
  size_t first = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t size = tensors[i].entry.bytes.size();
    if (i > first && (size > max_bytes || bytes > max_bytes - size)) {
      shards.push_back(tensors.subspan(first, i - first));
      first = i;
      bytes = 0;
    }
    bytes += size;
  }
  shards.push_back(tensors.subspan(first));
  return shards;
}

FileRecord write_shard(const fs::path& folder, const std::string& name,
                       std::span<const Stored> tensors) {
  std::vector<formats::TensorSpec> specs;
  std::unordered_map<std::string_view, std::span<const std::byte>> bytes_of;
  for (const Stored& tensor : tensors) {
    specs.push_back(tensor.entry);
    bytes_of.emplace(tensor.entry.name, tensor.entry.bytes);
  }
  formats::SafetensorsWriter writer(folder / name, std::move(specs));
  Hasher hasher;
  hasher.update(writer.header().data(), writer.header().size());
  FileRecord record{.name = name, .bytes = writer.header().size()};
  for (const formats::TensorSpec& spec : writer.tensors()) {
    const auto bytes = bytes_of.at(spec.name);
    for (size_t done = 0; done < bytes.size(); done += kChunkBytes) {
      const auto chunk = bytes.subspan(done, std::min(kChunkBytes, bytes.size() - done));
      hasher.update(chunk.data(), chunk.size());
      writer.write(chunk);
    }
    record.bytes += bytes.size();
  }
  writer.commit();
  record.xxh3 = hasher.digest();
  return record;
}

void write_shards(const fs::path& folder, const char* stem, std::span<const Stored> tensors,
                  int64_t max_bytes, Manifest& manifest) {
  const auto shards = cut_into_shards(tensors, static_cast<uint64_t>(max_bytes));
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name =
        fmt::format("{}-{:05}-of-{:05}.safetensors", stem, i + 1, shards.size());
    manifest.files.push_back(write_shard(folder, name, shards[i]));
    for (const Stored& tensor : shards[i]) {
      manifest.tensors.push_back(
          {.name = tensor.place->name,
           .kind = tensor.kind,
           .dtype = tensor.entry.dtype,
           .shape = tensor.place->shape,
           .slices = {{.file = name,
                       .key = tensor.entry.name,
                       .offset = std::vector<int64_t>(tensor.place->shape.size(), 0),
                       .shape = tensor.place->shape}}});
    }
  }
}

}  // namespace

uint64_t StepContents::num_bytes() const {
  uint64_t bytes = weights.nbytes() + exp_avg.nbytes() + exp_avg_sq.nbytes();
  for (const Place& place : places) bytes += place.buffer.defined() ? place.buffer.nbytes() : 0;
  for (const model::CompanionFile& file : companions) bytes += file.bytes.size();
  return bytes;
}

void write_step(const fs::path& folder, const StepContents& contents) {
  Manifest manifest{.program = QIANLI_VERSION, .state = contents.state};
  const bool wide = contents.weights.scalar_type() == at::kDouble;
  const OrderedJson config = model::to_hugging_face(contents.spec, wide ? "float64" : "float32");
  manifest.model = config;
  manifest.files.push_back(write_hashed(folder, "config.json", config.dump(2) + "\n"));
  for (const model::CompanionFile& file : contents.companions) {
    manifest.files.push_back(write_hashed(folder, file.name, file.bytes));
  }
  std::vector<Stored> weights, states;
  for (const auto& place : contents.places) {
    weights.push_back(stored(TensorKind::kWeight, place, contents.weights));
    if (place.buffer.defined()) continue;
    states.push_back(stored(TensorKind::kExpAvg, place, contents.exp_avg));
    states.push_back(stored(TensorKind::kExpAvgSq, place, contents.exp_avg_sq));
  }
  write_shards(folder, "model", weights, contents.max_shard_bytes, manifest);
  write_shards(folder, "optimizer", states, contents.max_shard_bytes, manifest);
  write_file_atomically(folder / kManifestName, to_json(manifest), FileRole::kCheckpoint);
}

}  // namespace qianli::checkpoint
