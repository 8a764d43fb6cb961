#include "qianli/formats/torch_file.h"

#include <fmt/core.h>

#include <cstring>

#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

constexpr std::string_view kPickle = "data.pkl";
// The pickle of torch before 1.6 begins with its magic number as an integer of ten bytes.
constexpr std::string_view kOldMagic("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 14);

uint64_t element_bytes(Dtype dtype) { return static_cast<uint64_t>(bit_size(dtype)) / 8; }

// Number of axes at the end that lie without gaps, and how many elements they have together.
struct Dense {
  size_t first_axis = 0;
  int64_t elements = 1;
};

Dense dense_axes(const StoredTensor& tensor) {
  Dense dense{tensor.shape.size(), 1};
  while (dense.first_axis > 0) {
    const int64_t size = tensor.shape[dense.first_axis - 1];
    if (size != 1 && tensor.strides[dense.first_axis - 1] != dense.elements) break;
    dense.elements *= size;
    --dense.first_axis;
  }
  return dense;
}

// Copies a strided tensor axis by axis.
class StridedCopy {
 public:
  StridedCopy(const StoredTensor& tensor, std::span<const std::byte> storage, std::byte* out)
      : tensor_(tensor), dense_(dense_axes(tensor)), storage_(storage), out_(out) {
    run_bytes_ = static_cast<uint64_t>(dense_.elements) * element_bytes(tensor.dtype);
  }

  void copy(size_t axis, int64_t offset) {
    if (axis >= dense_.first_axis) {
      const uint64_t begin = static_cast<uint64_t>(offset) * element_bytes(tensor_.dtype);
      std::memcpy(out_, storage_.data() + begin, run_bytes_);
      out_ += run_bytes_;
      return;
    }
    for (int64_t i = 0; i < tensor_.shape[axis]; ++i) {
      copy(axis + 1, offset + i * tensor_.strides[axis]);
    }
  }

 private:
  const StoredTensor& tensor_;
  Dense dense_;
  std::span<const std::byte> storage_;
  std::byte* out_;
  uint64_t run_bytes_;
};

}  // namespace

std::shared_ptr<const TorchFile> TorchFile::open(const fs::path& path, FileRole role) {
  auto map = MappedFile::open(path, role);
  std::shared_ptr<TorchFile> file(new TorchFile(path.string(), role));
  file->map_ = map;
  file->read(map->bytes());
  return file;
}

std::shared_ptr<const TorchFile> TorchFile::parse(std::span<const std::byte> archive,
                                                  const std::string& source, FileRole role) {
  std::shared_ptr<TorchFile> file(new TorchFile(source, role));
  file->read(archive);
  return file;
}

void TorchFile::read(std::span<const std::byte> archive) {
  const std::string_view front(reinterpret_cast<const char*>(archive.data()),
                               std::min(archive.size(), kOldMagic.size()));
  if (front == kOldMagic) {
    reject(role_, source_, "expected a zip archive, got the format of PyTorch before 1.6",
           "load and save it with a newer PyTorch");
  }
  const std::vector<ZipEntry> entries = parse_zip(archive, source_, role_);
  const ZipEntry* pickle = nullptr;
  for (const ZipEntry& entry : entries) {
    const bool named = entry.name == kPickle || entry.name.ends_with("/data.pkl");
    if (named && (!pickle || entry.name.size() < pickle->name.size())) pickle = &entry;
  }
  if (!pickle) {
    reject(role_, source_, "expected an archive of torch.save, found no data.pkl in it",
           "TorchScript programs and other zip files hold no weights that can be read");
  }
  const std::string top = pickle->name.substr(0, pickle->name.size() - kPickle.size());
  for (const ZipEntry& entry : entries) {
    if (!entry.name.starts_with(top)) continue;
    const std::string_view name = std::string_view(entry.name).substr(top.size());
    if (name.starts_with("data/")) storages_.emplace(name.substr(5), entry.bytes);
    const std::string_view text(reinterpret_cast<const char*>(entry.bytes.data()),
                                entry.bytes.size());
    if (name == "byteorder" && text != "little") {
      reject(role_, source_, "expected little-endian numbers, got byteorder " + shown_name(text));
    }
  }
  check_crc(*pickle, source_, role_);
  root_ = parse_pickle(pickle->bytes, source_, role_).value;
  check_tensors(root_);
}

void TorchFile::check_tensors(const Value& value) const {
  if (const StoredTensor* tensor = value.as_tensor()) storage(tensor->storage);
  if (const Values* items = value.items()) {
    for (const Value& item : *items) check_tensors(item);
  }
  if (const Entries* entries = value.entries()) {
    for (const auto& [key, item] : *entries) check_tensors(item);
  }
  if (const Object* object = value.as_object()) {
    check_tensors(object->state);
    for (const Value& item : object->elements) check_tensors(item);
    for (const auto& [key, item] : object->entries) check_tensors(item);
  }
}

std::span<const std::byte> TorchFile::storage(const Storage& storage) const {
  if (storage.bytes) return std::as_bytes(std::span(*storage.bytes));
  const auto place = storages_.find(storage.key);
  if (place == storages_.end()) {
    reject(role_, source_, fmt::format("expected an entry data/{}, found none", storage.key));
  }
  const uint64_t needed =
      static_cast<uint64_t>(storage.num_elements) * element_bytes(storage.dtype.value());
  if (place->second.size() < needed) {
    reject(role_, source_,
           fmt::format("data/{}: expected {} bytes, got {}", storage.key, needed,
                       place->second.size()));
  }
  return place->second;
}

std::optional<std::span<const std::byte>> TorchFile::view(const StoredTensor& tensor) const {
  const uint64_t bytes = byte_size(tensor.dtype, tensor.shape).value();
  if (bytes == 0) return std::span<const std::byte>();
  if (dense_axes(tensor).first_axis > 0) return std::nullopt;
  return storage(tensor.storage)
      .subspan(static_cast<uint64_t>(tensor.offset) * element_bytes(tensor.dtype), bytes);
}

void TorchFile::copy_rows(const StoredTensor& tensor, int64_t first, int64_t count,
                          std::span<std::byte> out) const {
  if (out.empty()) return;
  StoredTensor rows = tensor;
  if (!rows.shape.empty()) {
    rows.shape[0] = count;
    rows.offset += first * rows.strides[0];
  }
  StridedCopy(rows, storage(tensor.storage), out.data()).copy(0, rows.offset);
}

}  // namespace qianli::formats
