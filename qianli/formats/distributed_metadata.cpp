#include <fmt/core.h>

#include <algorithm>
#include <set>
#include <unordered_map>

#include "qianli/formats/distributed_checkpoint.h"
#include "qianli/formats/reject.h"
#include "qianli/formats/shard_index.h"

namespace qianli::formats {
namespace {

constexpr size_t kMaxDimensions = 64;
constexpr uint64_t kMaxComparisons = uint64_t{1} << 27;  // of chunks of one tensor: a second

int64_t volume(const std::vector<int64_t>& sizes) {
  int64_t product = 1;
  for (const int64_t size : sizes) product *= size;
  return product;
}

bool overlap(const DistributedChunk& a, const DistributedChunk& b) {
  for (size_t axis = 0; axis < a.sizes.size(); ++axis) {
    if (a.offsets[axis] + a.sizes[axis] <= b.offsets[axis] ||
        b.offsets[axis] + b.sizes[axis] <= a.offsets[axis]) {
      return false;
    }
  }
  return true;
}

class MetadataReader {
 public:
  MetadataReader(const Value& root, const std::string& source, FileRole role)
      : root_(root), source_(source), role_(role) {}

  DistributedMetadata read() {
    read_places();
    for (const auto& [name, entry] : entries(root_, "state_dict_metadata")) {
      if (!name.as_text()) refuse("a name in state_dict_metadata is no text");
      if (entry.find("chunks")) {
        read_tensor(*name.as_text(), entry);
      } else if (const DistributedPlace* place = find_place(*name.as_text(), {})) {
        metadata_.objects.emplace(*name.as_text(), *place);
      }
    }
    read_original_shapes();
    return std::move(metadata_);
  }

 private:
  [[noreturn]] void refuse(const std::string& reason, const std::string& hint = {}) const {
    reject(role_, source_, reason, hint);
  }

  const Entries& entries(const Value& value, std::string_view key) const {
    const Value* found = value.find(key);
    if (!found || !found->entries()) {
      refuse(fmt::format("expected a dictionary {}", key),
             "is it the .metadata of a distributed checkpoint?");
    }
    return *found->entries();
  }

  std::vector<int64_t> sizes(const Value& value, std::string_view key) const {
    const Value* found = value.find(key);
    const bool short_enough = found && found->items() && found->items()->size() <= kMaxDimensions;
    const auto integers = short_enough ? found->as_integers() : std::nullopt;
    const bool valid = integers && std::ranges::all_of(*integers, [](int64_t n) { return n >= 0; });
    if (!valid) refuse(fmt::format("expected sizes as {}", key));
    return *integers;
  }

  // A chunk is found by the name of its tensor and where it begins.
  static std::string key_of(const std::string& name, const std::vector<int64_t>& offsets) {
    return fmt::format("{}{}", shape_text(offsets), name);
  }

  void read_places() {
    for (const auto& [index, info] : entries(root_, "storage_data")) {
      const Value* name = index.find("fqn");
      const Value* file = info.find("relative_path");
      const Value* offset = info.find("offset");
      const Value* length = info.find("length");
      if (!name || !name->as_text() || !file || !file->as_text() || !offset || !length ||
          offset->as_int().value_or(-1) < 0 || length->as_int().value_or(-1) < 0) {
        refuse("an entry of storage_data is damaged");
      }
      const Value* transforms = info.find("transform_descriptors");
      if (transforms && !transforms->is_none()) {
        refuse(fmt::format("{} is stored with transforms ({})", shown_name(*name->as_text()),
                           transforms->shown()),
               "save the checkpoint without compression");
      }
      if (!is_plain_name(*file->as_text())) {
        refuse(fmt::format("expected the name of a file in this folder, got {}",
                           shown_name(*file->as_text())));
      }
      const Value* at = index.find("offset");
      const std::vector<int64_t> offsets =
          at && !at->is_none() ? sizes(index, "offset") : std::vector<int64_t>();
      places_.insert_or_assign(
          key_of(*name->as_text(), offsets),
          DistributedPlace{*file->as_text(), static_cast<uint64_t>(*offset->as_int()),
                           static_cast<uint64_t>(*length->as_int())});
    }
  }

  const DistributedPlace* find_place(const std::string& name,
                                     const std::vector<int64_t>& offsets) const {
    const auto place = places_.find(key_of(name, offsets));
    return place == places_.end() ? nullptr : &place->second;
  }

  void read_tensor(const std::string& name, const Value& entry) {
    const auto refuse_tensor = [&](const std::string& reason) {
      refuse(fmt::format("tensor {}: {}", shown_name(name), reason));
    };
    DistributedTensor tensor;
    tensor.spec = {name, dtype(name, entry), sizes(entry, "size")};
    if (!byte_size(tensor.spec.dtype, tensor.spec.shape)) {
      refuse_tensor("the size of its shape overflows");
    }
    const Values* chunks = entry.find("chunks")->items();
    if (!chunks) refuse_tensor("its chunks are no list");
    for (const Value& value : *chunks) {
      DistributedChunk chunk{sizes(value, "offsets"), sizes(value, "sizes"), {}};
      check_within(tensor.spec, chunk);
      if (volume(chunk.sizes) == 0) continue;
      const DistributedPlace* place = find_place(name, chunk.offsets);
      if (!place) {
        refuse_tensor(fmt::format("the chunk at {} is in no file", shape_text(chunk.offsets)));
      }
      chunk.place = *place;
      tensor.chunks.push_back(std::move(chunk));
    }
    check_filled(tensor);
    metadata_.tensors.push_back(std::move(tensor));
  }

  // properties: an object whose state is (dtype, layout, ...), or a dictionary with `dtype`.
  Dtype dtype(const std::string& name, const Value& entry) const {
    const Value* properties = entry.find("properties");
    const Value* type = properties ? properties->find("dtype") : nullptr;
    if (properties && properties->as_object() && !type) {
      const Values* state = properties->as_object()->state.items();
      if (state && !state->empty()) type = &state->front();
    }
    const auto dtype = type ? dtype_of(*type) : std::nullopt;
    if (!dtype) {
      refuse(fmt::format("tensor {}: expected a known dtype, got {}", shown_name(name),
                         type ? type->shown() : "none"));
    }
    return *dtype;
  }

  void check_within(const TensorSpec& spec, const DistributedChunk& chunk) const {
    const size_t axes = spec.shape.size();
    bool within = chunk.offsets.size() == axes && chunk.sizes.size() == axes;
    for (size_t axis = 0; within && axis < axes; ++axis) {
      within = chunk.sizes[axis] <= spec.shape[axis] &&
               chunk.offsets[axis] <= spec.shape[axis] - chunk.sizes[axis];
    }
    if (!within) {
      refuse(fmt::format("tensor {}: a chunk of {} at {} leaves its shape {}",
                         shown_name(spec.name), shape_text(chunk.sizes), shape_text(chunk.offsets),
                         shape_text(spec.shape)));
    }
  }

  void check_filled(DistributedTensor& tensor) const {
    __extension__ __int128 filled = 0;
    for (const DistributedChunk& chunk : tensor.chunks) filled += volume(chunk.sizes);
    check_overlap(tensor);
    if (filled != volume(tensor.spec.shape)) {
      refuse(fmt::format("tensor {}: its chunks hold {} of {} elements",
                         shown_name(tensor.spec.name), static_cast<int64_t>(filled),
                         volume(tensor.spec.shape)));
    }
  }

  // The axis along which most chunks begin at places of their own: sorted by it, few others begin
  // before a chunk ends.
  static size_t sweep_axis(const DistributedTensor& tensor) {
    size_t best = 0, most = 0;
    for (size_t axis = 0; axis < tensor.spec.shape.size(); ++axis) {
      std::set<int64_t> begins;
      for (const DistributedChunk& chunk : tensor.chunks) begins.insert(chunk.offsets[axis]);
      if (begins.size() > most) {
        best = axis;
        most = begins.size();
      }
    }
    return best;
  }

  void check_overlap(DistributedTensor& tensor) const {
    auto& chunks = tensor.chunks;
    const bool scalar = tensor.spec.shape.empty();
    const size_t axis = sweep_axis(tensor);
    std::ranges::sort(chunks, {}, [&](const DistributedChunk& chunk) {
      return scalar ? 0 : chunk.offsets[axis];
    });
    uint64_t comparisons = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      for (size_t k = i + 1; k < chunks.size(); ++k) {
        if (!scalar && chunks[k].offsets[axis] >= chunks[i].offsets[axis] + chunks[i].sizes[axis]) {
          break;
        }
        if (overlap(chunks[i], chunks[k])) {
          refuse(fmt::format("tensor {}: the chunks at {} and {} overlap",
                             shown_name(tensor.spec.name), shape_text(chunks[i].offsets),
                             shape_text(chunks[k].offsets)));
        }
        if (++comparisons > kMaxComparisons) {
          refuse(fmt::format("tensor {}: {} chunks are too many to check",
                             shown_name(tensor.spec.name), chunks.size()));
        }
      }
    }
  }

  void read_original_shapes() {
    const Value* megatron = root_.find("mcore_data");
    if (!megatron || !megatron->entries()) return;
    for (const auto& [name, data] : *megatron->entries()) {
      if (!name.as_text() || !data.find("nd_reformulated_orig_global_shape")) continue;
      metadata_.original_shapes.emplace(*name.as_text(),
                                        sizes(data, "nd_reformulated_orig_global_shape"));
    }
  }

  const Value& root_;
  const std::string& source_;
  FileRole role_;
  DistributedMetadata metadata_;
  std::unordered_map<std::string, DistributedPlace> places_;
};

}  // namespace

DistributedMetadata parse_distributed_metadata(std::span<const std::byte> bytes,
                                               const std::string& source, FileRole role) {
  const Value root = parse_pickle(bytes, source, role).value;
  return MetadataReader(root, source, role).read();
}

}  // namespace qianli::formats
