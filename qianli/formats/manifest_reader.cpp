// Reading manifest.json: every field checked, every error with its place.
#include <fmt/core.h>

#include <algorithm>
#include <set>
#include <unordered_set>

#include "qianli/formats/manifest.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

constexpr size_t kMaxAxes = 8;
constexpr size_t kMaxName = 1024;
// Comparing the slices of a tensor pair by pair stays cheap up to here.
constexpr size_t kMaxSlices = 4096;

class ManifestReader {
 public:
  explicit ManifestReader(const std::string& source) : source_(source) {}

  Manifest read(const Json& json);

 private:
  [[noreturn]] void refuse(const std::string& reason, const std::string& hint = {}) const {
    reject(FileRole::kCheckpoint, source_,
           place_.empty() ? reason : fmt::format("{}: {}", place_, reason), hint);
  }
  const Json& field(const Json& object, const char* key, Json::value_t type) const;
  std::string text(const Json& object, const char* key) const;
  std::string name(const Json& object, const char* key) const;
  std::string file_name(const Json& object, const char* key) const;
  int64_t count(const Json& object, const char* key) const;
  uint64_t whole(const Json& object, const char* key) const;
  std::vector<int64_t> sizes(const Json& object, const char* key, int64_t lowest) const;

  void read_files(const Json& json, Manifest& manifest);
  TensorRecord read_tensor(const Json& json);
  TensorSlice read_slice(const Json& json, const TensorRecord& tensor) const;
  void check_cover(const TensorRecord& tensor) const;

  const std::string& source_;
  std::string place_;  // "tensor 'x' (weight)"
  std::unordered_set<std::string> files_;
};

const Json& ManifestReader::field(const Json& object, const char* key, Json::value_t type) const {
  if (!object.is_object()) refuse(fmt::format("expected an object, got {}", object.type_name()));
  const auto value = object.find(key);
  if (value == object.end()) refuse(fmt::format("expected a field '{}', found none", key));
  const bool fits =
      type == Json::value_t::number_unsigned ? value->is_number_unsigned() : value->type() == type;
  if (!fits) {
    refuse(fmt::format(
        "field '{}': expected {}, got {}", key,
        type == Json::value_t::number_unsigned ? "a whole number from 0" : Json(type).type_name(),
        value->type_name()));
  }
  return *value;
}

std::string ManifestReader::text(const Json& object, const char* key) const {
  return field(object, key, Json::value_t::string).get<std::string>();
}

std::string ManifestReader::name(const Json& object, const char* key) const {
  std::string value = text(object, key);
  if (value.empty() || value.size() > kMaxName) {
    refuse(fmt::format("field '{}': expected 1 to {} bytes, got {}", key, kMaxName, value.size()));
  }
  return value;
}

// The name of a file in the folder and nothing else: a manifest must not reach other files.
std::string ManifestReader::file_name(const Json& object, const char* key) const {
  std::string value = name(object, key);
  const bool plain = value != "." && value != ".." && value.size() < 256 &&
                     std::ranges::none_of(value, [](char c) {
                       return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20;
                     });
  if (!plain) {
    refuse(fmt::format("field '{}': expected the name of a file in this folder, got {}", key,
                       shown_name(value)));
  }
  return value;
}

uint64_t ManifestReader::whole(const Json& object, const char* key) const {
  return field(object, key, Json::value_t::number_unsigned).get<uint64_t>();
}

int64_t ManifestReader::count(const Json& object, const char* key) const {
  const uint64_t value = whole(object, key);
  if (value > static_cast<uint64_t>(INT64_MAX)) {
    refuse(fmt::format("field '{}': {} is too large", key, value));
  }
  return static_cast<int64_t>(value);
}

std::vector<int64_t> ManifestReader::sizes(const Json& object, const char* key,
                                           int64_t lowest) const {
  const Json& list = field(object, key, Json::value_t::array);
  if (list.size() > kMaxAxes) {
    refuse(fmt::format("field '{}': expected at most {} axes, got {}", key, kMaxAxes, list.size()));
  }
  std::vector<int64_t> values;
  for (const Json& item : list) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX) ||
        item.get<int64_t>() < lowest) {
      refuse(fmt::format("field '{}': expected whole numbers from {}", key, lowest));
    }
    values.push_back(item.get<int64_t>());
  }
  return values;
}

void ManifestReader::read_files(const Json& json, Manifest& manifest) {
  for (const Json& item : field(json, "files", Json::value_t::array)) {
    place_ = "files";
    FileRecord file{.name = file_name(item, "name"), .bytes = whole(item, "bytes")};
    place_ = fmt::format("file {}", shown_name(file.name));
    const std::string hash = text(item, "xxh3");
    const bool digits = hash.size() == 16 && std::ranges::all_of(hash, [](char c) {
                          return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
                        });
    if (!digits) refuse("field 'xxh3': expected 16 hexadecimal digits");
    file.xxh3 = std::stoull(hash, nullptr, 16);
    if (!files_.insert(file.name).second) refuse("stands twice");
    manifest.files.push_back(std::move(file));
  }
  place_.clear();
}

TensorSlice ManifestReader::read_slice(const Json& json, const TensorRecord& tensor) const {
  TensorSlice slice{.file = file_name(json, "file"),
                    .key = name(json, "key"),
                    .offset = sizes(json, "offset", 0),
                    .shape = sizes(json, "shape", 1)};
  if (!files_.contains(slice.file)) {
    refuse(
        fmt::format("its slice lies in {}, which 'files' does not list", shown_name(slice.file)));
  }
  if (slice.offset.size() != tensor.shape.size() || slice.shape.size() != tensor.shape.size()) {
    refuse(fmt::format("expected slices of {} axes", tensor.shape.size()));
  }
  for (size_t axis = 0; axis < tensor.shape.size(); ++axis) {
    // Subtracting, because a sum of hostile numbers overflows.
    if (slice.shape[axis] > tensor.shape[axis] ||
        slice.offset[axis] > tensor.shape[axis] - slice.shape[axis]) {
      refuse(fmt::format("slice {} in {} leaves the tensor along axis {}", shown_name(slice.key),
                         slice.file, axis));
    }
  }
  return slice;
}

bool overlap(const TensorSlice& a, const TensorSlice& b) {
  for (size_t axis = 0; axis < a.shape.size(); ++axis) {
    if (a.offset[axis] + a.shape[axis] <= b.offset[axis] ||
        b.offset[axis] + b.shape[axis] <= a.offset[axis]) {
      return false;
    }
  }
  return true;
}

int64_t volume(const std::vector<int64_t>& shape) {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

// Slices inside the tensor that do not overlap and hold as many elements as it cover it.
void ManifestReader::check_cover(const TensorRecord& tensor) const {
  std::vector<const TensorSlice*> slices;
  for (const TensorSlice& slice : tensor.slices) slices.push_back(&slice);
  const auto begin = [](const TensorSlice* s) { return s->offset.empty() ? 0 : s->offset[0]; };
  const auto rows = [](const TensorSlice* s) { return s->shape.empty() ? 1 : s->shape[0]; };
  std::ranges::sort(slices, {}, begin);
  int64_t covered = 0;
  const int64_t total = volume(tensor.shape);
  for (size_t i = 0; i < slices.size(); ++i) {
    const int64_t end = begin(slices[i]) + rows(slices[i]);
    for (size_t j = i + 1; j < slices.size() && begin(slices[j]) < end; ++j) {
      if (overlap(*slices[i], *slices[j])) {
        refuse(fmt::format("slices {} in {} and {} in {} overlap", shown_name(slices[i]->key),
                           slices[i]->file, shown_name(slices[j]->key), slices[j]->file));
      }
    }
    covered += volume(slices[i]->shape);  // without overlap at most `total`
  }
  if (covered != total) {
    refuse(fmt::format("its slices cover {} of {} elements", covered, total));
  }
}

TensorRecord ManifestReader::read_tensor(const Json& json) {
  place_ = "tensors";
  TensorRecord tensor{.name = name(json, "name")};
  place_ = fmt::format("tensor {}", shown_name(tensor.name));
  const std::string kind = text(json, "kind");
  bool known = false;
  for (const auto candidate : {TensorKind::kWeight, TensorKind::kExpAvg, TensorKind::kExpAvgSq}) {
    if (kind != kind_name(candidate)) continue;
    tensor.kind = candidate;
    known = true;
  }
  if (!known) {
    refuse(fmt::format("field 'kind': expected weight, exp_avg or exp_avg_sq, got {}",
                       shown_name(kind)));
  }
  place_ += fmt::format(" ({})", kind);
  const std::string dtype = text(json, "dtype");
  const auto known_dtype = dtype_from_name(dtype);
  if (!known_dtype) refuse(fmt::format("unknown dtype {}", shown_name(dtype)));
  if (bit_size(*known_dtype) < 8) refuse(fmt::format("elements of {} cannot be cut", dtype));
  tensor.dtype = *known_dtype;
  tensor.shape = sizes(json, "shape", 1);
  if (!byte_size(tensor.dtype, tensor.shape)) refuse("the size of its shape overflows");
  const Json& slices = field(json, "slices", Json::value_t::array);
  if (slices.empty() || slices.size() > kMaxSlices) {
    refuse(fmt::format("expected 1 to {} slices, got {}", kMaxSlices, slices.size()));
  }
  for (const Json& slice : slices) tensor.slices.push_back(read_slice(slice, tensor));
  check_cover(tensor);
  return tensor;
}

Manifest ManifestReader::read(const Json& json) {
  if (!json.is_object() || json.value("format", Json()) != "qianli-checkpoint") {
    refuse("expected \"format\": \"qianli-checkpoint\"", "this is no Qianli checkpoint");
  }
  const uint64_t version = whole(json, "version");
  if (version != 1) {
    refuse(fmt::format("expected version 1, got {}", version),
           "a newer program wrote this checkpoint");
  }
  Manifest manifest;
  manifest.program = text(json, "program");
  manifest.state = {.step = count(json, "step"),
                    .updates_done = count(json, "updates_done"),
                    .consumed_samples = count(json, "consumed_samples"),
                    .seed = whole(json, "seed"),
                    .data_fingerprint = text(json, "data_fingerprint"),
                    .config_yaml = text(json, "config")};
  manifest.model = field(json, "model", Json::value_t::object);
  read_files(json, manifest);
  std::set<std::pair<TensorKind, std::string>> seen;
  for (const Json& item : field(json, "tensors", Json::value_t::array)) {
    manifest.tensors.push_back(read_tensor(item));
    const TensorRecord& tensor = manifest.tensors.back();
    if (!seen.emplace(tensor.kind, tensor.name).second) refuse("stands twice");
  }
  return manifest;
}

}  // namespace

Manifest parse_manifest(std::string_view text, const std::string& source) {
  return ManifestReader(source).read(parse_json(text, source, FileRole::kCheckpoint));
}

}  // namespace qianli::formats
