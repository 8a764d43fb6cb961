// The files of one checkpoint, written into a folder that nobody sees yet.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "qianli/formats/manifest.h"
#include "qianli/model/companion_files.h"
#include "qianli/model/spec.h"
#include "qianli/nn/parameter_set.h"

namespace qianli::checkpoint {

// What one save writes: the flat buffers on the CPU, and where each parameter lies in them.
struct StepContents {
  struct Place {
    std::string name;
    std::vector<int64_t> shape;
    nn::FlatPlace flat;
    at::Tensor buffer;  // on the CPU; defined for what lies outside the flat buffers
  };

  formats::TrainingState state;
  model::ModelSpec spec;
  std::vector<model::CompanionFile> companions;
  std::vector<Place> places;
  at::Tensor weights, exp_avg, exp_avg_sq;  // [flat size] each, float32 or float64, contiguous
  int64_t max_shard_bytes = 0;

  uint64_t num_bytes() const;  // of tensors and companions
};

// Writes and flushes all files, the manifest last. Throws CheckpointError.
void write_step(const std::filesystem::path& folder, const StepContents& contents);

}  // namespace qianli::checkpoint
