// The border between the program and its engine. The program (command line, ground floor) starts in
// milliseconds; the engine (upper floor, LibTorch) is a shared library opened by the commands that
// compute.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qianli/config/config.h"
#include "qianli/convert/model_source.h"

namespace qianli::app {

struct GenerateArguments {
  std::string model;  // folder
  std::vector<std::string> prompts;
  int64_t max_new_tokens = 128;
  // Sampling: what is not given comes from the model's generation_config.json; greedy where neither
  // that file nor any of these asks for sampling.
  bool greedy = false;
  std::optional<double> temperature, top_p, repetition_penalty;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;
  bool ignore_eos = false;
  bool special_tokens = true;  // what the tokenizer adds to a text, for example a leading <s>
  std::string precision = "auto";
  std::string device = "auto";
  bool json = false;
};

struct ScoreArguments {
  std::string model;
  std::string tokens_file;  // JSON: [[ids…], …]
  std::string logits_file;  // safetensors to write, empty: none
  std::string precision = "fp32";
  std::string device = "auto";
  bool json = false;
};

// The same tokens through two models, in float32.
struct LogitsArguments {
  std::string first, second;
  convert::SourceOptions from;  // of the first; its config is the second's too
};
struct LogitsDifference {
  int64_t tokens = 0;
  double largest = 0;        // of the differences
  double largest_logit = 0;  // of the first's
};

// The engine's entry points, one per command that computes. They throw qianli::Error.
struct EngineApi {
  void (*pretrain)(const config::Config& config);
  void (*sft)(const config::Config& config);
  void (*generate)(const GenerateArguments& arguments);
  void (*score)(const ScoreArguments& arguments);
  LogitsDifference (*compare_logits)(const LogitsArguments& arguments);
  void (*doctor)(bool json);
  void (*backends)(bool json);
};

// Opens libqianli_engine.so beside the program (once). Throws ConfigError, saying what is missing.
const EngineApi& engine();
// Whether it stands there.
bool has_engine();

}  // namespace qianli::app
