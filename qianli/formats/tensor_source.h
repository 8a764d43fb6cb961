// Tensors to read, wherever they lie: one face for safetensors, GGUF, torch.save archives,
// MindSpore and distributed checkpoints, so that whoever loads or converts a model need not know
// the container. Nothing is read before it is asked for, and then only the rows asked for.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "qianli/base/file.h"
#include "qianli/formats/tensor.h"

namespace qianli::formats {

// All members may be called by several threads at once. Errors are CheckpointErrors that name file,
// tensor and reason.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  TensorSource(const TensorSource&) = delete;
  TensorSource& operator=(const TensorSource&) = delete;

  // As they are read: shapes in row-major order, and the type in which the elements arrive (a
  // quantised tensor says F32). Names are unique; the order is that of the container.
  const std::vector<TensorSpec>& tensors() const { return tensors_; }
  const TensorSpec* find(std::string_view name) const;
  const TensorSpec& at(std::string_view name) const;  // throws where there is no such tensor
  // The file or folder, as messages name it.
  const std::string& source() const { return source_; }

  // In the members below `tensor` is an element of tensors().

  // How the tensor lies in the file, for people: "BF16", "Q4_K".
  std::string stored_as(const TensorSpec& tensor) const;
  // The type to write the tensor in where no other is asked for: that in which the elements arrive,
  // but BF16 for what is stored in fewer bits.
  Dtype natural_dtype(const TensorSpec& tensor) const;
  // Copies rows [first, first + count) of axis 0 into `out`, which has exactly their size. A scalar
  // is one row.
  void read_rows(const TensorSpec& tensor, int64_t first, int64_t count,
                 std::span<std::byte> out) const;
  void read(const TensorSpec& tensor, std::span<std::byte> out) const;
  // All bytes in place, valid as long as the source; nothing where they have to be put together or
  // computed. They may lie at any address.
  std::optional<std::span<const std::byte>> view(const TensorSpec& tensor) const;

 protected:
  explicit TensorSource(std::string source) : source_(std::move(source)) {}
  // Refuses a second tensor of the same name, and shapes whose size overflows.
  void add(TensorSpec tensor);

  // What a container overrides. `out` has the size of the rows, which are at least one and within
  // the tensor; without an override they are copied from the bytes in place.
  virtual std::string describe(size_t index) const;
  virtual Dtype natural(size_t index) const;
  virtual void copy_rows(size_t index, int64_t first, int64_t count,
                         std::span<std::byte> out) const;
  virtual std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const;

 private:
  size_t index_of(const TensorSpec& tensor) const;

  std::string source_;
  std::vector<TensorSpec> tensors_;
  std::unordered_map<std::string, size_t> places_;
};

// The number of rows along axis 0 (1 for a scalar) and the bytes of one.
int64_t num_rows(const TensorSpec& tensor);
uint64_t row_bytes(const TensorSpec& tensor);

// Hands all bytes of a tensor to `sink` in order, in pieces of about `piece_bytes` (at least one
// row), or as one piece where they lie in place.
void stream(const TensorSource& source, const TensorSpec& tensor, const ByteSink& sink,
            uint64_t piece_bytes = uint64_t{16} << 20);

// Opens whatever stands at `path`, told by its content:
//   a folder  distributed checkpoint (.metadata); safetensors of the stem model, adapter_model or
//             diffusion_pytorch_model, or pytorch_model.bin, each in one file or in shards
//   a file    safetensors; GGUF; torch.save (all tensors in it, see open_torch_source); MindSpore's
//             .ckpt
// Whether open_tensor_source knows what stands at `path`: of a file, by its first bytes.
bool is_tensor_source(const fs::path& path);
std::unique_ptr<TensorSource> open_tensor_source(const fs::path& path);

}  // namespace qianli::formats
