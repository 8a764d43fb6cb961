// Values of the metadata.
#include <fmt/core.h>

#include "qianli/formats/gguf.h"
#include "qianli/formats/little_endian.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

template <class T>
T array_number(const GgufValue::Array& array, uint64_t i) {
  const std::byte* place = array.bytes.data() + i * gguf_number_bytes(array.type);
  switch (array.type) {
    case GgufType::kU8:
      return static_cast<T>(load<uint8_t>(place));
    case GgufType::kI8:
      return static_cast<T>(load<int8_t>(place));
    case GgufType::kU16:
      return static_cast<T>(load<uint16_t>(place));
    case GgufType::kI16:
      return static_cast<T>(load<int16_t>(place));
    case GgufType::kU32:
      return static_cast<T>(load<uint32_t>(place));
    case GgufType::kI32:
      return static_cast<T>(load<int32_t>(place));
    case GgufType::kU64:
      return static_cast<T>(load<uint64_t>(place));
    case GgufType::kI64:
      return static_cast<T>(load<int64_t>(place));
    case GgufType::kF32:
      return static_cast<T>(load<float>(place));
    case GgufType::kF64:
      return static_cast<T>(load<double>(place));
    default:
      return static_cast<T>(load<uint8_t>(place) != 0);
  }
}

}  // namespace

std::shared_ptr<const GgufFile> GgufFile::open(const fs::path& path, FileRole role) {
  std::shared_ptr<GgufFile> file(new GgufFile);
  file->map_ = MappedFile::open(path, role);
  file->role_ = role;
  file->contents_ = parse_gguf(file->map_->bytes(), path.string(), role);
  return file;
}

const GgufValue* GgufFile::find_value(std::string_view key) const {
  const auto place = contents_.metadata.find(key);
  return place == contents_.metadata.end() ? nullptr : &place->second;
}

void GgufFile::refuse(std::string_view key, const std::string& reason) const {
  reject(role_, source(), fmt::format("key {}: {}", shown_name(key), reason));
}

const GgufValue::Array* GgufFile::find_array(std::string_view key) const {
  const GgufValue* value = find_value(key);
  if (!value) return nullptr;
  const auto* array = std::get_if<GgufValue::Array>(&value->value);
  if (!array) refuse(key, "expected an array");
  return array;
}

std::optional<int64_t> GgufFile::integer(std::string_view key) const {
  const GgufValue* value = find_value(key);
  if (!value) return std::nullopt;
  if (const int64_t* number = std::get_if<int64_t>(&value->value)) return *number;
  const uint64_t* number = std::get_if<uint64_t>(&value->value);
  if (!number || *number > static_cast<uint64_t>(INT64_MAX)) refuse(key, "expected an integer");
  return static_cast<int64_t>(*number);
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const GgufValue* value = find_value(key);
  if (!value) return std::nullopt;
  if (const double* number = std::get_if<double>(&value->value)) return *number;
  return static_cast<double>(*integer(key));
}

std::optional<bool> GgufFile::boolean(std::string_view key) const {
  const GgufValue* value = find_value(key);
  if (!value) return std::nullopt;
  const bool* truth = std::get_if<bool>(&value->value);
  if (!truth) refuse(key, "expected true or false");
  return *truth;
}

std::optional<std::string> GgufFile::text(std::string_view key) const {
  const GgufValue* value = find_value(key);
  if (!value) return std::nullopt;
  const auto* text = std::get_if<std::string_view>(&value->value);
  if (!text) refuse(key, "expected a text");
  return std::string(*text);
}

std::optional<std::vector<int64_t>> GgufFile::integers(std::string_view key) const {
  const GgufValue::Array* array = find_array(key);
  if (!array) return std::nullopt;
  const bool whole = array->type != GgufType::kText && array->type != GgufType::kF32 &&
                     array->type != GgufType::kF64;
  if (!whole) refuse(key, "expected integers");
  std::vector<int64_t> values(array->count);
  for (uint64_t i = 0; i < array->count; ++i) values[i] = array_number<int64_t>(*array, i);
  return values;
}

std::optional<std::vector<double>> GgufFile::numbers(std::string_view key) const {
  const GgufValue::Array* array = find_array(key);
  if (!array) return std::nullopt;
  if (array->type == GgufType::kText) refuse(key, "expected numbers");
  std::vector<double> values(array->count);
  for (uint64_t i = 0; i < array->count; ++i) values[i] = array_number<double>(*array, i);
  return values;
}

std::optional<std::vector<std::string>> GgufFile::texts(std::string_view key) const {
  const GgufValue::Array* array = find_array(key);
  if (!array) return std::nullopt;
  if (array->type != GgufType::kText) refuse(key, "expected texts");
  std::vector<std::string> values;
  values.reserve(array->count);
  std::span<const std::byte> rest = array->bytes;
  for (uint64_t i = 0; i < array->count; ++i) {
    const auto length = load<uint64_t>(rest.data());
    values.emplace_back(reinterpret_cast<const char*>(rest.data()) + 8, length);
    rest = rest.subspan(8 + length);
  }
  return values;
}

}  // namespace qianli::formats
