// Token corpora of Megatron: PREFIX.bin holds the tokens of all sequences back to back, PREFIX.idx
// where each sequence lies and where documents begin.
//
//   .idx  "MMIDIDX\0\0", u64 version 1, u8 dtype code, u64 S sequences, u64 D document entries,
//         i32 lengths[S] (tokens), i64 offsets[S] (bytes in .bin), i64 documents[D] (first sequence
//         of each document, from 0 up to S), and in multimodal corpora i8 modes[S]
//
// Both files are mapped; the arrays are views that read unaligned elements in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "qianli/base/file.h"
#include "qianli/formats/little_endian.h"

namespace qianli::formats {

// Codes as they stand in the file.
enum class TokenDtype : uint8_t {
  kU8 = 1,
  kI8 = 2,
  kI16 = 3,
  kI32 = 4,
  kI64 = 5,
  kF64 = 6,
  kF32 = 7,
  kU16 = 8,
};

int token_bytes(TokenDtype dtype);
// "int32", "uint16", as NumPy names them.
std::string token_dtype_name(TokenDtype dtype);
// Megatron's choice: uint16 for a known vocabulary below 65500, else int32.
TokenDtype optimal_token_dtype(std::optional<int64_t> vocab_size);

struct DatasetIndex {
  TokenDtype dtype = TokenDtype::kI32;
  PackedArray<int32_t> lengths;
  PackedArray<int64_t> offsets;
  PackedArray<int64_t> documents;
  PackedArray<int8_t> modes;   // empty unless multimodal
  uint64_t covered_bytes = 0;  // end of the furthest sequence: what .bin must hold
};

// Checks the bytes of a whole .idx; throws DataError naming `source` and the reason.
DatasetIndex parse_dataset_index(std::span<const std::byte> idx, const std::string& source);

class IndexedDataset {
 public:
  // The prefix is never parsed: the suffixes are appended. Throws DataError for damaged indexes and
  // where .bin is not as long as the index says.
  static IndexedDataset open(const fs::path& prefix);
  // True where both files are there.
  static bool exists(const fs::path& prefix);

  // Number of sequences.
  size_t size() const { return index_.lengths.size(); }
  size_t num_documents() const { return index_.documents.size() - 1; }
  TokenDtype dtype() const { return index_.dtype; }
  const PackedArray<int32_t>& lengths() const { return index_.lengths; }
  // [num_documents() + 1], the first 0, the last size().
  const PackedArray<int64_t>& document_indices() const { return index_.documents; }
  // Empty unless multimodal.
  const PackedArray<int8_t>& modes() const { return index_.modes; }

  // Tokens [offset, offset + out.size()) of a sequence. std::out_of_range beyond its end; DataError
  // where a token does not fit or the corpus holds floating-point numbers.
  void sequence(size_t i, int64_t offset, std::span<int32_t> out) const;
  void sequence(size_t i, int64_t offset, std::span<int64_t> out) const;
  // The stored bytes of a whole sequence.
  std::span<const std::byte> sequence_bytes(size_t i) const;

 private:
  IndexedDataset() = default;
  template <class T>
  void copy(size_t i, int64_t offset, std::span<T> out) const;

  std::shared_ptr<const MappedFile> idx_, bin_;
  DatasetIndex index_;
};

// Writes a pair sequence by sequence: memory holds four bytes per sequence and eight per document.
// The files appear with commit(), .idx last, so that an index never stands before its tokens.
class IndexedDatasetWriter {
 public:
  explicit IndexedDatasetWriter(const fs::path& prefix, TokenDtype dtype = TokenDtype::kI32,
                                bool multimodal = false);

  // Appends one sequence (possibly empty) to the current document. DataError for a token that the
  // dtype cannot hold. `mode` is kept in multimodal corpora only.
  void add_item(std::span<const int32_t> tokens, int8_t mode = 0);
  void add_item(std::span<const int64_t> tokens, int8_t mode = 0);
  void end_document();
  // Appends a whole corpus of the same dtype, its documents staying apart.
  void add_index(const fs::path& prefix);
  // std::logic_error where the last document was not ended.
  void commit();

  size_t num_sequences() const { return lengths_.size(); }
  size_t num_documents() const { return documents_.size() - 1; }

 private:
  template <class T>
  void add(std::span<const T> tokens, int8_t mode);
  void add_bytes(std::span<const std::byte> bytes, int8_t mode);

  fs::path prefix_;
  TokenDtype dtype_;
  bool multimodal_;
  AtomicFile bin_;
  std::vector<int32_t> lengths_;
  std::vector<int64_t> documents_{0};
  std::vector<int8_t> modes_;
  std::vector<std::byte> converted_;
};

}  // namespace qianli::formats
