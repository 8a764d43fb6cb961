#include "qianli/formats/safetensors_folder.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>

#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/formats/reject.h"
#include "qianli/formats/shard_index.h"

namespace qianli::formats {
namespace {

fs::path single_path(const fs::path& folder, std::string_view stem) {
  return folder / fmt::format("{}.safetensors", stem);
}

fs::path index_path(const fs::path& folder, std::string_view stem) {
  return folder / fmt::format("{}.safetensors.index.json", stem);
}

// Refuses what would leave a mixture of two models in the folder.
void check_no_model(const fs::path& folder, std::string_view stem, FileRole role) {
  for (const auto& file : fs::directory_iterator(folder)) {
    const std::string name = file.path().filename().string();
    const bool shard = name.starts_with(fmt::format("{}-", stem)) && name.ends_with(".safetensors");
    if (shard || file.path() == single_path(folder, stem) ||
        file.path() == index_path(folder, stem)) {
      reject(role, folder.string(), fmt::format("the folder holds {} already", shown_name(name)),
             "choose another folder; nothing was overwritten");
    }
  }
}

}  // namespace

std::vector<std::vector<TensorSpec>> cut_into_shards(const std::vector<TensorSpec>& tensors,
                                                     uint64_t max_bytes) {
  std::vector<std::vector<TensorSpec>> shards(1);
  uint64_t filled = 0;
  for (const TensorSpec& tensor : tensors) {
    const uint64_t bytes = tensor.num_bytes();
    if (!shards.back().empty() && (bytes > max_bytes || filled > max_bytes - bytes)) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(tensor);
    filled += bytes;
  }
  return shards;
}

std::string shard_name(std::string_view stem, size_t index, size_t count) {
  return fmt::format("{}-{:05}-of-{:05}.safetensors", stem, index + 1, count);
}

bool SafetensorsFolder::exists(const fs::path& folder, std::string_view stem) {
  return fs::exists(single_path(folder, stem)) || fs::exists(index_path(folder, stem));
}

SafetensorsFolder SafetensorsFolder::open(const fs::path& folder, std::string_view stem,
                                          FileRole role) {
  SafetensorsFolder model;
  model.folder_ = folder;
  model.role_ = role;
  if (fs::exists(single_path(folder, stem))) {
    model.files_.push_back(SafetensorsFile::open(single_path(folder, stem), role));
    for (const TensorEntry& entry : model.files_.front().entries()) model.add(entry);
    return model;
  }
  const fs::path index = index_path(folder, stem);
  if (!fs::exists(index)) {
    reject(
        role, folder.string(),
        fmt::format("expected {0}.safetensors or {0}.safetensors.index.json, found neither", stem));
  }
  model.open_shards(index);
  return model;
}

void SafetensorsFolder::open_shards(const fs::path& index) {
  const auto weights = read_weight_map(index, role_);
  std::set<std::string> shards;
  for (const auto& [tensor, file] : weights) shards.insert(file);
  std::unordered_map<std::string_view, std::string_view> owner;
  for (const std::string& file : shards) {
    files_.push_back(SafetensorsFile::open(folder_ / file, role_));
    for (const TensorEntry& entry : files_.back().entries()) {
      const auto [other, fresh] = owner.emplace(entry.name, file);
      if (!fresh) {
        reject(role_, folder_.string(),
               fmt::format("tensor {} stands in {} and in {}", shown_name(entry.name),
                           other->second, file));
      }
      const auto named = weights.find(entry.name);
      if (named != weights.end() && named->second == file) add(entry);
    }
  }
  for (const auto& [tensor, file] : weights) {
    if (find(tensor) == nullptr) {
      reject(role_, index.string(),
             fmt::format("tensor {} is not in {} as the index says", shown_name(tensor), file));
    }
  }
  if (owner.size() > entries_.size()) {
    log::warn("safetensors", "{}: {} tensors of the shards are not in the index and are left out",
              folder_.string(), owner.size() - entries_.size());
  }
}

void SafetensorsFolder::add(const TensorEntry& entry) {
  entries_.push_back(&entry);
  places_.emplace(entry.name, &entry);
}

const TensorEntry* SafetensorsFolder::find(std::string_view name) const {
  const auto place = places_.find(name);
  return place == places_.end() ? nullptr : place->second;
}

const TensorEntry& SafetensorsFolder::at(std::string_view name) const {
  if (const TensorEntry* entry = find(name)) return *entry;
  reject(role_, folder_.string(),
         fmt::format("expected a tensor {}, found none", shown_name(name)));
}

void write_sharded(const fs::path& folder, const std::vector<TensorSpec>& tensors,
                   uint64_t max_shard_bytes, const TensorProducer& produce, std::string_view stem,
                   FileRole role, const FileStep& step) {
  if (!step) check_no_model(folder, stem, role);
  const auto write = [&](const fs::path& path, const std::vector<TensorSpec>& part) {
    const auto write_it = [&](FileGrowth growth) {
      write_safetensors(path, part, produce, {}, role, std::move(growth));
    };
    step ? step(path.filename(), write_it) : write_it({});
  };
  const auto shards = cut_into_shards(tensors, max_shard_bytes);
  if (shards.size() == 1) return write(single_path(folder, stem), tensors);
  uint64_t total = 0;
  Json weights = Json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    for (const TensorSpec& tensor : shards[i]) {
      if (!weights.emplace(tensor.name, shard_name(stem, i, shards.size())).second) {
        reject(role, folder.string(), fmt::format("two tensors named {}", shown_name(tensor.name)));
      }
      total += tensor.num_bytes();
    }
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    write(folder / shard_name(stem, i, shards.size()), shards[i]);
  }
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weights)}};
  write_file_atomically(index_path(folder, stem), index.dump(2) + "\n", role);
}

}  // namespace qianli::formats
