#include "qianli/formats/indexed_dataset.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string_view>
#include <type_traits>
#include <utility>

#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

constexpr std::string_view kMagic("MMIDIDX\0\0", 9);
constexpr uint64_t kVersion = 1;
constexpr size_t kHeaderBytes = 34;

fs::path bin_path(const fs::path& prefix) { return prefix.string() + ".bin"; }
fs::path idx_path(const fs::path& prefix) { return prefix.string() + ".idx"; }

// Calls body(Element{}) with the stored type.
template <class Body>
auto with_element(TokenDtype dtype, const Body& body) {
  switch (dtype) {
    case TokenDtype::kU8:
      return body(uint8_t{});
    case TokenDtype::kI8:
      return body(int8_t{});
    case TokenDtype::kI16:
      return body(int16_t{});
    case TokenDtype::kI32:
      return body(int32_t{});
    case TokenDtype::kI64:
      return body(int64_t{});
    case TokenDtype::kF64:
      return body(double{});
    case TokenDtype::kF32:
      return body(float{});
    case TokenDtype::kU16:
      break;
  }
  return body(uint16_t{});
}

template <class T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// Views of the arrays of an index whose size fits; sizes are checked before they are multiplied.
DatasetIndex cut_arrays(std::span<const std::byte> idx, const std::string& source) {
  const auto refuse = [&](const std::string& reason) { reject(FileRole::kData, source, reason); };
  if (idx.size() < kHeaderBytes) {
    refuse(fmt::format("truncated: expected at least {} bytes, got {}", kHeaderBytes, idx.size()));
  }
  if (std::memcmp(idx.data(), kMagic.data(), kMagic.size()) != 0) {
    refuse("not an index of a token corpus (it does not begin with MMIDIDX)");
  }
  const auto version = load<uint64_t>(&idx[9]);
  if (version != kVersion) refuse(fmt::format("expected version 1, got {}", version));
  const auto code = load<uint8_t>(&idx[17]);
  if (code < 1 || code > 8) refuse(fmt::format("unknown dtype code {}", code));
  const auto sequences = load<uint64_t>(&idx[18]);
  const auto entries = load<uint64_t>(&idx[26]);
  const uint64_t room = idx.size() - kHeaderBytes;
  if (sequences > room / 12 || entries > (room - 12 * sequences) / 8) {
    refuse(fmt::format("truncated: {} sequences and {} document entries do not fit into {} bytes",
                       sequences, entries, idx.size()));
  }
  const uint64_t modes = room - 12 * sequences - 8 * entries;
  if (modes != 0 && modes != sequences) {
    refuse(fmt::format("{} unexpected bytes at the end", modes));
  }
  const std::byte* lengths = idx.data() + kHeaderBytes;
  const std::byte* offsets = lengths + 4 * sequences;
  const std::byte* documents = offsets + 8 * sequences;
  return {.dtype = static_cast<TokenDtype>(code),
          .lengths = {lengths, sequences},
          .offsets = {offsets, sequences},
          .documents = {documents, entries},
          .modes = {documents + 8 * entries, modes}};
}

void check_documents(const DatasetIndex& index, const std::string& source) {
  const auto refuse = [&](const std::string& reason) { reject(FileRole::kData, source, reason); };
  const auto& documents = index.documents;
  if (documents.empty() || documents[0] != 0) refuse("the document entries do not begin with 0");
  for (size_t k = 1; k < documents.size(); ++k) {
    if (documents[k] < documents[k - 1]) refuse(fmt::format("document entry {} goes back", k));
  }
  const int64_t last = documents[documents.size() - 1];
  if (last != static_cast<int64_t>(index.lengths.size())) {
    refuse(fmt::format("expected the last document entry to be {}, got {}", index.lengths.size(),
                       last));
  }
}

}  // namespace

int token_bytes(TokenDtype dtype) {
  return with_element(dtype, [](auto element) { return static_cast<int>(sizeof element); });
}

std::string token_dtype_name(TokenDtype dtype) {
  constexpr std::array<std::string_view, 9> kNames{"",      "uint8",   "int8",    "int16", "int32",
                                                   "int64", "float64", "float32", "uint16"};
  return std::string(kNames.at(static_cast<size_t>(dtype)));
}

TokenDtype optimal_token_dtype(std::optional<int64_t> vocab_size) {
  constexpr int64_t kUint16Limit = 65500;
  return vocab_size && *vocab_size < kUint16Limit ? TokenDtype::kU16 : TokenDtype::kI32;
}

DatasetIndex parse_dataset_index(std::span<const std::byte> idx, const std::string& source) {
  DatasetIndex index = cut_arrays(idx, source);
  check_documents(index, source);
  const int64_t element_bytes = token_bytes(index.dtype);
  for (size_t i = 0; i < index.lengths.size(); ++i) {
    const int64_t length = index.lengths[i], offset = index.offsets[i];
    if (length < 0)
      reject(FileRole::kData, source, fmt::format("sequence {} has length {}", i, length));
    if (offset < 0 || offset > INT64_MAX - length * element_bytes) {
      reject(FileRole::kData, source, fmt::format("sequence {} lies at offset {}", i, offset));
    }
    const auto end = static_cast<uint64_t>(offset + length * element_bytes);
    index.covered_bytes = std::max(index.covered_bytes, end);
  }
  return index;
}

bool IndexedDataset::exists(const fs::path& prefix) {
  return fs::exists(idx_path(prefix)) && fs::exists(bin_path(prefix));
}

IndexedDataset IndexedDataset::open(const fs::path& prefix) {
  IndexedDataset dataset;
  dataset.idx_ = MappedFile::open(idx_path(prefix), FileRole::kData);
  dataset.bin_ = MappedFile::open(bin_path(prefix), FileRole::kData);
  dataset.index_ = parse_dataset_index(dataset.idx_->bytes(), idx_path(prefix).string());
  const uint64_t expected = dataset.index_.covered_bytes, got = dataset.bin_->size();
  if (expected != got) {
    reject(FileRole::kData, bin_path(prefix).string(),
           fmt::format("expected {} bytes as its index says, got {}", expected, got),
           "the two files do not belong together, or one was cut; prepare the data again");
  }
  return dataset;
}

std::span<const std::byte> IndexedDataset::sequence_bytes(size_t i) const {
  if (i >= size()) throw std::out_of_range(fmt::format("sequence {} of {}", i, size()));
  const auto bytes = static_cast<size_t>(index_.lengths[i]) * token_bytes(index_.dtype);
  return bin_->bytes().subspan(static_cast<size_t>(index_.offsets[i]), bytes);
}

template <class T>
void IndexedDataset::copy(size_t i, int64_t offset, std::span<T> out) const {
  const auto bytes = sequence_bytes(i);
  const int64_t length = index_.lengths[i];
  if (offset < 0 || offset > length || std::cmp_greater(out.size(), length - offset)) {
    throw std::out_of_range(fmt::format("{} tokens from {} on of sequence {} of length {}",
                                        out.size(), offset, i, length));
  }
  with_element(index_.dtype, [&](auto element) {
    using Stored = decltype(element);
    if constexpr (std::is_floating_point_v<Stored>) {
      reject(FileRole::kData, bin_->path().string(), "expected whole numbers, got floating point");
    } else {
      const PackedArray<Stored> tokens(bytes.data() + offset * sizeof(Stored), out.size());
      if constexpr (std::is_same_v<Stored, T>) {
        if (!out.empty()) std::memcpy(out.data(), tokens.bytes().data(), out.size_bytes());
      } else {
        for (size_t k = 0; k < out.size(); ++k) {
          const Stored token = tokens[k];
          if (!std::in_range<T>(token)) {
            reject(FileRole::kData, bin_->path().string(),
                   fmt::format("token {} of sequence {} does not fit into 32 bits: {}",
                               offset + static_cast<int64_t>(k), i, token));
          }
          out[k] = static_cast<T>(token);
        }
      }
    }
  });
}

void IndexedDataset::sequence(size_t i, int64_t offset, std::span<int32_t> out) const {
  copy(i, offset, out);
}

void IndexedDataset::sequence(size_t i, int64_t offset, std::span<int64_t> out) const {
  copy(i, offset, out);
}

IndexedDatasetWriter::IndexedDatasetWriter(const fs::path& prefix, TokenDtype dtype,
                                           bool multimodal)
    : prefix_(prefix),
      dtype_(dtype),
      multimodal_(multimodal),
      bin_(bin_path(prefix), FileRole::kData) {
  if (dtype == TokenDtype::kF32 || dtype == TokenDtype::kF64) {
    throw std::logic_error("token corpora are written in whole numbers");
  }
}

template <class T>
void IndexedDatasetWriter::add(std::span<const T> tokens, int8_t mode) {
  with_element(dtype_, [&](auto element) {
    using Stored = decltype(element);
    if constexpr (std::is_same_v<Stored, T>) {
      add_bytes(std::as_bytes(tokens), mode);
    } else if constexpr (std::is_integral_v<Stored>) {
      converted_.resize(tokens.size() * sizeof(Stored));
      for (size_t k = 0; k < tokens.size(); ++k) {
        if (!std::in_range<Stored>(tokens[k])) {
          reject(FileRole::kData, prefix_.string(),
                 fmt::format("token {} does not fit into {}", tokens[k], token_dtype_name(dtype_)),
                 "write the corpus as int32");
        }
        const auto token = static_cast<Stored>(tokens[k]);
        std::memcpy(converted_.data() + k * sizeof(Stored), &token, sizeof token);
      }
      add_bytes(converted_, mode);
    }
  });
}

void IndexedDatasetWriter::add_item(std::span<const int32_t> tokens, int8_t mode) {
  add(tokens, mode);
}

void IndexedDatasetWriter::add_item(std::span<const int64_t> tokens, int8_t mode) {
  add(tokens, mode);
}

void IndexedDatasetWriter::add_bytes(std::span<const std::byte> bytes, int8_t mode) {
  const size_t length = bytes.size() / token_bytes(dtype_);
  if (!std::in_range<int32_t>(length)) {
    reject(FileRole::kData, prefix_.string(),
           fmt::format("a sequence of {} tokens is too long for the format", length),
           "split the document");
  }
  bin_.write(bytes.data(), bytes.size());
  lengths_.push_back(static_cast<int32_t>(length));
  if (multimodal_) modes_.push_back(mode);
}

void IndexedDatasetWriter::end_document() {
  documents_.push_back(static_cast<int64_t>(lengths_.size()));
}

void IndexedDatasetWriter::add_index(const fs::path& prefix) {
  const auto other = IndexedDataset::open(prefix);
  const bool other_multimodal = !other.modes().empty();
  if (other.dtype() != dtype_ || (other.size() > 0 && other_multimodal != multimodal_)) {
    reject(FileRole::kData, prefix.string(),
           fmt::format("expected {} tokens {} modes, got {} tokens {}", token_dtype_name(dtype_),
                       multimodal_ ? "with" : "without", token_dtype_name(other.dtype()),
                       other_multimodal ? "with modes" : "without modes"));
  }
  const auto first = static_cast<int64_t>(lengths_.size());
  for (size_t i = 0; i < other.size(); ++i) {
    add_bytes(other.sequence_bytes(i), multimodal_ ? other.modes()[i] : int8_t{0});
  }
  for (size_t k = 1; k < other.document_indices().size(); ++k) {
    documents_.push_back(first + other.document_indices()[k]);
  }
}

void IndexedDatasetWriter::commit() {
  if (documents_.back() != static_cast<int64_t>(lengths_.size())) {
    throw std::logic_error("end_document() missing before commit() of " + prefix_.string());
  }
  AtomicFile idx(idx_path(prefix_), FileRole::kData);
  std::string header(kMagic);
  append(header, kVersion);
  append(header, static_cast<uint8_t>(dtype_));
  append(header, static_cast<uint64_t>(lengths_.size()));
  append(header, static_cast<uint64_t>(documents_.size()));
  idx.write(header);
  idx.write(lengths_.data(), lengths_.size() * sizeof(int32_t));
  int64_t offset = 0;
  for (const int32_t length : lengths_) {
    idx.write(&offset, sizeof offset);
    offset += int64_t{length} * token_bytes(dtype_);
  }
  idx.write(documents_.data(), documents_.size() * sizeof(int64_t));
  idx.write(modes_.data(), modes_.size());
  // An older index must not stand beside the new tokens, not even for a moment.
  fs::remove(idx_path(prefix_));
  bin_.commit();
  idx.commit();
}

}  // namespace qianli::formats
