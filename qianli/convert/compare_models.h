// Two models, or two checkpoints of training: where they differ, tensor by tensor in the order of
// the forward pass.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "qianli/convert/model_source.h"
#include "qianli/convert/tensor_difference.h"
#include "qianli/model/spec_fields.h"

namespace qianli::convert {

struct ComparedModel {
  std::filesystem::path path;       // of a run: its newest checkpoint
  std::string kind;                 // "Hugging Face folder", for people
  std::vector<std::string> dtypes;  // that its parameters are stored in: "F32"
  // "file: name" of tensors that belong to no parameter and were not compared.
  std::vector<std::string> unused;
  // Copies of parameters in the files that are not what they should repeat.
  std::vector<std::string> differing_copies;
};

struct ModelComparison {
  ComparedModel a, b;
  std::vector<model::FieldDifference> spec;
  // Of two Qianli checkpoints: step, updates, samples, seed and data that differ.
  std::vector<model::FieldDifference> state;
  std::string config_a, config_b;  // and their resolved configurations, as YAML
  size_t tensors = 0;              // on either side
  int64_t elements = 0;            // that were compared
  // Those that are not equal bit for bit: parameters in forward order, then the optimizer's states
  // ("exp_avg.NAME") in the same order.
  std::vector<TensorDifference> differences;

  // The first tensor, in that order, that is not within the tolerance; null: there is none.
  const TensorDifference* first(double tolerance) const;
  // Spec and state are the same, copies what they repeat, and all tensors within the tolerance.
  bool equal(double tolerance) const;
};

struct CompareOptions {
  SourceOptions from;         // of both
  bool weights_only = false;  // the models alone, without state and optimizer
};

// Opens and compares whatever open_model reads. Numbers of different types are compared as float32,
// or float64 where one side has it; a type alone is no difference. A few rows of tensors are in
// memory at a time. Throws what open_model throws; StoppedError.
ModelComparison compare_models(const std::filesystem::path& a, const std::filesystem::path& b,
                               const CompareOptions& options, const ProgressFunction& progress);

}  // namespace qianli::convert
