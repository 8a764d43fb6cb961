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
  int64_t sequence_length = 0;
  bool pack = false, neat_pack = false, append_eod = false;

  void add_to(CLI::App& command);
  // Whether any of them asks for instruction data.
  bool asked() const;
  // ConfigError where there are some that mean nothing without those.
  void check_unasked() const;
  // What the rows are; notices are logged.
  data::KnownRows rows(const std::vector<std::string>& inputs) const;
  // `model`: where the tokenizer came from, and perhaps a template. Warnings are logged.
  data::SampleEncoder encoder(std::shared_ptr<const text::Tokenizer> tokenizer,
                              const std::string& model, const data::KnownRows& rows) const;
  data::Packing packing() const;
};

}  // namespace qianli::app
