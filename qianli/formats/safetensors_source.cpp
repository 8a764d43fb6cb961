#include "qianli/formats/safetensors_source.h"

#include "qianli/formats/safetensors_folder.h"

namespace qianli::formats {
namespace {

// `Files` keeps the maps open.
template <class Files>
class SafetensorsSource : public TensorSource {
 public:
  SafetensorsSource(const fs::path& path, Files files)
      : TensorSource(path.string()), files_(std::move(files)) {
    for (const auto& entry : files_.entries()) keep(entry);
  }

 private:
  void keep(const TensorEntry& entry) {
    add(entry);
    bytes_.push_back(entry.bytes);
  }
  void keep(const TensorEntry* entry) { keep(*entry); }

  std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const override {
    return bytes_[index];
  }

  Files files_;
  std::vector<std::span<const std::byte>> bytes_;
};

}  // namespace

std::unique_ptr<TensorSource> open_safetensors_file(const fs::path& file) {
  return std::make_unique<SafetensorsSource<SafetensorsFile>>(file, SafetensorsFile::open(file));
}

std::unique_ptr<TensorSource> open_safetensors_folder(const fs::path& folder,
                                                      std::string_view stem) {
  return std::make_unique<SafetensorsSource<SafetensorsFolder>>(
      folder, SafetensorsFolder::open(folder, stem));
}

}  // namespace qianli::formats
