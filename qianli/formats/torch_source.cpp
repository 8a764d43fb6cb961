// Trees of torch.save as a TensorSource.
#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/json.h"
#include "qianli/formats/reject.h"
#include "qianli/formats/shard_index.h"
#include "qianli/formats/torch_file.h"

namespace qianli::formats {
namespace {

class TorchSource : public TensorSource {
 public:
  explicit TorchSource(std::string source) : TensorSource(std::move(source)) {}

  // Adds what `wanted` says yes to; all where it is empty.
  void collect(std::shared_ptr<const TorchFile> file, const Value& tree,
               const std::function<bool(const std::string&)>& wanted = {}) {
    files_.push_back(std::move(file));
    collect(tree, "", wanted);
  }

 private:
  struct Placed {
    const TorchFile* file;
    const StoredTensor* tensor;
  };

  void collect(const Value& value, const std::string& name,
               const std::function<bool(const std::string&)>& wanted) {
    const auto below = [&](const std::string& key) {
      return name.empty() ? key : name + "." + key;
    };
    if (const StoredTensor* tensor = value.as_tensor()) {
      if (wanted && !wanted(name)) return;
      add({name, tensor->dtype, tensor->shape});
      placed_.push_back({files_.back().get(), tensor});
    } else if (const Entries* entries = attributes(value)) {
      for (const auto& [key, item] : *entries) {
        if (key.as_text()) collect(item, below(*key.as_text()), wanted);
        if (key.as_int()) collect(item, below(std::to_string(*key.as_int())), wanted);
      }
    } else if (const Values* items = value.items()) {
      for (size_t i = 0; i < items->size(); ++i) {
        collect((*items)[i], below(std::to_string(i)), wanted);
      }
    }
  }

  static const Entries* attributes(const Value& value) {
    const Object* object = value.as_object();
    return object ? object->state.entries() : value.entries();
  }

  std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const override {
    return placed_[index].file->view(*placed_[index].tensor);
  }
  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    placed_[index].file->copy_rows(*placed_[index].tensor, first, count, out);
  }

  std::vector<std::shared_ptr<const TorchFile>> files_;
  std::vector<Placed> placed_;
};

}  // namespace

std::unique_ptr<TensorSource> open_torch_source(std::shared_ptr<const TorchFile> file,
                                                const Value& tree) {
  auto source = std::make_unique<TorchSource>(file->source());
  source->collect(file, tree);
  return source;
}

std::unique_ptr<TensorSource> open_torch_folder(const fs::path& folder) {
  const fs::path single = folder / "pytorch_model.bin";
  if (fs::exists(single)) {
    auto file = TorchFile::open(single);
    return open_torch_source(file, file->root());
  }
  const fs::path index = folder / "pytorch_model.bin.index.json";
  const auto weights = read_weight_map(index, FileRole::kCheckpoint);
  std::set<std::string> shards;
  for (const auto& [tensor, file] : weights) shards.insert(file);
  auto source = std::make_unique<TorchSource>(folder.string());
  for (const std::string& shard : shards) {
    auto file = TorchFile::open(folder / shard);
    const Value& root = file->root();
    source->collect(file, root, [&](const std::string& tensor) {
      const auto named = weights.find(tensor);
      return named != weights.end() && named->second == shard;
    });
  }
  for (const auto& [tensor, file] : weights) {
    if (source->find(tensor)) continue;
    reject(FileRole::kCheckpoint, index.string(),
           fmt::format("tensor {} is not in {} as the index says", shown_name(tensor), file));
  }
  return source;
}

}  // namespace qianli::formats
