#include "qianli/formats/safetensors.h"

#include <fmt/core.h>

#include <algorithm>
#include <stdexcept>

#include "qianli/base/json.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

// The reference pads the header so that the tensors begin at a multiple of eight.
constexpr size_t kAlignment = 8;
constexpr size_t kMaxHeaderBytes = 100'000'000;

std::string json_text(const std::string& text, const fs::path& path, FileRole role) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    reject(role, path.string(), fmt::format("the name {} is not valid UTF-8", shown_name(text)));
  }
}

void sort_as_reference(std::vector<TensorSpec>& tensors) {
  std::ranges::sort(tensors, [](const TensorSpec& a, const TensorSpec& b) {
    return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
  });
}

// Header with its size in front; `data_bytes` receives the size of all tensors.
std::string make_header(const std::vector<TensorSpec>& tensors, Metadata metadata,
                        const fs::path& path, FileRole role, uint64_t& data_bytes) {
  metadata["format"] = "pt";
  std::string text = "{\"__metadata__\":{";
  for (const auto& [key, value] : metadata) {
    if (text.back() != '{') text += ',';
    text += json_text(key, path, role) + ":" + json_text(value, path, role);
  }
  text += "}";
  data_bytes = 0;
  for (const TensorSpec& tensor : tensors) {
    const auto bytes = byte_size(tensor.dtype, tensor.shape);
    if (!bytes || *bytes > static_cast<uint64_t>(INT64_MAX) - data_bytes) {
      reject(role, path.string(),
             fmt::format("tensor {} has no valid size", shown_name(tensor.name)));
    }
    text += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[", json_text(tensor.name, path, role),
                        dtype_name(tensor.dtype));
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      text += fmt::format("{}{}", i ? "," : "", tensor.shape[i]);
    }
    text += fmt::format("],\"data_offsets\":[{},{}]}}", data_bytes, data_bytes + *bytes);
    data_bytes += *bytes;
  }
  text += "}";
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  if (text.size() > kMaxHeaderBytes) {
    reject(role, path.string(), "the names and shapes do not fit into a header of 100 MB",
           "write more shards");
  }
  const uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + text;
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const fs::path& path, FileRole role) {
  SafetensorsFile file;
  file.map_ = MappedFile::open(path, role);
  file.role_ = role;
  file.contents_ = parse_safetensors(file.map_->bytes(), path.string(), role);
  file.places_.reserve(file.entries().size());
  for (size_t i = 0; i < file.entries().size(); ++i) {
    file.places_.emplace(file.entries()[i].name, i);
  }
  return file;
}

const TensorEntry* SafetensorsFile::find(std::string_view name) const {
  const auto place = places_.find(name);
  return place == places_.end() ? nullptr : &contents_.entries[place->second];
}

const TensorEntry& SafetensorsFile::at(std::string_view name) const {
  if (const TensorEntry* entry = find(name)) return *entry;
  reject(role_, path().string(), fmt::format("expected a tensor {}, found none", shown_name(name)));
}

SafetensorsWriter::SafetensorsWriter(const fs::path& path, std::vector<TensorSpec> tensors,
                                     Metadata metadata, FileRole role, FileGrowth growth)
    : path_(path), tensors_(std::move(tensors)), file_(path, role, std::move(growth)) {
  sort_as_reference(tensors_);
  std::vector<std::string_view> names;
  for (const TensorSpec& tensor : tensors_) names.push_back(tensor.name);
  std::ranges::sort(names);
  const auto twice = std::ranges::adjacent_find(names);
  if (twice != names.end()) {
    reject(role, path_.string(), fmt::format("two tensors named {}", shown_name(*twice)));
  }
  if (std::ranges::binary_search(names, "__metadata__")) {
    reject(role, path_.string(), "no tensor may be named '__metadata__'");
  }
  header_ = make_header(tensors_, std::move(metadata), path_, role, bytes_left_);
  file_.write(header_);
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  if (bytes.size() > bytes_left_) {
    throw std::logic_error("more tensor bytes than announced for " + path_.string());
  }
  file_.write(bytes.data(), bytes.size());
  bytes_left_ -= bytes.size();
}

bool SafetensorsWriter::skip(uint64_t bytes) {
  if (bytes > bytes_left_ || !file_.skip(bytes)) return false;
  bytes_left_ -= bytes;
  return true;
}

void SafetensorsWriter::commit() {
  if (bytes_left_ > 0) {
    throw std::logic_error(
        fmt::format("{} tensor bytes missing for {}", bytes_left_, path_.string()));
  }
  file_.commit();
}

void write_safetensors(const fs::path& path, std::vector<TensorSpec> tensors,
                       const TensorProducer& produce, Metadata metadata, FileRole role,
                       FileGrowth growth) {
  SafetensorsWriter writer(path, std::move(tensors), std::move(metadata), role, std::move(growth));
  for (const TensorSpec& tensor : writer.tensors()) {
    if (writer.skip(tensor.num_bytes())) {
      produce(tensor, {});
      continue;
    }
    uint64_t written = 0;
    produce(tensor, [&](std::span<const std::byte> bytes) {
      written += bytes.size();
      writer.write(bytes);
    });
    if (written != tensor.num_bytes()) {
      throw std::logic_error(fmt::format("tensor {}: {} bytes announced, {} given", tensor.name,
                                         tensor.num_bytes(), written));
    }
  }
  writer.commit();
}

void write_safetensors(const fs::path& path, std::span<const TensorEntry> tensors,
                       Metadata metadata, FileRole role) {
  std::unordered_map<std::string_view, std::span<const std::byte>> bytes;
  for (const TensorEntry& tensor : tensors) bytes.emplace(tensor.name, tensor.bytes);
  write_safetensors(
      path, std::vector<TensorSpec>(tensors.begin(), tensors.end()),
      [&](const TensorSpec& tensor, const ByteSink& sink) { sink(bytes.at(tensor.name)); },
      std::move(metadata), role);
}

}  // namespace qianli::formats
