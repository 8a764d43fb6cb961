#include "qianli/formats/arrow/json_cells.h"

#include <arrow/api.h>
#include <arrow/util/base64.h>
#include <fmt/format.h>

#include <cmath>
#include <stdexcept>

namespace qianli::formats {
namespace {

using arrow::Type;

template <class Value>
void append_float(Value value, std::string& out) {
  if (!std::isfinite(value)) {
    out += std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
    return;
  }
  const size_t begin = out.size();
  fmt::format_to(std::back_inserter(out), "{}", value);
  if (out.find_first_of(".e", begin) == out.npos) out += ".0";  // as Python writes it
}

template <class Array>
const Array& as(const arrow::Array& array) {
  return static_cast<const Array&>(array);
}

template <class Array>
void append_integer(const arrow::Array& array, int64_t row, std::string& out) {
  fmt::format_to(std::back_inserter(out), "{}", as<Array>(array).Value(row));
}

void append_elements(const arrow::Array& values, int64_t begin, int64_t count, std::string& out) {
  out += '[';
  for (int64_t i = begin; i < begin + count; ++i) {
    if (i > begin) out += ',';
    append_json(values, i, out);
  }
  out += ']';
}

template <class List>
void append_list(const arrow::Array& array, int64_t row, std::string& out) {
  const List& list = as<List>(array);
  append_elements(*list.values(), list.value_offset(row), list.value_length(row), out);
}

void append_struct(const arrow::Array& array, int64_t row, std::string& out) {
  const auto& fields = as<arrow::StructArray>(array);
  out += '{';
  for (int f = 0; f < fields.num_fields(); ++f) {
    if (f > 0) out += ',';
    append_json_text(fields.struct_type()->field(f)->name(), out);
    out += ':';
    append_json(*fields.field(f), row, out);
  }
  out += '}';
}

bool is_text(const arrow::DataType& type) {
  return type.id() == Type::STRING || type.id() == Type::LARGE_STRING ||
         type.id() == Type::STRING_VIEW;
}

void append_map(const arrow::Array& array, int64_t row, std::string& out) {
  const auto& map = as<arrow::MapArray>(array);
  const bool object = is_text(*map.map_type()->key_type());
  const int64_t begin = map.value_offset(row), end = begin + map.value_length(row);
  out += object ? '{' : '[';
  for (int64_t i = begin; i < end; ++i) {
    if (i > begin) out += ',';
    if (!object) out += '[';
    append_json(*map.keys(), i, out);
    out += object ? ':' : ',';
    append_json(*map.items(), i, out);
    if (!object) out += ']';
  }
  out += object ? '}' : ']';
}

void append_other(const arrow::Array& array, int64_t row, std::string& out) {
  const auto scalar = array.GetScalar(row);
  if (!scalar.ok()) throw std::runtime_error(scalar.status().ToString());
  append_json_text((*scalar)->ToString(), out);
}

}  // namespace

bool has_json_form(const arrow::DataType& type) {
  if (type.id() == Type::SPARSE_UNION || type.id() == Type::DENSE_UNION ||
      type.id() == Type::RUN_END_ENCODED)
    return false;
  for (const auto& field : type.fields())
    if (!has_json_form(*field->type())) return false;
  return true;
}

void append_json_text(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<int>(c));
    } else {
      out += c;
    }
  }
  out += '"';
}

void append_json(const arrow::Array& array, int64_t row, std::string& out) {
  if (array.IsNull(row)) {
    out += "null";
    return;
  }
  switch (array.type_id()) {
    case Type::BOOL:
      out += as<arrow::BooleanArray>(array).Value(row) ? "true" : "false";
      return;
    case Type::INT8:
      return append_integer<arrow::Int8Array>(array, row, out);
    case Type::INT16:
      return append_integer<arrow::Int16Array>(array, row, out);
    case Type::INT32:
      return append_integer<arrow::Int32Array>(array, row, out);
    case Type::INT64:
      return append_integer<arrow::Int64Array>(array, row, out);
    case Type::UINT8:
      return append_integer<arrow::UInt8Array>(array, row, out);
    case Type::UINT16:
      return append_integer<arrow::UInt16Array>(array, row, out);
    case Type::UINT32:
      return append_integer<arrow::UInt32Array>(array, row, out);
    case Type::UINT64:
      return append_integer<arrow::UInt64Array>(array, row, out);
    case Type::FLOAT:
      return append_float(as<arrow::FloatArray>(array).Value(row), out);
    case Type::DOUBLE:
      return append_float(as<arrow::DoubleArray>(array).Value(row), out);
    case Type::STRING:
      return append_json_text(as<arrow::StringArray>(array).GetView(row), out);
    case Type::LARGE_STRING:
      return append_json_text(as<arrow::LargeStringArray>(array).GetView(row), out);
    case Type::STRING_VIEW:
      return append_json_text(as<arrow::StringViewArray>(array).GetView(row), out);
    case Type::BINARY:
      return append_json_text(
          arrow::util::base64_encode(as<arrow::BinaryArray>(array).GetView(row)), out);
    case Type::LARGE_BINARY:
      return append_json_text(
          arrow::util::base64_encode(as<arrow::LargeBinaryArray>(array).GetView(row)), out);
    case Type::LIST:
      return append_list<arrow::ListArray>(array, row, out);
    case Type::LARGE_LIST:
      return append_list<arrow::LargeListArray>(array, row, out);
    case Type::FIXED_SIZE_LIST:
      return append_list<arrow::FixedSizeListArray>(array, row, out);
    case Type::MAP:
      return append_map(array, row, out);
    case Type::STRUCT:
      return append_struct(array, row, out);
    case Type::DICTIONARY: {
      const auto& dictionary = as<arrow::DictionaryArray>(array);
      return append_json(*dictionary.dictionary(), dictionary.GetValueIndex(row), out);
    }
    case Type::EXTENSION:
      return append_json(*as<arrow::ExtensionArray>(array).storage(), row, out);
    default:
      return append_other(array, row, out);
  }
}

}  // namespace qianli::formats
