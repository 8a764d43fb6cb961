// MindSpeed-LLM's handlers that take no named template: those of its first generation, whose frame
// is fixed, and Hunyuan's, which goes by the model's own template and two of its tokens.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/data/instruction/example.h"
#include "qianli/data/instruction/own_template.h"
#include "qianli/data/instruction/sample.h"
#include "qianli/text/tokenizer.h"

namespace qianli::data {

// The conversations of a row, one sample each: of MOSS data one for every answer, else one. Texts
// are trimmed as Python's strip does it. DataError that names the column which does not fit.
std::vector<Example> read_legacy(const OrderedJson& row, const ExampleRules& rules);

// The text in the frame of the first generation: a sentence about the task, "### Instruction:" and
// "### Response:" before the messages.
std::string framed_text(const text::chat::Conversation& conversation);

// Ids and labels. `own`: of Hunyuan. DataError where the tokenizer does not have what it takes.
Sample encode_legacy(Legacy legacy, const Example& example, const text::Tokenizer& tokenizer,
                     const OwnTemplate* own);

}  // namespace qianli::data
