// The files of one checkpoint, written into a folder that nobody sees yet.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "qianli/formats/box.h"
#include "qianli/formats/manifest.h"
#include "qianli/model/companion_files.h"
#include "qianli/model/spec.h"

namespace qianli::checkpoint {

// What one rank writes in a save.
struct StepContents {
  struct Piece {
    formats::TensorKind kind = formats::TensorKind::kWeight;
    std::string name;
    std::vector<int64_t> shape;  // of the whole tensor
    formats::Box box;            // this part of it
    at::Tensor values;           // [elements of the box] on the CPU, float32 or float64, contiguous
  };

  formats::TrainingState state;
  model::ModelSpec spec;
  bool wide = false;  // weights are float64
  std::vector<model::CompanionFile> companions;
  std::vector<Piece> pieces;
  int64_t max_shard_bytes = 0;
  int64_t rank = 0, ranks = 1;

  uint64_t num_bytes() const;  // of tensors and companions
};

// Writes and flushes the rank's tensors; what it returns knows them only.
formats::Manifest write_pieces(const std::filesystem::path& folder, const StepContents& contents);
// Writes and flushes what a checkpoint has once, the manifest last: of the tensors and files that
// the ranks' manifests name. Throws CheckpointError, too where they are not a whole checkpoint.
void write_rest(const std::filesystem::path& folder, const StepContents& contents,
                const std::vector<std::string>& manifests);

}  // namespace qianli::checkpoint
