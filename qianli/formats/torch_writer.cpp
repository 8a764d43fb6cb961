#include <fmt/core.h>

#include <map>
#include <stdexcept>

#include "qianli/formats/reject.h"
#include "qianli/formats/torch_file.h"

namespace qianli::formats {

Value tensor_to_write(const TensorSpec& tensor) {
  StoredTensor stored{.dtype = tensor.dtype, .shape = tensor.shape};
  stored.storage.key = tensor.name;
  return Value::tensor(std::move(stored));
}

void write_torch_file(const fs::path& path, const Value& root, const TensorProducer& produce,
                      FileRole role, FileGrowth growth) {
  std::vector<TensorSpec> tensors;         // one per storage, in the order of the pickle
  std::map<std::string, size_t> storages;  // name -> place in `tensors`
  const std::string pickle =
      write_pickle(root, path.string(), role, [&](const StoredTensor& tensor) {
        const TensorSpec spec{tensor.storage.key, tensor.dtype, tensor.shape};
        const auto [place, fresh] = storages.emplace(spec.name, tensors.size());
        if (fresh) tensors.push_back(spec);
        const TensorSpec& first = tensors[place->second];
        if (first.dtype != spec.dtype || first.shape != spec.shape) {
          reject(role, path.string(),
                 fmt::format("two tensors named {} of different shapes", shown_name(spec.name)));
        }
        return std::to_string(place->second);
      });
  ZipWriter archive(path, role, std::move(growth));
  const std::string top = "archive/";
  archive.add(top + "data.pkl", pickle);
  archive.add(top + "byteorder", "little");
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto bytes = byte_size(tensors[i].dtype, tensors[i].shape);
    if (!bytes) {
      reject(role, path.string(),
             fmt::format("tensor {} has no valid size", shown_name(tensors[i].name)));
    }
    archive.begin(fmt::format("{}data/{}", top, i), *bytes);
    if (archive.skip()) {
      produce(tensors[i], {});
      continue;
    }
    uint64_t written = 0;
    produce(tensors[i], [&](std::span<const std::byte> piece) {
      written += piece.size();
      archive.write(piece);
    });
    if (written != *bytes) {
      throw std::logic_error(
          fmt::format("tensor {}: {} bytes announced, {} given", tensors[i].name, *bytes, written));
    }
  }
  archive.add(top + "version", "3\n");
  archive.commit();
}

}  // namespace qianli::formats
