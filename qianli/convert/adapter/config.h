// adapter_config.json of a PEFT adapter: what of it says how the adapter is merged.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/config/name_pattern.h"

namespace qianli::convert {

constexpr int64_t kMaxAdapterRank = int64_t{1} << 20;

class AdapterConfig {
 public:
  // Throws CheckpointError naming the key for everything but LoRA (with rsLoRA and DoRA) that adds
  // a product to the weights of a base model as it is published: other methods, initialisations
  // that change the base's own weights, replicated layers, adapters of single tokens.
  AdapterConfig(const OrderedJson& config, const std::string& source);

  bool use_dora() const { return use_dora_; }
  // Tensors of experts that have adapters, by the ends of their names.
  const std::vector<std::string>& target_parameters() const { return target_parameters_; }
  // Of the module of this name ("model.layers.0.self_attn.q_proj").
  int64_t rank(const std::string& module) const;
  // lora_alpha / rank, or by its root with rsLoRA.
  double scale(const std::string& module) const;
  // What was added is taken off.
  void negate();

 private:
  struct Exception {  // an entry of rank_pattern or alpha_pattern
    config::NamePattern pattern;
    double value;
  };
  static std::vector<Exception> read_patterns(const OrderedJson& config, const char* key,
                                              const std::string& source);
  static double value_of(const std::vector<Exception>& exceptions, const std::string& module,
                         double otherwise);

  int64_t rank_ = 8;
  double alpha_ = 8;
  bool use_rslora_ = false;
  bool use_dora_ = false;
  std::vector<std::string> target_parameters_;
  std::vector<Exception> ranks_, alphas_;
};

// FOLDER/adapter_config.json (at most 16 MB).
OrderedJson read_adapter_json(const std::filesystem::path& folder);
AdapterConfig read_adapter_config(const std::filesystem::path& folder);

}  // namespace qianli::convert
