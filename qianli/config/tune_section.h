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
  std::optional<std::string> adapter;
  std::string quantization = "none";  // none, nf4, int8
  bool double_quant = false;

  bool lora() const { return method == "lora"; }
  // By what the product of an adapter is multiplied.
  double scale() const;
  // Whether anything of the model stays as it is.
  bool freezes() const { return lora() || freeze_layers > 0 || !freeze.empty(); }

  template <class Visitor>
  void fields(Visitor& v);
};

}  // namespace qianli::config
