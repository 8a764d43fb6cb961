// The configuration of a run: YAML file, then key=value overrides, then derived values, all
// checked.
//
//   const auto config = config::load("first.yaml", overrides);   // overrides: "optim.lr=3e-4", …
//
// Every failure is a ConfigError that names file, line and key. Options are declared in sections.h
// (fields) and options.h (keys, help, ranges); nothing else lists them.
#pragma once

#include <map>
#include <span>
#include <string>

#include "qianli/base/file.h"
#include "qianli/config/sections.h"
#include "qianli/config/tune_section.h"

namespace qianli::config {

struct Config {
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  OptimConfig optim;
  TuneConfig tune;
  std::string precision = "auto";  // auto, fp32, bf16, fp64
  ParallelConfig parallel;
  CheckpointConfig checkpoint;
  LogConfig log;
  RunConfig run;
  OpsConfig ops;
  std::string device = "auto";  // auto, cpu, cuda

  template <class Visitor>
  void fields(Visitor& v);
};

// Reads the file, applies the overrides in order (the last one wins), fills what follows from other
// values (data.seed, train.global_batch_size, optim.decay_steps, run.dir) and checks the whole.
// An override of a single value replaces it; `model=NAME` also drops inline model switches; a map
// given to a section sets the keys it names.
Config load(const fs::path& yaml, std::span<const std::string> overrides);
Config from_overrides_only(std::span<const std::string> overrides);
// The same from text; `source` stands for the file in messages and its stem in run.dir.
Config from_text(const std::string& yaml, const std::string& source,
                 std::span<const std::string> overrides);

// Checks that span several keys. load() has called it; call it again after changing a Config by
// hand.
void validate(const Config& config);
// What training cannot do without: a model, data.path, train.steps or train.epochs.
void require_for_training(const Config& config);
// Puts steps in the place of train.epochs, fills what follows from them, and checks the whole.
void set_steps(Config& config, int64_t steps);

// Every value that is set, as YAML that load() reads back to the same Config. Absent optionals are
// left out. Equal configs give equal bytes.
std::string to_yaml(const Config& config);

// The same values as JSON, indented.
std::string to_json(const Config& config);

// Op name → back end, for the ops that name one.
std::map<std::string, std::string> op_backends(const Config& config);

// Help on a key ("optim.lr") or a section ("optim"; "" lists the sections).
std::string explain(const std::string& key);
// The same as a JSON array: the key and everything below it.
std::string explain_json(const std::string& key);
// JSON Schema, draft 2020-12, for editors.
std::string json_schema();
// docs/config.md.
std::string markdown();

}  // namespace qianli::config
