// The border between the program and its engine. The program (command line, ground floor) starts in
// milliseconds; the engine (upper floor, LibTorch) is a shared library opened by the commands that
// compute.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/config/config.h"
#include "qianli/convert/model_source.h"

namespace qianli::app {

struct ModelArguments {
  std::string model;  // folder or file
  std::string precision = "auto";
  std::string device = "auto";
  std::vector<std::string> adapters;  // folders, NAME=FOLDER in `serve`
  int64_t speculate = 0;              // tokens drafted at a time; 0: none
  std::string quantize = "none";
};

// What is not given comes from the model's generation_config.json; greedy where neither that file
// nor any of these asks for sampling.
struct SamplingArguments {
  bool greedy = false;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;
  double presence_penalty = 0, frequency_penalty = 0;
  std::vector<std::string> logit_bias;  // ID=BIAS
};

struct GenerateArguments {
  ModelArguments model;
  std::vector<std::string> prompts;
  int64_t max_new_tokens = 128;
  SamplingArguments sampling;
  std::vector<std::string> stop, choices;
  int64_t num_beams = 1;
  double length_penalty = 1.0;
  int64_t log_probs = -1;  // of each token and so many of the best; below 0: none
  int64_t batch = 8;       // prompts at a time
  bool ignore_eos = false;
  bool special_tokens = true;  // what the tokenizer adds to a text, for example a leading <s>
  bool json = false;
};

struct ChatArguments {
  ModelArguments model;
  SamplingArguments sampling;
  int64_t max_new_tokens = 0;  // 0: what the context has room for
  std::string system;
  std::string template_name;  // empty: the model's own
  OrderedJson variables;      // of the model's own template
  std::string load;           // a conversation to go on with
  int64_t history_turns = 0;  // that the model is shown; 0: all that fit
  bool show_thinking = false;
};

struct ServeArguments {
  ModelArguments model;
  std::string name;  // that clients ask for; empty: the folder's
  std::string host = "127.0.0.1";
  int port = 8000;
  std::string api_key;
  std::string template_name;
  int64_t max_sequences = 16, max_waiting = 48;
  int64_t max_tokens = 0;  // of an answer; 0: the model's context
  uint64_t cache_bytes = 0;
  int64_t drain_seconds = 30;
};

struct ScoreArguments {
  std::string model;
  std::string adapter;      // a folder; empty: none
  std::string tokens_file;  // JSON: [[ids…], …]
  std::string logits_file;  // safetensors to write, empty: none
  std::string precision = "fp32";
  std::string device = "auto";
  std::string quantize = "none";
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
  void (*chat)(const ChatArguments& arguments);
  void (*serve)(const ServeArguments& arguments);
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
