// Arguments of sampling, as the samplers take them.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "apps/qianli/engine.h"
#include "qianli/infer/model.h"

namespace qianli::app {

// Says in the log what was opened. Throws DataError where the model has no tokenizer. Adapters are
// attached in their order; a name before '=' is no part of the folder.
std::unique_ptr<infer::Model> open_with_tokenizer(const ModelArguments& arguments);
// "NAME=FOLDER" in two; where there is no NAME, the folder's own.
std::pair<std::string, std::string> split_adapter(const std::string& given);
// Of the adapter that open_with_tokenizer attached; without one, none.
int64_t only_adapter(const ModelArguments& arguments);
// Warns of settings without effect. Throws ConfigError for what is out of range.
infer::SamplingOptions sampling_options(const SamplingArguments& arguments,
                                        const infer::SamplingOptions& defaults);
// Puts what was given, on the command line or in a request, in the place of defaults.
template <class Given>
void take_given(const Given& given, infer::SamplingOptions& options) {
  if (given.temperature) options.temperature = *given.temperature;
  if (given.top_k) options.top_k = *given.top_k;
  if (given.top_p) options.top_p = *given.top_p;
  if (given.min_p) options.min_p = *given.min_p;
  if (given.repetition_penalty) options.repetition_penalty = *given.repetition_penalty;
  if (given.seed) options.seed = *given.seed;
  options.presence_penalty = given.presence_penalty;
  options.frequency_penalty = given.frequency_penalty;
}
// Ids of a text without what the tokenizer puts around it.
std::vector<int64_t> plain_ids(const infer::Model& model, const std::string& text);

}  // namespace qianli::app
