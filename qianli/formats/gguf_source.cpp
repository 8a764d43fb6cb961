#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "qianli/formats/gguf.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

constexpr int64_t kMaxSplits = 10000;

class GgufSource : public TensorSource {
 public:
  explicit GgufSource(const fs::path& path) : TensorSource(path.string()) {}

  void bring(std::shared_ptr<const GgufFile> file) {
    for (const GgufTensor& tensor : file->tensors()) {
      add(tensor.spec);
      tensors_.push_back(&tensor);
    }
    files_.push_back(std::move(file));
  }

 private:
  std::string describe(size_t index) const override {
    return std::string(ggml_traits(static_cast<uint32_t>(tensors_[index]->type))->name);
  }

  Dtype natural(size_t index) const override {
    return plain_dtype(tensors_[index]->type).value_or(Dtype::kBF16);
  }

  std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const override {
    const GgufTensor& tensor = *tensors_[index];
    return plain_dtype(tensor.type) ? std::optional(tensor.bytes) : std::nullopt;
  }

  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    const GgufTensor& tensor = *tensors_[index];
    if (plain_dtype(tensor.type)) return TensorSource::copy_rows(index, first, count, out);
    if (!can_dequantize(tensor.type)) {
      reject(FileRole::kCheckpoint, source(),
             fmt::format("tensor {}: numbers of type {} are not read", shown_name(tensor.spec.name),
                         describe(index)),
             "convert the model to F16, BF16, Q8_0 or another K type");
    }
    const auto begin = static_cast<uint64_t>(first) * (row_bytes(tensor.spec) / sizeof(float));
    decode(tensor, begin, out);
  }

  // Elements from `begin` on. Blocks are decoded through a buffer on the stack, because the result
  // may lie at any address and a vector's rows may be cut inside a block.
  static void decode(const GgufTensor& tensor, uint64_t begin, std::span<std::byte> out) {
    const GgmlTraits traits = *ggml_traits(static_cast<uint32_t>(tensor.type));
    std::array<float, 2048> piece;  // whole blocks of every size
    const uint64_t count = out.size() / sizeof(float);
    uint64_t block = begin / traits.block_size, skip = begin % traits.block_size;
    for (uint64_t done = 0; done < count;) {
      const uint64_t wanted = (skip + count - done + traits.block_size - 1) / traits.block_size;
      const uint64_t blocks = std::min<uint64_t>(piece.size() / traits.block_size, wanted);
      const auto bytes =
          tensor.bytes.subspan(block * traits.block_bytes, blocks * traits.block_bytes);
      dequantize(tensor.type, bytes, std::span(piece).first(blocks * traits.block_size));
      const uint64_t taken = std::min(blocks * traits.block_size - skip, count - done);
      std::memcpy(out.data() + done * sizeof(float), piece.data() + skip, taken * sizeof(float));
      done += taken;
      block += blocks;
      skip = 0;
    }
  }

  std::vector<std::shared_ptr<const GgufFile>> files_;
  std::vector<const GgufTensor*> tensors_;
};

// NAME-00001-of-00003.gguf -> NAME-00002-of-00003.gguf
fs::path split_path(const fs::path& first, int64_t number, int64_t count) {
  const std::string name = first.filename().string();
  const std::string end = fmt::format("-00001-of-{:05}.gguf", count);
  if (!name.ends_with(end)) {
    reject(FileRole::kCheckpoint, first.string(),
           fmt::format("one file of a model in {} files, expected the first, NAME{}", count, end));
  }
  const std::string stem = name.substr(0, name.size() - end.size());
  return first.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", stem, number, count);
}

}  // namespace

std::unique_ptr<TensorSource> open_gguf_source(const fs::path& path) {
  auto source = std::make_unique<GgufSource>(path);
  auto first = GgufFile::open(path);
  const int64_t count = first->integer("split.count").value_or(1);
  if (count < 0 || count > kMaxSplits) {
    reject(FileRole::kCheckpoint, path.string(), fmt::format("a model in {} files", count));
  }
  source->bring(std::move(first));
  for (int64_t i = 2; i <= count; ++i) source->bring(GgufFile::open(split_path(path, i, count)));
  return source;
}

}  // namespace qianli::formats
