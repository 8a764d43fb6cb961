// Rows and samples as configuration and command line ask for them: both take their options from
// config::InstructionConfig.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/config/sections.h"
#include "qianli/data/instruction/prepare.h"
#include "qianli/data/instruction/sample_encoder.h"
#include "qianli/text/tokenizer.h"

namespace qianli::data {

// The chat template in the tokenizer's folder, as a name.
inline constexpr std::string_view kOwnTemplate = "model";

// Of none, true and false.
text::chat::Thinking thinking_of(const std::string& text);

// What the rows are: `task` is a name, or "" as the rows look. ConfigError for senseless options,
// DataError where the rows are not understood.
KnownRows configured_rows(const config::InstructionConfig& config, const std::string& task,
                          const std::vector<fs::path>& inputs);

// `model`: where the tokenizer came from, and perhaps a template. `options` has what the
// configuration does not say (append_eod, the sequence length, what other tasks want); the rest is
// filled in.
SampleEncoder configured_encoder(const config::InstructionConfig& config, const KnownRows& rows,
                                 std::shared_ptr<const text::Tokenizer> tokenizer,
                                 const fs::path& model, SampleOptions options);

}  // namespace qianli::data
