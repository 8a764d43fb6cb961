// The data of a fine-tuning run from its configuration: rows are made into samples on first use,
// samples are opened, split, ordered and packed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qianli/config/config.h"
#include "qianli/data/instruction_batches.h"
#include "qianli/text/tokenizer.h"

namespace qianli::data {

struct SftDataInput {
  const config::Config& config;
  std::shared_ptr<const text::Tokenizer> tokenizer;  // null: data.path is prepared data
  fs::path tokenizer_folder;                         // where a chat template may be
  // Keeps samples made from rows, each set under a name made of what decides it: files' contents,
  // tokenizer, template, options. Runs may share it, also at the same time.
  fs::path cache;
  BatchLayout layout;
  int64_t vocab_size = 0;
};

struct SftData {
  std::shared_ptr<const InstructionBatches> train;
  std::shared_ptr<const InstructionBatches> validation;  // null where none is asked for
  std::vector<std::string> told;                         // what the data are, in sentences
  std::vector<std::string> warnings;
};

// ConfigError for senseless options, DataError for files that are missing, damaged or without
// samples. Without train.eval_every, or with data.validation_path, all samples are trained on; else
// data.split shares them out.
SftData open_sft_data(const SftDataInput& input);

}  // namespace qianli::data
