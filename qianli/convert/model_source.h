// A model to convert: what it is, and where its parameters lie.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "qianli/convert/assemble.h"
#include "qianli/convert/megatron/layout.h"
#include "qianli/formats/manifest.h"
#include "qianli/model/companion_files.h"
#include "qianli/model/spec.h"

namespace qianli::convert {

// Called as bytes are written or compared: done of total, with what an earlier run wrote.
using ProgressFunction = std::function<void(uint64_t done, uint64_t total)>;

// A mixture of experts in place of each MLP (upcycle.h).
struct Upcycling {
  int64_t experts = 0;
  int64_t top_k = 2;
  uint64_t seed = 1234;  // of the routers' weights
};

struct SourceOptions {
  // A folder with config.json, or a preset: what the weights are of, where they do not say it
  // themselves.
  std::string config;
  // An adapter that is merged into the weights: PEFT's folder, or a Megatron checkpoint of LoRA.
  std::filesystem::path adapter;
  // Of a Megatron checkpoint of LoRA whose arguments do not say it.
  std::optional<double> lora_alpha;
  std::optional<Upcycling> upcycling;  // of a dense model, after the adapter
};

struct ModelSource;

// What a training run needs to go on, beside the weights: they are models, too, with other numbers.
struct OptimizerStates {
  formats::TrainingState training;  // without config_yaml and fingerprint where none is known
  std::shared_ptr<const ModelSource> weights;              // the most exact that are kept
  std::shared_ptr<const ModelSource> exp_avg, exp_avg_sq;  // buffers have zeros
};

struct ModelSource {
  std::string kind;                         // "Hugging Face folder", for people
  std::filesystem::path path;               // empty: in memory
  std::filesystem::path adapter;            // merged into it; empty: none
  std::optional<double> lora_alpha;         // that of the options, where it was needed
  std::optional<Upcycling> upcycling;       // that it was made by
  std::shared_ptr<const ModelSource> base;  // that an adapter or upcycling changed; null: none did
  model::ModelSpec spec;
  Table table;
  std::unique_ptr<ParameterReader> reader;  // refers to the table
  std::filesystem::path companions;  // folder of tokenizer and generation settings; empty: none
  std::vector<model::CompanionFile> companion_files;  // of a form that holds them itself
  std::optional<MegatronLayout> layout;               // of a Megatron checkpoint
  std::optional<OptimizerStates> states;              // of a training run that can go on
  // Of a form that rounds numbers: what becomes of a model that is written to it as it lies here.
  // The result refers to `source`.
  std::function<std::unique_ptr<ModelSource>(const ModelSource& source)> after_storing;

  // "file: name" of tensors that are in the files and belong to no parameter.
  const std::vector<std::string>& unused() const {
    return base ? base->unused() : reader->unused();
  }
  // Those that a model of this family may come with and does without: buffers, other modalities.
  const std::vector<std::string>& left_out() const {
    return base ? base->left_out() : reader->left_out();
  }
};

// That of options.config, which is given. Throws ConfigError.
model::ModelSpec spec_of_config(const SourceOptions& options);

// Tokenizer and generation settings, from the folder or as the form held them.
std::vector<model::CompanionFile> companions_of(const ModelSource& model);

// The folder in which they lie: the model's own, or `scratch`, where those that the form holds are
// written. Empty: there are none.
std::filesystem::path companion_folder(const ModelSource& model,
                                       const std::filesystem::path& scratch);

// Whether something stands at `path` that open_model would try to open.
bool is_model(const std::filesystem::path& path);
// Opens whatever stands at `path`; nothing but headers is read. Throws CheckpointError or
// ConfigError.
std::unique_ptr<ModelSource> open_model(const std::filesystem::path& path,
                                        const SourceOptions& options = {});

}  // namespace qianli::convert
