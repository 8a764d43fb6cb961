// Which container stands at a path: told by its first bytes, not by its name.
#include <fmt/core.h>

#include <algorithm>
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

constexpr std::string_view kStems[] = {"model", "adapter_model", "diffusion_pytorch_model"};

bool holds_torch_files(const fs::path& folder) {
  return fs::exists(folder / "pytorch_model.bin") ||
         fs::exists(folder / "pytorch_model.bin.index.json");
}

std::unique_ptr<TensorSource> open_folder(const fs::path& folder) {
  if (DistributedCheckpoint::exists(folder)) {
    return open_distributed_source(DistributedCheckpoint::open(folder));
  }
  for (const std::string_view stem : kStems) {
    if (SafetensorsFolder::exists(folder, stem)) return open_safetensors_folder(folder, stem);
  }
  if (holds_torch_files(folder)) return open_torch_folder(folder);
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

bool is_torch_file(const std::string& front) {
  return front.starts_with("PK\3\4") || front.starts_with("\x80\x02");
}

// A header may begin with the same byte as MindSpore's message; its ninth byte is always this.
bool is_safetensors(const std::string& front) { return front.size() > 8 && front[8] == '{'; }

}  // namespace

bool is_tensor_source(const fs::path& path) {
  if (fs::is_directory(path)) {
    return DistributedCheckpoint::exists(path) || holds_torch_files(path) ||
           std::ranges::any_of(kStems, [&](std::string_view stem) {
             return SafetensorsFolder::exists(path, stem);
           });
  }
  const std::string front = fs::is_regular_file(path) ? first_bytes(path) : std::string();
  return is_torch_file(front) || front.starts_with("GGUF") || is_safetensors(front) ||
         path.extension() == ".ckpt";
}

std::unique_ptr<TensorSource> open_tensor_source(const fs::path& path) {
  if (fs::is_directory(path)) return open_folder(path);
  const std::string front = first_bytes(path);
  if (is_torch_file(front)) {
    auto file = TorchFile::open(path);
    const Value& root = file->root();
    return open_torch_source(std::move(file), root);
  }
  if (front.starts_with("GGUF")) return open_gguf_source(path);
  const bool is_message = front.starts_with('\n') || path.extension() == ".ckpt";
  if (is_message && !is_safetensors(front)) return open_mindspore_source(path);
  return open_safetensors_file(path);
}

}  // namespace qianli::formats
