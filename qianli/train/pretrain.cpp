#include "qianli/train/pretrain.h"

#include <utility>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/data/pretrain_data.h"

namespace qianli::train {
namespace {

TaskData open_data(const TaskInput& input) {
  const config::Config& config = input.config;
  if (config.train.steps == 0) {
    throw ConfigError(
        "train", "expected train.steps for pretraining, got train.epochs",
        "train.steps x train.global_batch_size x data.sequence_length are its tokens");
  }
  data::PretrainData opened = data::open_pretrain_data(config.data, input.tokenizer, input.cache,
                                                       data::sample_counts(config.train));
  opened.masks.vocab_size = input.vocab_size;
  const auto batches = [&](const std::shared_ptr<const data::SampleSet>& samples) {
    return samples ? std::make_shared<data::SampleBatches>(samples, input.layout, opened.masks)
                   : nullptr;
  };
  return {.train = batches(opened.train),
          .validation = batches(opened.validation),
          .told = {},
          .warnings = {}};
}

void check_options(const config::Config& config) {
  const config::DataConfig& data = config.data;
  const std::pair<bool, const char*> given[] = {
      {data.instruction != config::InstructionConfig(), "the options of instruction data"},
      {data.packing != "none", "data.packing"},
      {data.bad_rows != "skip", "data.bad_rows"},
      {config.train.micro_batch_tokens > 0, "train.micro_batch_tokens"}};
  for (const auto& [used, name] : given) {
    if (used) log::warn("config", "{} without effect: pretraining does not read it", name);
  }
}

}  // namespace

Task pretraining() {
  return {.name = "pretrain", .open_data = open_data, .check_options = check_options};
}

}  // namespace qianli::train
