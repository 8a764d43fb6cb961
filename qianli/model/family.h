// A family as data: how its config.json is spelled, which keys it refuses, what its tensors are
// called. Each family is one file in families/ and one line in family.cpp.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/model/spec.h"

namespace qianli::model {

class ConfigReader;

// Names of tensors in a Hugging Face folder, without ".weight" and ".bias". Those of a layer follow
// `layer` with {} replaced by the layer's number. Empty: the family has no such tensor.
struct ForeignNames {
  std::string optional_prefix;  // some folders leave it out (openai-community/gpt2)
  std::string embedding;
  std::string position_embedding;
  std::string layer;
  std::string input_norm;
  std::vector<std::string> qkv;  // {q, k, v}, or one tensor that holds all their rows
  std::string attention_out;
  std::string query_norm;
  std::string key_norm;
  std::string mlp_norm;
  std::vector<std::string> mlp_in;  // {gate, up}, or {up} of an MLP without gate
  std::string mlp_out;
  std::string final_norm;
  std::string output;
  bool input_major = false;  // matrices inside the layers are stored [in, out] (GPT-2's Conv1D)
};

// A key that changes the mathematics when it holds anything but one of `neutral` (or null).
struct Guard {
  std::string key;
  std::vector<Json> neutral;
};

struct Family {
  std::string model_type;
  std::string architecture;  // the class transformers builds for language modelling
  ModelSpec traits;          // switches that follow from the family; sizes are left open
  ForeignNames names;
  std::vector<Guard> guards;
  void (*read)(const ConfigReader& config, ModelSpec& spec);  // `spec` starts as the traits
  void (*write)(const ModelSpec& spec, OrderedJson& config);
};

std::span<const Family* const> families();
std::vector<std::string> family_names();
// Throws ConfigError naming the known families.
const Family& find_family(std::string_view model_type);

}  // namespace qianli::model
