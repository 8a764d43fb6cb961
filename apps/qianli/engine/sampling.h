// Arguments of sampling, as the samplers take them.
#pragma once

#include <memory>

#include "apps/qianli/engine.h"
#include "qianli/infer/model.h"

namespace qianli::app {

// Says in the log what was opened. Throws DataError where the model has no tokenizer.
std::unique_ptr<infer::Model> open_with_tokenizer(const ModelArguments& arguments);
// Warns of settings without effect. Throws ConfigError for what is out of range.
infer::SamplingOptions sampling_options(const SamplingArguments& arguments,
                                        const infer::SamplingOptions& defaults);
// Ids of a text without what the tokenizer puts around it.
std::vector<int64_t> plain_ids(const infer::Model& model, const std::string& text);

}  // namespace qianli::app
