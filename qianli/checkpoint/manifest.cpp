#include "qianli/checkpoint/manifest.h"

#include <fmt/core.h>

#include "qianli/base/file.h"

namespace qianli::checkpoint {
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

std::string to_json(const Manifest& manifest) {
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
                       {"dtype", formats::dtype_name(tensor.dtype)},
                       {"shape", tensor.shape},
                       {"slices", std::move(slices)}});
  }
  OrderedJson& files = json["files"] = OrderedJson::array();
  for (const FileRecord& file : manifest.files) {
    files.push_back(
        {{"name", file.name}, {"bytes", file.bytes}, {"xxh3", fmt::format("{:016x}", file.xxh3)}});
  }
  // Bytes of a configuration that are no UTF-8 must not stop a save.
  return json.dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

Manifest read_manifest(const fs::path& step_folder) {
  const fs::path path = step_folder / kManifestName;
  return parse_manifest(read_file(path, FileRole::kCheckpoint, kMaxManifestBytes), path.string());
}

bool files_complete(const fs::path& step_folder, const Manifest& manifest, std::string& problem) {
  for (const FileRecord& file : manifest.files) {
    std::error_code error;
    const uint64_t bytes = fs::file_size(step_folder / file.name, error);
    if (error) {
      problem = fmt::format("{}: {}", (step_folder / file.name).string(), error.message());
      return false;
    }
    if (bytes != file.bytes) {
      problem = fmt::format("{}: expected {} bytes, got {}", (step_folder / file.name).string(),
                            file.bytes, bytes);
      return false;
    }
  }
  return true;
}

}  // namespace qianli::checkpoint
