// Files of torch.save: a zip archive of stored entries, in it data.pkl, a pickle of what was saved,
// and the bytes of each storage as data/KEY. Written by torch 1.6 and later, LibTorch, and
// MindSpore's adapters. The file is mapped; the pickle is read once (see pickle.h) and runs
// nothing.
#pragma once

#include <memory>
#include <unordered_map>

#include "qianli/formats/pickle.h"
#include "qianli/formats/tensor_source.h"
#include "qianli/formats/zip.h"

namespace qianli::formats {

class TorchFile {
 public:
  // Refuses what is no such file, the format of torch before 1.6, big-endian files, and files whose
  // tensors need more bytes than their storages have.
  static std::shared_ptr<const TorchFile> open(const fs::path& path,
                                               FileRole role = FileRole::kCheckpoint);
  // An archive inside other bytes, which stay the caller's.
  static std::shared_ptr<const TorchFile> parse(std::span<const std::byte> archive,
                                                const std::string& source, FileRole role);

  // What was saved.
  const Value& root() const { return root_; }
  const std::string& source() const { return source_; }

  // The members below take tensors that are part of root().

  // All elements where they lie one after the other, row-major; nothing where they do not.
  std::optional<std::span<const std::byte>> view(const StoredTensor& tensor) const;
  // Copies rows [first, first + count) of axis 0, row-major, into `out`, which has their size. A
  // scalar is one row.
  void copy_rows(const StoredTensor& tensor, int64_t first, int64_t count,
                 std::span<std::byte> out) const;

 private:
  TorchFile(std::string source, FileRole role) : source_(std::move(source)), role_(role) {}
  void read(std::span<const std::byte> archive);
  void check_tensors(const Value& value) const;
  std::span<const std::byte> storage(const Storage& storage) const;

  std::string source_;
  FileRole role_;
  std::shared_ptr<const MappedFile> map_;
  std::unordered_map<std::string, std::span<const std::byte>> storages_;  // by key
  Value root_;
};

// The tensors of `tree`, which is root() or a part of it: keys of dictionaries, attributes of
// argparse.Namespace and places in lists, joined by dots, are their names.
std::unique_ptr<TensorSource> open_torch_source(std::shared_ptr<const TorchFile> file,
                                                const Value& tree);
// pytorch_model.bin, or the shards of pytorch_model.bin.index.json.
std::unique_ptr<TensorSource> open_torch_folder(const fs::path& folder);

// A tensor to be written: contiguous, in a storage of its own. Equal names share one.
Value tensor_to_write(const TensorSpec& tensor);

// Writes `root` so that torch.load reads it (see write_pickle for what may be in it). The bytes of
// each tensor are asked for one after the other, in the order in which they stand in `root`, so
// that no more than one piece is in memory.
void write_torch_file(const fs::path& path, const Value& root, const TensorProducer& produce,
                      FileRole role = FileRole::kCheckpoint, FileGrowth growth = {});

}  // namespace qianli::formats
