#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "qianli/base/log.h"
#include "qianli/formats/mindspore_checkpoint.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

class MindsporeSource : public TensorSource {
 public:
  explicit MindsporeSource(const fs::path& path)
      : TensorSource(path.string()), map_(MappedFile::open(path, FileRole::kCheckpoint)) {
    MindsporeContents contents = parse_mindspore(map_->bytes(), source(), FileRole::kCheckpoint);
    for (MindsporeTensor& tensor : contents.tensors) {
      add(std::move(tensor.spec));
      pieces_.push_back(std::move(tensor.pieces));
    }
    if (!contents.hash_tables.empty()) {
      log::warn("mindspore", "{}: {} hash tables are left out, {} first", source(),
                contents.hash_tables.size(), shown_name(contents.hash_tables.front()));
    }
  }

 private:
  std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const override {
    if (pieces_[index].size() != 1) return std::nullopt;
    return pieces_[index].front();
  }

  void copy_rows(size_t index, int64_t first, int64_t, std::span<std::byte> out) const override {
    uint64_t skip = first == 0 ? 0 : row_bytes(tensors()[index]) * static_cast<uint64_t>(first);
    for (const auto& piece : pieces_[index]) {
      const uint64_t begin = std::min<uint64_t>(skip, piece.size());
      const uint64_t taken = std::min<uint64_t>(piece.size() - begin, out.size());
      if (taken > 0) std::memcpy(out.data(), piece.data() + begin, taken);
      out = out.subspan(taken);
      skip -= begin;
    }
  }

  std::shared_ptr<const MappedFile> map_;
  std::vector<std::vector<std::span<const std::byte>>> pieces_;
};

}  // namespace

std::unique_ptr<TensorSource> open_mindspore_source(const fs::path& path) {
  return std::make_unique<MindsporeSource>(path);
}

}  // namespace qianli::formats
