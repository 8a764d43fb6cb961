// Which container stands at a path: told by its first bytes, not by its name.
#include <fmt/core.h>

#include "qianli/formats/reject.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/formats/safetensors_source.h"

namespace qianli::formats {
namespace {

std::unique_ptr<TensorSource> open_folder(const fs::path& folder) {
  for (const std::string_view stem : {"model", "adapter_model", "diffusion_pytorch_model"}) {
    if (SafetensorsFolder::exists(folder, stem)) return open_safetensors_folder(folder, stem);
  }
  reject(FileRole::kCheckpoint, folder.string(), "expected model.safetensors or its index");
}

}  // namespace

std::unique_ptr<TensorSource> open_tensor_source(const fs::path& path) {
  if (fs::is_directory(path)) return open_folder(path);
  return open_safetensors_file(path);
}

}  // namespace qianli::formats
