#include "qianli/formats/checkpoint_source.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "qianli/formats/hashed_file.h"
#include "qianli/formats/reject.h"
#include "qianli/formats/safetensors.h"

namespace qianli::formats {
namespace {

// A box of a tensor, and its bytes in a mapped file.
struct Box {
  const TensorSlice* slice;
  std::span<const std::byte> bytes;
};

// Bytes from one index to the next along each axis.
std::vector<int64_t> strides_of(std::span<const int64_t> shape, Dtype dtype) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = bit_size(dtype) / 8;
  for (size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
  return strides;
}

// A box of `shape` from where it has one set of strides to where it has another.
void copy_strided(std::span<const int64_t> shape, const std::byte* from,
                  std::span<const int64_t> from_strides, std::byte* to,
                  std::span<const int64_t> to_strides) {
  if (from_strides[0] == to_strides[0]) {  // then all axes behind this one are whole in both
    std::memcpy(to, from, static_cast<size_t>(shape[0] * from_strides[0]));
    return;
  }
  for (int64_t i = 0; i < shape[0]; ++i) {
    copy_strided(shape.subspan(1), from + i * from_strides[0], from_strides.subspan(1),
                 to + i * to_strides[0], to_strides.subspan(1));
  }
}

// Copies the box's part of rows [first, first + count) of `tensor` to its place in `out`, which
// holds these rows.
void copy_box(const TensorSpec& tensor, const Box& box, int64_t first, int64_t count,
              std::span<std::byte> out) {
  std::vector<int64_t> shape = box.slice->shape;
  const std::vector<int64_t>& offset = box.slice->offset;
  const int64_t begin = std::max(first, offset[0]);
  const int64_t end = std::min(first + count, offset[0] + shape[0]);
  if (begin >= end) return;
  const auto from_strides = strides_of(shape, tensor.dtype);
  const auto to_strides = strides_of(tensor.shape, tensor.dtype);
  std::byte* to = out.data() + (begin - first) * to_strides[0];
  for (size_t axis = 1; axis < shape.size(); ++axis) to += offset[axis] * to_strides[axis];
  shape[0] = end - begin;
  copy_strided(shape, box.bytes.data() + (begin - offset[0]) * from_strides[0], from_strides, to,
               to_strides);
}

class CheckpointSource : public TensorSource {
 public:
  CheckpointSource(const fs::path& folder, const Manifest& manifest,
                   const std::vector<TensorKind>& kinds)
      : TensorSource(folder.string()), folder_(folder) {
    for (const TensorRecord& tensor : manifest.tensors) {
      if (std::ranges::find(kinds, tensor.kind) != kinds.end()) records_.push_back(tensor);
    }
    for (const TensorRecord& tensor : records_) {
      add({state_name(tensor.kind, tensor.name), tensor.dtype, tensor.shape});
      boxes_.push_back(boxes_of(tensor));
    }
  }

 private:
  std::vector<Box> boxes_of(const TensorRecord& tensor) {
    std::vector<Box> boxes;
    for (const TensorSlice& slice : tensor.slices) {
      const TensorEntry& entry = file(slice.file).at(slice.key);
      if (entry.dtype != tensor.dtype || entry.shape != slice.shape) {
        reject(
            FileRole::kCheckpoint, source(),
            fmt::format("tensor {} ({}): the manifest says {} {} for {} in {}, which holds {} {}",
                        shown_name(tensor.name), kind_name(tensor.kind), dtype_name(tensor.dtype),
                        shape_text(slice.shape), shown_name(slice.key), slice.file,
                        dtype_name(entry.dtype), shape_text(entry.shape)));
      }
      boxes.push_back({&slice, entry.bytes});
    }
    return boxes;
  }

  const SafetensorsFile& file(const std::string& name) {
    auto place = files_.find(name);
    if (place == files_.end())
      place = files_.emplace(name, SafetensorsFile::open(folder_ / name)).first;
    return place->second;
  }

  std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const override {
    if (boxes_[index].size() != 1) return std::nullopt;
    return boxes_[index].front().bytes;
  }

  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    if (boxes_[index].size() == 1) return TensorSource::copy_rows(index, first, count, out);
    for (const Box& box : boxes_[index]) copy_box(tensors()[index], box, first, count, out);
  }

  fs::path folder_;
  std::vector<TensorRecord> records_;
  std::vector<std::vector<Box>> boxes_;  // of each record; refer to it
  std::map<std::string, SafetensorsFile> files_;
};

// All files but those that hold nothing but tensors of other kinds.
std::vector<FileRecord> files_to_verify(const Manifest& manifest,
                                        const std::vector<TensorKind>& kinds) {
  std::set<std::string> needed, others;
  for (const TensorRecord& tensor : manifest.tensors) {
    const bool wanted = std::ranges::find(kinds, tensor.kind) != kinds.end();
    for (const TensorSlice& slice : tensor.slices) (wanted ? needed : others).insert(slice.file);
  }
  std::vector<FileRecord> files;
  for (const FileRecord& file : manifest.files) {
    if (needed.contains(file.name) || !others.contains(file.name)) files.push_back(file);
  }
  return files;
}

}  // namespace

std::string state_name(TensorKind kind, const std::string& name) {
  return kind == TensorKind::kWeight ? name : fmt::format("{}.{}", kind_name(kind), name);
}

std::unique_ptr<TensorSource> open_checkpoint_source(const fs::path& step_folder,
                                                     const Manifest& manifest,
                                                     const std::vector<TensorKind>& kinds) {
  expect_complete(step_folder, manifest);
  verify_files(step_folder, files_to_verify(manifest, kinds));
  return std::make_unique<CheckpointSource>(step_folder, manifest, kinds);
}

}  // namespace qianli::formats
