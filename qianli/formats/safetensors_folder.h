// A model's weights in a folder, as Hugging Face lays them: model.safetensors, or
// model.safetensors.index.json with shards model-00001-of-0000N.safetensors.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "qianli/formats/safetensors.h"

namespace qianli::formats {

class SafetensorsFolder {
 public:
  // `stem` is "model", "adapter_model", "diffusion_pytorch_model", ... A single file wins over an
  // index, as in transformers. Refuses an index whose file names leave the folder, whose tensors
  // are not where it says, or stand in two shards. Tensors that the index does not name are not
  // seen.
  static SafetensorsFolder open(const fs::path& folder, std::string_view stem = "model",
                                FileRole role = FileRole::kCheckpoint);
  // True where open() would find a file to read.
  static bool exists(const fs::path& folder, std::string_view stem = "model");

  const std::vector<SafetensorsFile>& files() const { return files_; }
  // All tensors, file after file.
  const std::vector<const TensorEntry*>& entries() const { return entries_; }
  const TensorEntry* find(std::string_view name) const;
  // Throws where there is no such tensor.
  const TensorEntry& at(std::string_view name) const;

 private:
  SafetensorsFolder() = default;
  void open_shards(const fs::path& index);
  void add(const TensorEntry& entry);

  fs::path folder_;
  FileRole role_ = FileRole::kCheckpoint;
  std::vector<SafetensorsFile> files_;
  std::vector<const TensorEntry*> entries_;
  std::unordered_map<std::string_view, const TensorEntry*> places_;
};

// Tensors of at most `max_bytes` each, in the given order; a larger tensor is a shard of its own.
// At least one shard.
std::vector<std::vector<TensorSpec>> cut_into_shards(const std::vector<TensorSpec>& tensors,
                                                     uint64_t max_bytes);
// "model-00001-of-00003.safetensors" for index 0.
std::string shard_name(std::string_view stem, size_t index, size_t count);

// Writes `tensors` into `folder` in shards of at most `max_shard_bytes` of tensor bytes, filled in
// the given order (a larger tensor gets its own), and the index last. One shard is enough: writes
// <stem>.safetensors without an index. Refuses a folder that already holds such a model, unless
// `step` is given: it is called for each shard, and says how the file grows.
using FileStep =
    std::function<void(const std::string& name, const std::function<void(FileGrowth)>& write)>;
void write_sharded(const fs::path& folder, const std::vector<TensorSpec>& tensors,
                   uint64_t max_shard_bytes, const TensorProducer& produce,
                   std::string_view stem = "model", FileRole role = FileRole::kCheckpoint,
                   const FileStep& step = {});

}  // namespace qianli::formats
