// safetensors: u64 header size, JSON header, tensor bytes (github.com/huggingface/safetensors).
// The reader maps the file and refuses whatever the format forbids; the writer produces the bytes
// of the reference writer. For models of one or many files see safetensors_folder.h.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "qianli/base/output_file.h"
#include "qianli/formats/tensor.h"

namespace qianli::formats {

using Metadata = std::map<std::string, std::string>;

struct SafetensorsContents {
  std::vector<TensorEntry> entries;  // by place in the file
  Metadata metadata;                 // "__metadata__", empty where absent
};

// Reads the header in `file`, the bytes of a whole file; `source` names it in errors. Throws the
// error of `role` naming file, tensor and reason for: a file shorter than its header says, a header
// above 100,000,000 bytes or not starting with '{', anything but the fields of the format,
// duplicate names, unknown dtypes, overflowing or mismatched sizes, overlaps, holes, trailing
// bytes.
SafetensorsContents parse_safetensors(std::span<const std::byte> file, const std::string& source,
                                      FileRole role);

// An open file: no tensor is copied, all spans point into the map.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const fs::path& path, FileRole role = FileRole::kCheckpoint);
  SafetensorsFile(SafetensorsFile&&) = default;
  SafetensorsFile& operator=(SafetensorsFile&&) = default;

  const std::vector<TensorEntry>& entries() const { return contents_.entries; }
  const Metadata& metadata() const { return contents_.metadata; }
  // nullptr where there is no such tensor.
  const TensorEntry* find(std::string_view name) const;
  // Throws where there is no such tensor.
  const TensorEntry& at(std::string_view name) const;
  const fs::path& path() const { return map_->path(); }
  // Keeps the bytes of the entries alive.
  std::shared_ptr<const MappedFile> map() const { return map_; }

 private:
  SafetensorsFile() = default;
  std::shared_ptr<const MappedFile> map_;
  FileRole role_ = FileRole::kCheckpoint;
  SafetensorsContents contents_;
  std::unordered_map<std::string_view, size_t> places_;  // keys point into contents_
};

// Writes a file piece by piece: only the piece in hand is in memory. The file appears under its
// name with commit(). Tensors lie in the order of the reference: widest dtype first, then by name.
class SafetensorsWriter {
 public:
  // `metadata` is written beside {"format": "pt"}, which readers of the ecosystem demand.
  SafetensorsWriter(const fs::path& path, std::vector<TensorSpec> tensors, Metadata metadata = {},
                    FileRole role = FileRole::kCheckpoint, FileGrowth growth = {});

  // The tensors in the order in which their bytes are expected.
  const std::vector<TensorSpec>& tensors() const { return tensors_; }
  // The bytes in front of the tensors, for whoever hashes the file while writing it.
  std::string_view header() const { return header_; }
  // Appends bytes of the tensors, which may be cut anywhere.
  void write(std::span<const std::byte> bytes);
  // True where the next `bytes` bytes were found in the file: they count as written.
  bool skip(uint64_t bytes);
  // Throws std::logic_error unless all bytes of all tensors were written.
  void commit();

 private:
  fs::path path_;
  std::vector<TensorSpec> tensors_;
  OutputFile file_;
  std::string header_;
  uint64_t bytes_left_ = 0;
};

void write_safetensors(const fs::path& path, std::vector<TensorSpec> tensors,
                       const TensorProducer& produce, Metadata metadata = {},
                       FileRole role = FileRole::kCheckpoint, FileGrowth growth = {});
// The same for tensors that are in memory.
void write_safetensors(const fs::path& path, std::span<const TensorEntry> tensors,
                       Metadata metadata = {}, FileRole role = FileRole::kCheckpoint);

}  // namespace qianli::formats
