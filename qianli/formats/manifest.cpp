#include "qianli/formats/manifest.h"

#include <fmt/core.h>

#include <map>

#include "qianli/base/file.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

constexpr uint64_t kMaxManifestBytes = uint64_t{256} << 20;

}  // namespace

std::string_view kind_name(TensorKind kind) {
  switch (kind) {
    case TensorKind::kWeight:
      return "weight";
    case TensorKind::kExpAvg:
      return "exp_avg";
    case TensorKind::kExpAvgSq:
      return "exp_avg_sq";
  }
  return "";
}

TensorRecord whole_tensor(TensorKind kind, const std::string& name, const TensorSpec& stored,
                          const std::string& file) {
  return {.name = name,
          .kind = kind,
          .dtype = stored.dtype,
          .shape = stored.shape,
          .slices = {{.file = file,
                      .key = stored.name,
                      .offset = std::vector<int64_t>(stored.shape.size(), 0),
                      .shape = stored.shape}}};
}

namespace {

// Bytes of a configuration that are no UTF-8 must not stop a save.
std::string text_of(const OrderedJson& json) {
  return json.dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

OrderedJson json_of(const Manifest& manifest) {
  OrderedJson json;
  json["format"] = "qianli-checkpoint";
  json["version"] = 1;
  json["program"] = manifest.program;
  json["step"] = manifest.state.step;
  json["updates_done"] = manifest.state.updates_done;
  json["consumed_samples"] = manifest.state.consumed_samples;
  json["seed"] = manifest.state.seed;
  json["data_fingerprint"] = manifest.state.data_fingerprint;
  json["config"] = manifest.state.config_yaml;
  json["model"] = manifest.model;
  OrderedJson& tensors = json["tensors"] = OrderedJson::array();
  for (const TensorRecord& tensor : manifest.tensors) {
    OrderedJson slices = OrderedJson::array();
    for (const TensorSlice& slice : tensor.slices) {
      slices.push_back({{"file", slice.file},
                        {"key", slice.key},
                        {"offset", slice.offset},
                        {"shape", slice.shape}});
    }
    tensors.push_back({{"name", tensor.name},
                       {"kind", kind_name(tensor.kind)},
                       {"dtype", dtype_name(tensor.dtype)},
                       {"shape", tensor.shape},
                       {"slices", std::move(slices)}});
  }
  OrderedJson& files = json["files"] = OrderedJson::array();
  for (const FileRecord& file : manifest.files) {
    files.push_back(
        {{"name", file.name}, {"bytes", file.bytes}, {"xxh3", fmt::format("{:016x}", file.xxh3)}});
  }
  return json;
}

}  // namespace

std::string to_json(const Manifest& manifest) { return text_of(json_of(manifest)); }

std::string join_manifests(const Manifest& first, const std::vector<std::string>& parts) {
  OrderedJson joined = json_of(first);
  std::map<std::pair<std::string, std::string>, size_t> places;  // of (kind, name)
  for (const std::string& part : parts) {
    OrderedJson json = parse_ordered_json(part, "a rank's manifest", FileRole::kCheckpoint);
    for (OrderedJson& file : json.at("files")) joined["files"].push_back(std::move(file));
    for (OrderedJson& tensor : json.at("tensors")) {
      const auto [place, fresh] = places.emplace(
          std::pair(tensor.at("kind").get<std::string>(), tensor.at("name").get<std::string>()),
          joined["tensors"].size());
      if (fresh) {
        joined["tensors"].push_back(std::move(tensor));
        continue;
      }
      for (OrderedJson& slice : tensor.at("slices")) {
        joined["tensors"][place->second]["slices"].push_back(std::move(slice));
      }
    }
  }
  std::string text = text_of(joined);
  parse_manifest(text, "the manifest of all ranks");
  return text;
}

Manifest read_manifest(const fs::path& step_folder) {
  const fs::path path = step_folder / kManifestName;
  return parse_manifest(read_file(path, FileRole::kCheckpoint, kMaxManifestBytes), path.string());
}

void expect_complete(const fs::path& step_folder, const Manifest& manifest) {
  constexpr const char* kHint = "the checkpoint is incomplete";
  for (const FileRecord& file : manifest.files) {
    const std::string path = (step_folder / file.name).string();
    std::error_code error;
    const uint64_t bytes = fs::file_size(path, error);
    if (error) reject(FileRole::kCheckpoint, path, error.message(), kHint);
    if (bytes == file.bytes) continue;
    reject(FileRole::kCheckpoint, path, fmt::format("expected {} bytes, got {}", file.bytes, bytes),
           kHint);
  }
}

}  // namespace qianli::formats
