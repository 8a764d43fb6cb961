// Which container stands at a path: told by its first bytes, not by its name.
#include <fmt/core.h>

#include <fstream>

#include "qianli/formats/reject.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/formats/safetensors_source.h"
#include "qianli/formats/torch_file.h"

namespace qianli::formats {
namespace {

std::unique_ptr<TensorSource> open_folder(const fs::path& folder) {
  for (const std::string_view stem : {"model", "adapter_model", "diffusion_pytorch_model"}) {
    if (SafetensorsFolder::exists(folder, stem)) return open_safetensors_folder(folder, stem);
  }
  if (fs::exists(folder / "pytorch_model.bin") ||
      fs::exists(folder / "pytorch_model.bin.index.json")) {
    return open_torch_folder(folder);
  }
  reject(FileRole::kCheckpoint, folder.string(),
         "expected model.safetensors, adapter_model.safetensors, pytorch_model.bin or an index of "
         "shards, found none");
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
  return open_safetensors_file(path);
}

}  // namespace qianli::formats
