#include "qianli/formats/distributed_checkpoint.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

constexpr uint64_t kMaxMetadataBytes = uint64_t{4} << 30;

// Copies a box, row-major, into a larger one. Both begin at their first element; `into` is where
// the box lies in the larger one.
class BoxCopy {
 public:
  BoxCopy(const std::vector<int64_t>& box, const std::vector<int64_t>& outer,
          const std::vector<int64_t>& into, uint64_t element_bytes)
      : box_(box), outer_(outer), into_(into), element_bytes_(element_bytes) {
    // Axes from here on lie alike in both: they are one run.
    run_axis_ = box.size();
    while (run_axis_ > 0 && (run_axis_ == box.size() || box[run_axis_] == outer[run_axis_])) {
      --run_axis_;
    }
    run_bytes_ = element_bytes;
    for (size_t axis = run_axis_; axis < box.size(); ++axis) {
      run_bytes_ *= static_cast<uint64_t>(box[axis]);
    }
  }

  void copy(const std::byte* from, std::byte* to) {
    from_ = from;
    copy_axis(0, 0, to);
  }

 private:
  void copy_axis(size_t axis, int64_t place, std::byte* to) {
    if (axis == run_axis_) {
      for (size_t rest = axis; rest < box_.size(); ++rest)
        place = place * outer_[rest] + into_[rest];
      std::memcpy(to + static_cast<uint64_t>(place) * element_bytes_, from_, run_bytes_);
      from_ += run_bytes_;
      return;
    }
    for (int64_t i = 0; i < box_[axis]; ++i) {
      copy_axis(axis + 1, place * outer_[axis] + into_[axis] + i, to);
    }
  }

  const std::vector<int64_t>&box_, &outer_, &into_;
  uint64_t element_bytes_;
  size_t run_axis_;
  uint64_t run_bytes_;
  const std::byte* from_ = nullptr;
};

class DistributedSource : public TensorSource {
 public:
  explicit DistributedSource(std::shared_ptr<const DistributedCheckpoint> checkpoint)
      : TensorSource(checkpoint->folder().string()), checkpoint_(std::move(checkpoint)) {
    for (const DistributedTensor& tensor : checkpoint_->metadata().tensors) add(tensor.spec);
  }

 private:
  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    const DistributedTensor& tensor = checkpoint_->metadata().tensors[index];
    for (const DistributedChunk& chunk : tensor.chunks) {
      const bool scalar = chunk.sizes.empty();
      const int64_t begin = scalar ? 0 : std::max(first, chunk.offsets[0]);
      const int64_t end = scalar ? 1 : std::min(first + count, chunk.offsets[0] + chunk.sizes[0]);
      if (begin < end) copy_chunk_rows(tensor, chunk, begin, end, first, count, out);
    }
  }

  // Rows [begin, end) of the tensor, as far as the chunk has them, into `out`, whose first row is
  // `first`.
  void copy_chunk_rows(const DistributedTensor& tensor, const DistributedChunk& chunk,
                       int64_t begin, int64_t end, int64_t first, int64_t count,
                       std::span<std::byte> out) const {
    const auto file = checkpoint_->chunk(tensor, chunk);
    const StoredTensor& stored = *file->root().as_tensor();
    std::vector<int64_t> box = chunk.sizes, outer = tensor.spec.shape, into = chunk.offsets;
    int64_t first_in_chunk = 0;
    if (!box.empty()) {
      first_in_chunk = begin - chunk.offsets[0];
      box[0] = end - begin;
      outer[0] = count;
      into[0] = begin - first;
    }
    const uint64_t bytes = byte_size(tensor.spec.dtype, box).value();
    std::vector<std::byte> copied;
    const std::byte* from = nullptr;
    if (const auto whole = file->view(stored)) {
      const uint64_t skipped = box.empty() ? 0 : bytes / static_cast<uint64_t>(box[0]);
      from = whole->data() + skipped * static_cast<uint64_t>(first_in_chunk);
    } else {
      copied.resize(bytes);
      file->copy_rows(stored, first_in_chunk, end - begin, copied);
      from = copied.data();
    }
    const auto element = static_cast<uint64_t>(bit_size(tensor.spec.dtype)) / 8;
    BoxCopy(box, outer, into, element).copy(from, out.data());
  }

  std::shared_ptr<const DistributedCheckpoint> checkpoint_;
};

}  // namespace

bool DistributedCheckpoint::exists(const fs::path& folder) {
  return fs::exists(folder / ".metadata");
}

std::shared_ptr<const DistributedCheckpoint> DistributedCheckpoint::open(const fs::path& folder,
                                                                         FileRole role) {
  std::shared_ptr<DistributedCheckpoint> checkpoint(new DistributedCheckpoint(folder, role));
  const fs::path path = folder / ".metadata";
  const std::string bytes = read_file(path, role, kMaxMetadataBytes);
  checkpoint->metadata_ = parse_distributed_metadata(
      std::as_bytes(std::span(bytes.data(), bytes.size())), path.string(), role);
  for (const DistributedTensor& tensor : checkpoint->metadata_.tensors) {
    for (const DistributedChunk& chunk : tensor.chunks) {
      checkpoint->check_place(tensor.spec.name, chunk.place);
    }
  }
  for (const auto& [name, place] : checkpoint->metadata_.objects) {
    checkpoint->check_place(name, place);
  }
  return checkpoint;
}

void DistributedCheckpoint::check_place(const std::string& name, const DistributedPlace& place) {
  auto& file = files_[place.file];
  if (!file) file = MappedFile::open(folder_ / place.file, role_);
  if (place.offset <= file->size() && place.num_bytes <= file->size() - place.offset) return;
  reject(role_, file->path().string(),
         fmt::format("truncated: {} needs {} bytes at {}, the file has {}", shown_name(name),
                     place.num_bytes, place.offset, file->size()));
}

std::span<const std::byte> DistributedCheckpoint::bytes_at(const DistributedPlace& place) const {
  return files_.at(place.file)->bytes().subspan(place.offset, place.num_bytes);
}

std::shared_ptr<const TorchFile> DistributedCheckpoint::object(const std::string& name) const {
  const auto found = metadata_.objects.find(name);
  if (found == metadata_.objects.end()) {
    reject(role_, folder_.string(), fmt::format("expected {}, found none", shown_name(name)));
  }
  const DistributedPlace& place = found->second;
  return TorchFile::parse(bytes_at(place),
                          fmt::format("{}: {}", (folder_ / place.file).string(), name), role_);
}

std::shared_ptr<const TorchFile> DistributedCheckpoint::chunk(const DistributedTensor& tensor,
                                                              const DistributedChunk& chunk) const {
  const std::string source = fmt::format("{}: {} at {}", (folder_ / chunk.place.file).string(),
                                         tensor.spec.name, shape_text(chunk.offsets));
  auto file = TorchFile::parse(bytes_at(chunk.place), source, role_);
  const StoredTensor* stored = file->root().as_tensor();
  if (!stored || stored->dtype != tensor.spec.dtype || stored->shape != chunk.sizes) {
    reject(role_, source,
           fmt::format("expected a tensor {} {}, got {}", dtype_name(tensor.spec.dtype),
                       shape_text(chunk.sizes), file->root().shown()));
  }
  return file;
}

std::unique_ptr<TensorSource> open_distributed_source(
    std::shared_ptr<const DistributedCheckpoint> checkpoint) {
  return std::make_unique<DistributedSource>(std::move(checkpoint));
}

}  // namespace qianli::formats
