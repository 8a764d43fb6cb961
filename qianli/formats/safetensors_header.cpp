// The JSON header of safetensors, read event by event: only what the format allows is ever built,
// so neither depth nor foreign content costs memory.
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "qianli/base/json.h"
#include "qianli/formats/little_endian.h"
#include "qianli/formats/reject.h"
#include "qianli/formats/safetensors.h"

namespace qianli::formats {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxDimensions = 64;
constexpr std::string_view kMetadataKey = "__metadata__";

struct Draft {
  TensorSpec spec;
  std::vector<uint64_t> offsets;
};

class HeaderHandler : public nlohmann::json_sax<Json> {
 public:
  HeaderHandler(const std::string& source, FileRole role) : source_(source), role_(role) {}

  std::vector<Draft> drafts;
  Metadata metadata;

  bool start_object(size_t) override {
    if (level_ == Level::kStart) return enter(Level::kNames);
    if (level_ != Level::kNames) refuse("expected a value, got an object");
    fields_seen_ = 0;
    if (name_ == kMetadataKey) return enter(Level::kMetadata);
    draft_ = {};
    draft_.spec.name = name_;
    return enter(Level::kTensor);
  }

  bool key(std::string& text) override {
    if (level_ == Level::kTensor) return tensor_field(text);
    if (level_ == Level::kMetadata) {
      metadata_key_ = text;
      if (metadata.contains(text)) refuse(fmt::format("duplicate key {}", shown_name(text)));
      return true;
    }
    name_ = text;
    if (!names_.insert(text).second) {
      reject(role_, source_, fmt::format("duplicate tensor name {}", shown_name(text)));
    }
    return true;
  }

  bool string(std::string& text) override {
    if (level_ == Level::kMetadata) {
      metadata.emplace(metadata_key_, text);
      return true;
    }
    if (level_ != Level::kTensor || field_ != kDtypeField) refuse("unexpected text in the header");
    const auto dtype = dtype_from_name(text);
    if (!dtype) refuse(fmt::format("unknown dtype {}", shown_name(text)));
    draft_.spec.dtype = *dtype;
    return true;
  }

  bool start_array(size_t) override {
    if (level_ != Level::kTensor || field_ == kDtypeField) {
      refuse("unexpected array in the header");
    }
    return enter(Level::kArray);
  }

  bool number_unsigned(uint64_t value) override {
    if (level_ != Level::kArray) refuse("unexpected number in the header");
    if (field_ == kOffsetsField) {
      if (draft_.offsets.size() == 2) refuse("expected two data_offsets, got more");
      draft_.offsets.push_back(value);
      return true;
    }
    auto& shape = draft_.spec.shape;
    if (shape.size() == kMaxDimensions) {
      refuse(fmt::format("expected at most {} dimensions, got more", kMaxDimensions));
    }
    if (value > static_cast<uint64_t>(INT64_MAX)) refuse("the size of its shape overflows");
    shape.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool end_array() override { return enter(Level::kTensor); }

  bool end_object() override {
    if (level_ == Level::kNames) return enter(Level::kStart);
    if (level_ == Level::kTensor) {
      if (fields_seen_ != 7) refuse("expected dtype, shape and data_offsets");
      if (draft_.offsets.size() != 2) refuse("expected two data_offsets, got fewer");
      drafts.push_back(std::move(draft_));
    }
    return enter(Level::kNames);
  }

  bool null() override { refuse("unexpected null in the header"); }
  bool boolean(bool) override { refuse("unexpected true or false in the header"); }
  bool number_integer(int64_t) override { refuse("unexpected negative number in the header"); }
  bool number_float(double, const std::string&) override {
    refuse("expected whole numbers below 2^64 in the header");
  }
  bool binary(Json::binary_t&) override { refuse("unexpected value in the header"); }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    reject(role_, source_, fmt::format("the header is not valid JSON at byte {}", position));
  }

 private:
  enum class Level { kStart, kNames, kMetadata, kTensor, kArray };
  static constexpr int kDtypeField = 1, kShapeField = 2, kOffsetsField = 4;

  bool enter(Level level) {
    level_ = level;
    return true;
  }

  bool tensor_field(const std::string& text) {
    if (text == "dtype")
      field_ = kDtypeField;
    else if (text == "shape")
      field_ = kShapeField;
    else if (text == "data_offsets")
      field_ = kOffsetsField;
    else
      refuse(fmt::format("unknown field {}", shown_name(text)));
    if (fields_seen_ & field_) refuse(fmt::format("duplicate field {}", shown_name(text)));
    fields_seen_ |= field_;
    return true;
  }

  [[noreturn]] void refuse(const std::string& reason) {
    if (level_ == Level::kStart || name_.empty()) reject(role_, source_, reason);
    reject(role_, source_, fmt::format("tensor {}: {}", shown_name(name_), reason));
  }

  const std::string& source_;
  FileRole role_;
  Level level_ = Level::kStart;
  int field_ = 0;
  int fields_seen_ = 0;
  std::string name_, metadata_key_;
  std::unordered_set<std::string> names_;
  Draft draft_;
};

// The JSON text of the header, or an error.
std::string_view header_text(std::span<const std::byte> file, const std::string& source,
                             FileRole role) {
  if (file.size() < 8) {
    reject(role, source,
           fmt::format("expected a safetensors header of at least 8 bytes, got {}", file.size()));
  }
  const auto size = load<uint64_t>(file.data());
  if (size > kMaxHeaderBytes) {
    reject(role, source,
           fmt::format("expected a header of at most {} bytes, got {}", kMaxHeaderBytes, size),
           "the file may not be a safetensors file");
  }
  if (size > file.size() - 8) {
    reject(
        role, source,
        fmt::format("truncated: the header needs {} bytes, the file has {}", size + 8, file.size()),
        "download or save the file again");
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, size);
  if (text.empty() || text.front() != '{')
    reject(role, source, "the header does not start with '{'");
  // JSON has no zero bytes, and the parser would take one for the end of the text.
  if (text.find('\0') != text.npos) reject(role, source, "the header contains a zero byte");
  return text;
}

// Checks that the tensors, by place, fill `data` without holes or overlap; gives them their bytes.
std::vector<TensorEntry> place_tensors(std::vector<Draft> drafts, std::span<const std::byte> data,
                                       const std::string& source, FileRole role) {
  std::ranges::stable_sort(drafts, {}, [](const Draft& draft) { return draft.offsets; });
  std::vector<TensorEntry> entries;
  entries.reserve(drafts.size());
  uint64_t end = 0;
  for (Draft& draft : drafts) {
    const auto refuse = [&](const std::string& reason) {
      reject(role, source, fmt::format("tensor {}: {}", shown_name(draft.spec.name), reason));
    };
    const uint64_t first = draft.offsets[0], last = draft.offsets[1];
    if (last < first)
      refuse(fmt::format("its bytes end at {}, before they begin at {}", last, first));
    if (first != end) {
      refuse(fmt::format("{}: expected data_offsets to begin at {}, got {}",
                         first < end ? "overlaps another tensor" : "a hole before it", end, first));
    }
    const auto bytes = byte_size(draft.spec.dtype, draft.spec.shape);
    if (!bytes) refuse("the size of its shape overflows or is no whole number of bytes");
    if (*bytes != last - first) {
      refuse(fmt::format("its shape and dtype {} need {} bytes, data_offsets give {}",
                         dtype_name(draft.spec.dtype), *bytes, last - first));
    }
    if (last > data.size()) {
      refuse(fmt::format("truncated: its bytes end at {} of {}", last, data.size()));
    }
    end = last;
    entries.push_back({std::move(draft.spec), data.subspan(first, last - first)});
  }
  if (end != data.size()) {
    reject(role, source, fmt::format("{} bytes after the last tensor", data.size() - end));
  }
  return entries;
}

}  // namespace

SafetensorsContents parse_safetensors(std::span<const std::byte> file, const std::string& source,
                                      FileRole role) {
  const std::string_view text = header_text(file, source, role);
  HeaderHandler handler(source, role);
  Json::sax_parse(text, &handler);
  return {place_tensors(std::move(handler.drafts), file.subspan(8 + text.size()), source, role),
          std::move(handler.metadata)};
}

}  // namespace qianli::formats
