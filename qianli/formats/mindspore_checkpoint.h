// MindSpore's .ckpt: one protocol-buffer message without a header, repeated values {tag, tensor}. A
// large tensor is cut into consecutive values with the same tag, each with all dimensions and the
// next piece of the content. (mindspore/ccsrc/utils/checkpoint.proto; seen with MindSpore 2.10)
#pragma once

#include <map>
#include <memory>

#include "qianli/base/output_file.h"
#include "qianli/formats/tensor_source.h"

namespace qianli::formats {

struct MindsporeTensor {
  TensorSpec spec;
  std::vector<std::span<const std::byte>> pieces;  // together the content
};

struct MindsporeContents {
  std::vector<MindsporeTensor> tensors;      // in the order of the file
  std::map<std::string, std::string> texts;  // values of type "str", as UTF-8
  std::vector<std::string> hash_tables;      // map tensors, which are no weights and are left out
};

// Reads all bytes of a file. Throws the error of `role` naming source, tensor and reason for
// damaged messages, unknown types, dimensions that do not fit the content, a tag in two places,
// encrypted files, and a CRC at the end that is not that of the bytes before it.
MindsporeContents parse_mindspore(std::span<const std::byte> file, const std::string& source,
                                  FileRole role);

// Texts and hash tables are left out, the latter with a warning.
std::unique_ptr<TensorSource> open_mindspore_source(const fs::path& path);

struct MindsporeOptions {
  bool crc = false;  // save_checkpoint(crc_check=True): 17 bytes at the end
  uint64_t max_piece_bytes = uint64_t{512} << 20;  // where MindSpore cuts
};

// Writes what mindspore.load_checkpoint reads. The format cannot hold tensors without elements,
// which are left out with a warning, as MindSpore does. Types that MindSpore does not have
// (F8_E4M3FNUZ, F4,
// ...) are refused. `produce` is called once per tensor, in order.
void write_mindspore(const fs::path& path, const std::vector<TensorSpec>& tensors,
                     const TensorProducer& produce, MindsporeOptions options = {},
                     FileRole role = FileRole::kCheckpoint, FileGrowth growth = {});

}  // namespace qianli::formats
