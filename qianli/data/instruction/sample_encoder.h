// From an example to the token sequences that are written for it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qianli/data/instruction/example.h"
#include "qianli/data/instruction/sample.h"
#include "qianli/data/instruction/sample_options.h"
#include "qianli/text/tokenizer.h"

namespace qianli::data {

// Immutable and safe to use from many threads at once.
class SampleEncoder {
 public:
  // ConfigError for options that do not fit the task, DataError for tokens that the tokenizer does
  // not have.
  SampleEncoder(std::shared_ptr<const text::Tokenizer> tokenizer, SampleOptions options);

  // "input_ids", "labels", ...; the attention mask of ones is not among them.
  const std::vector<std::string>& fields() const { return fields_; }
  // DataError where the example does not fit the template.
  Sample encode(const Example& example) const;

  std::optional<int32_t> eos() const;
  std::optional<int32_t> pad() const;
  const std::vector<std::string>& warnings() const;
  const SampleOptions& options() const { return options_; }
  // Everything that decides the tokens, besides the rows.
  OrderedJson identity() const;

 private:
  int32_t single_id(const std::string& text, const char* what) const;
  std::vector<text::chat::EncodedTurn> turns(const Example& example,
                                             const text::chat::Message* answer,
                                             std::vector<std::string>& warnings) const;
  bool cut_turns(std::vector<text::chat::EncodedTurn>& turns) const;
  void encode_conversation(const Example& example, Sample& sample) const;
  void encode_text(const Example& example, Sample& sample) const;
  void encode_pair(const Example& example, Sample& sample) const;
  void encode_steps(const Example& example, Sample& sample) const;
  void encode_prompt(const Example& example, Sample& sample) const;

  std::shared_ptr<const text::Tokenizer> tokenizer_;
  SampleOptions options_;
  std::vector<std::string> fields_;
  std::shared_ptr<const text::chat::NamedTemplate> named_;
  std::optional<text::chat::TurnEncoder> encoder_;
  std::optional<OwnTemplate> own_;
  int32_t step_marker_ = -1;
  std::vector<int32_t> reward_ids_;
  std::vector<std::string> no_warnings_;
};

}  // namespace qianli::data
