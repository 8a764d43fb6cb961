#include "tests/convert/made_adapter.h"

#include "qianli/base/file.h"
#include "qianli/convert/adapter/tensors.h"
#include "qianli/formats/safetensors_folder.h"

namespace qianli::testing {

Matrix filled(std::vector<int64_t> shape, int seed) {
  Matrix matrix{std::move(shape), {}};
  int64_t count = 1;
  for (const int64_t size : matrix.shape) count *= size;
  for (int64_t i = 0; i < count; ++i) {
    matrix.values.push_back(static_cast<float>((i * 7 + seed) % 11 - 5) / 8);
  }
  return matrix;
}

void MadeAdapter::add(const std::string& module, int64_t out, int64_t in, int64_t rank) {
  tensors[module + ".lora_A.weight"] = filled({rank, in}, 1);
  tensors[module + ".lora_B.weight"] = filled({out, rank}, 2);
}

void MadeAdapter::write(const std::filesystem::path& folder) const {
  create_folder(folder, FileRole::kCheckpoint);
  write_file_atomically(folder / "adapter_config.json", config.dump(), FileRole::kCheckpoint);
  const std::string prefix(convert::kAdapterPrefix);
  std::vector<formats::TensorSpec> specs;
  for (const auto& [name, matrix] : tensors) {
    specs.push_back({prefix + name, formats::Dtype::kF32, matrix.shape});
  }
  formats::write_sharded(
      folder, specs, UINT64_MAX,
      [&](const auto& spec, const auto& sink) {
        sink(std::as_bytes(std::span(tensors.at(spec.name.substr(prefix.size())).values)));
      },
      "adapter_model");
}

}  // namespace qianli::testing
