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
#include "qianli/base/version.h"
#include "qianli/formats/tensor.h"

namespace qianli::formats {

inline constexpr char kManifestName[] = "manifest.json";

// Where a run stands, apart from its tensors. Random numbers are functions of (seed, place), so the
// seed and the counts are all there is to know about them.
struct TrainingState {
  int64_t step = 0;              // training steps done
  int64_t updates_done = 0;      // optimizer updates done (skipped steps do not count)
  int64_t consumed_samples = 0;  // sequences taken from the data, in the order of the run
  uint64_t seed = 0;
  std::string data_fingerprint;  // of the data set that consumed_samples counts in
  std::string config_yaml;       // the resolved configuration of the run

  bool operator==(const TrainingState&) const = default;
};

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
  Dtype dtype = Dtype::kF32;
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
  std::string program = version();  // of the writer
  TrainingState state;
  Json model;  // config.json
  std::vector<TensorRecord> tensors;
  std::vector<FileRecord> files;  // all but the manifest

  bool operator==(const Manifest&) const = default;
};

// A tensor that is stored in one piece.
TensorRecord whole_tensor(TensorKind kind, const std::string& name, const TensorSpec& stored,
                          const std::string& file);

std::string to_json(const Manifest& manifest);
// The text of one manifest with the files and tensors of all: `parts` are texts of to_json() whose
// tensors may be slices only. Throws CheckpointError where together they are none that
// parse_manifest() would read.
std::string join_manifests(const Manifest& first, const std::vector<std::string>& parts);

// A manifest that came through can be read without further questions about itself: file names stay
// in the folder, no tensor stands twice, and the slices of each tensor cover it exactly once.
// Throws CheckpointError naming `source`, the tensor and the reason.
Manifest parse_manifest(std::string_view text, const std::string& source);
Manifest read_manifest(const std::filesystem::path& step_folder);

// Throws CheckpointError naming the first file that is not there with its size.
void expect_complete(const std::filesystem::path& step_folder, const Manifest& manifest);

}  // namespace qianli::formats
