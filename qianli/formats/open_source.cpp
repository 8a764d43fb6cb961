// Which container stands at a path: told by its first bytes, not by its name.
#include <fmt/core.h>

#include <fstream>

#include "qianli/formats/distributed_checkpoint.h"
#include "qianli/formats/gguf.h"
#include "qianli/formats/mindspore_checkpoint.h"
#include "qianli/formats/reject.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/formats/safetensors_source.h"
#include "qianli/formats/torch_file.h"

namespace qianli::formats {
namespace {

std::unique_ptr<TensorSource> open_folder(const fs::path& folder) {
  if (DistributedCheckpoint::exists(folder)) {
    return open_distributed_source(DistributedCheckpoint::open(folder));
  }
  for (const std::string_view stem : {"model", "adapter_model", "diffusion_pytorch_model"}) {
    if (SafetensorsFolder::exists(folder, stem)) return open_safetensors_folder(folder, stem);
  }
  if (fs::exists(folder / "pytorch_model.bin") ||
      fs::exists(folder / "pytorch_model.bin.index.json")) {
    return open_torch_folder(folder);
  }
  reject(FileRole::kCheckpoint, folder.string(),
         "expected model.safetensors, adapter_model.safetensors, pytorch_model.bin, an index of "
         "shards, or the .metadata of a distributed checkpoint, found none");
}

std::string first_bytes(const fs::path& file) {
  std::string front(16, '\0');
  std::ifstream stream(file, std::ios::binary);
  stream.read(front.data(), static_cast<std::streamsize>(front.size()));
  front.resize(static_cast<size_t>(stream.gcount()));
  return front;
}

}  // namespace

std::unique_ptr<TensorSource> open_tensor_source(const fs::path& path) {
  if (fs::is_directory(path)) return open_folder(path);
  const std::string front = first_bytes(path);
  if (front.starts_with("PK\3\4") || front.starts_with("\x80\x02")) {
    auto file = TorchFile::open(path);
    const Value& root = file->root();
    return open_torch_source(std::move(file), root);
  }
  if (front.starts_with("GGUF")) return open_gguf_source(path);
  // A safetensors header may begin with the same byte as a message; its ninth byte is always this.
  const bool is_safetensors = front.size() > 8 && front[8] == '{';
  const bool is_message = front.starts_with('\n') || path.extension() == ".ckpt";
  if (is_message && !is_safetensors) return open_mindspore_source(path);
  return open_safetensors_file(path);
}

}  // namespace qianli::formats
