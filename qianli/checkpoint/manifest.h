// manifest.json: what a checkpoint holds. Tensors are global; each is cut into slices that lie in
// files, so that whoever wrote it, any layout reads it.
//
//   {"format": "qianli-checkpoint", "version": 1, "program": "0.1.0",
//    "step", "updates_done", "consumed_samples", "seed", "data_fingerprint",
//    "config": resolved YAML text, "model": {config.json},
//    "tensors": [{"name", "kind": "weight"|"exp_avg"|"exp_avg_sq", "dtype": "F32", "shape": [...],
//                 "slices": [{"file", "key", "offset": [begin along each axis], "shape"}]}],
//    "files": [{"name", "bytes", "xxh3": 16 hexadecimal digits of XXH3_64bits}]}
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/checkpoint/training_state.h"
#include "qianli/formats/dtype.h"

namespace qianli::checkpoint {

inline constexpr char kManifestName[] = "manifest.json";

enum class TensorKind { kWeight, kExpAvg, kExpAvgSq };
std::string_view kind_name(TensorKind kind);

// A box of a tensor: [offset, offset + shape) along each axis, stored under `key` of a safetensors
// file in the folder.
struct TensorSlice {
  std::string file;
  std::string key;
  std::vector<int64_t> offset;
  std::vector<int64_t> shape;

  bool operator==(const TensorSlice&) const = default;
};

struct TensorRecord {
  std::string name;
  TensorKind kind = TensorKind::kWeight;
  formats::Dtype dtype = formats::Dtype::kF32;
  std::vector<int64_t> shape;
  std::vector<TensorSlice> slices;

  bool operator==(const TensorRecord&) const = default;
};

struct FileRecord {
  std::string name;
  uint64_t bytes = 0;
  uint64_t xxh3 = 0;

  bool operator==(const FileRecord&) const = default;
};

struct Manifest {
  std::string program;  // version of the writer
  TrainingState state;
  Json model;  // config.json
  std::vector<TensorRecord> tensors;
  std::vector<FileRecord> files;  // all but the manifest

  bool operator==(const Manifest&) const = default;
};

std::string to_json(const Manifest& manifest);

// A manifest that came through can be read without further questions about itself: file names stay
// in the folder, no tensor stands twice, and the slices of each tensor cover it exactly once.
// Throws CheckpointError naming `source`, the tensor and the reason.
Manifest parse_manifest(std::string_view text, const std::string& source);
Manifest read_manifest(const std::filesystem::path& step_folder);

// Whether all files are there with their sizes; `problem` tells which is not.
bool files_complete(const std::filesystem::path& step_folder, const Manifest& manifest,
                    std::string& problem);

}  // namespace qianli::checkpoint
