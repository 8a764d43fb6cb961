#include "qianli/train/sft.h"

#include <utility>

#include "qianli/base/log.h"
#include "qianli/data/sft_data.h"

namespace qianli::train {
namespace {

TaskData open_data(const TaskInput& input) {
  data::SftData opened = data::open_sft_data({.config = input.config,
                                              .tokenizer = input.tokenizer,
                                              .tokenizer_folder = input.tokenizer_folder,
                                              .cache = input.cache,
                                              .layout = input.layout,
                                              .vocab_size = input.vocab_size});
  return {.train = std::move(opened.train),
          .validation = std::move(opened.validation),
          .told = std::move(opened.told),
          .warnings = std::move(opened.warnings)};
}

void check_options(const config::Config& config) {
  const config::DataConfig& data = config.data;
  const std::pair<bool, const char*> given[] = {
      {data.text_key != "text", "data.text_key"},
      {data.eod_mask_loss, "data.eod_mask_loss"},
      {data.reset_position_ids, "data.reset_position_ids"}};
  for (const auto& [used, name] : given) {
    if (used) log::warn("config", "{} without effect: fine-tuning does not read it", name);
  }
}

}  // namespace

Task supervised_fine_tuning() {
  return {
      .name = "sft", .open_data = open_data, .counts_labels = true, .check_options = check_options};
}

}  // namespace qianli::train
