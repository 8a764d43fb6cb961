// The section `tune`: what of a model training changes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qianli::config {

// A name, or a pattern of names.
struct NameMatch {
  static constexpr bool kShorthand = true;  // a scalar sets the first field

  std::string match;

  template <class Visitor>
  void fields(Visitor& v);
};

struct TuneConfig {
  std::string method = "full";  // full, lora
  std::vector<NameMatch> freeze;
  int64_t freeze_layers = 0;
  int64_t r = 8;
  double alpha = 16;
  bool use_rslora = false;
  bool use_dora = false;
  std::vector<NameMatch> target_modules;  // empty: every linear layer
  std::string layers;                     // empty: all
  std::vector<NameMatch> modules_to_save;
  double loraplus_lr_ratio = 1;
  std::optional<int64_t> lu_lora_final_layer_index;  // absent: every layer learns by gradients
  double lu_lora_lr = 1.25e-6;
  double lu_lora_lr_ratio = 1;
  std::optional<std::string> adapter;
  std::string quantization = "none";  // none, nf4, int8
  bool double_quant = false;

  bool lora() const { return method == "lora"; }
  // By what the product of an adapter is multiplied.
  double scale() const;
  // Whether adapters of the layer learn by a rule of their own (ops/local_low_rank.h).
  bool learns_locally(int64_t layer) const {
    return lora() && lu_lora_final_layer_index && layer >= 0 && layer <= *lu_lora_final_layer_index;
  }
  // Whether anything of the model stays as it is.
  bool freezes() const { return lora() || freeze_layers > 0 || !freeze.empty(); }

  template <class Visitor>
  void fields(Visitor& v);
};

}  // namespace qianli::config
