// The parameter table of a model as a training sees it: which parameters stay as they are, and the
// adapters of low rank beside weights (LoRA, Hu et al. 2021). Beside X.weight [out, in], or
// [experts, out, in], stand, where X has adapters,
//
//   X.lora_A            [g r, in]      or [experts, g r, in]
//   X.lora_B            [rows, r]      or [experts, rows, r]
//   X.lora_magnitude    [rows]         with DoRA, not of experts
//
// A weight may hold several modules of a Hugging Face folder (linear_qkv has q_proj, k_proj and
// v_proj). Each of the g that are adapted has r rows of A and its own rows of B, so that the
// adapters are those that PEFT makes for that folder, module by module; rows are those of the
// weight that have an adapter, one module behind the other. How ranks share A and B follows from
// the weight: what cuts its rows cuts those of B, and what cuts its columns those of A.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qianli/config/tune_section.h"
#include "qianli/model/parameter_table.h"

namespace qianli::model {

struct TunedEntry {
  ParameterEntry
      entry;  // its names in a Hugging Face folder are those of PEFT where it is an adapter's
  bool frozen = false;     // no gradient, no states of an optimizer
  bool quantized = false;  // kept in few bits (tune.quantization)
};

// The model's parameters in their order, each weight followed by its adapters. Throws ConfigError
// for a name that matches nothing.
std::vector<TunedEntry> tuned_table(const ModelSpec& spec, const config::TuneConfig& tune);

// Rows of a weight that are a module of a Hugging Face folder.
struct ModuleRows {
  std::string module;  // model.layers.0.self_attn.q_proj; of experts that of the first
  int64_t first = 0, count = 0;
};
// Those of X.weight that have an adapter.
std::vector<ModuleRows> adapted_rows(const ParameterEntry& weight, const config::TuneConfig& tune);

// training_flops() less the products that frozen matrices do without, with those of adapters.
double tuned_training_flops(const ModelSpec& spec, const config::TuneConfig& tune,
                            int64_t sequences, int64_t sequence_length);

bool is_adapter(const std::string& parameter);
// "X.weight" → "X"
std::string module_of(const std::string& parameter);

}  // namespace qianli::model
