// Options that say how instruction data become training samples; of `data prepare` and
// `data inspect`. Those that training has, too, are declared in the configuration
// (config::InstructionConfig), under the same names.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qianli/data/instruction/configured.h"
#include "qianli/text/tokenizer.h"

namespace CLI {
class App;
}

namespace qianli::app {

struct InstructionFlags {
  config::InstructionConfig config;
  std::string task, step_marker = "ки";
  std::vector<std::string> variables, reward_tokens, additional;
  std::string template_file;  // --prompt-type-path
  std::string dataset_folder = "data", mix_strategy = "concat";
  std::vector<std::string> probabilities;
  int64_t max_rows = 0;
  uint64_t mix_seed = 1234;
  int64_t sequence_length = 0;
  bool pack = false, neat_pack = false, append_eod = false;

  void add_to(CLI::App& command);
  // In which order the samples of several data sets are written.
  void add_mixing_to(CLI::App& command);
  // Whether any of them asks for instruction data.
  bool asked() const;
  // ConfigError where there are some that mean nothing without those.
  void check_unasked() const;
  // Whether the inputs are names of data sets in a dataset_info.json.
  bool lists_sets() const;
  // What the rows are, one entry for each data set; notices are logged.
  std::vector<data::KnownRows> sets(const std::vector<std::string>& inputs) const;
  data::Mixing mixing(size_t num_sets) const;
  // `model`: where the tokenizer came from, and perhaps a template. Warnings are logged.
  data::SampleEncoder encoder(std::shared_ptr<const text::Tokenizer> tokenizer,
                              const std::string& model, const data::KnownRows& rows) const;
  data::Packing packing() const;
};

}  // namespace qianli::app
