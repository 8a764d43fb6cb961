// Options that say how instruction data become training samples; of `data prepare` and
// `data inspect`.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qianli/data/instruction/prepare.h"
#include "qianli/text/tokenizer.h"

namespace CLI {
class App;
}

namespace qianli::app {

struct InstructionFlags {
  std::string named_template, format, task, handler, map_keys, truncation, thinking = "none";
  std::string variant, default_system, effort, step_marker = "ки";
  std::vector<std::string> variables, reward_tokens, additional;
  int64_t sequence_length = 0;
  bool pack = false, neat_pack = false, append_eod = false, train_on_prompt = false;
  bool mask_history = false, keep_thinking = false;
  bool has_default_system = false;

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
