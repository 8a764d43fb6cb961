// What a kind of training brings to the loop (train/loop.h): its data, and what it wants to know
// of a step.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/config/config.h"
#include "qianli/data/batch_source.h"
#include "qianli/text/tokenizer.h"

namespace qianli::train {

struct TaskInput {
  const config::Config& config;
  std::shared_ptr<const text::Tokenizer> tokenizer;  // null: none was named
  std::filesystem::path tokenizer_folder;            // empty: none
  std::filesystem::path cache;                       // for what is made of the data
  data::BatchLayout layout;
  int64_t vocab_size = 0;
};

struct TaskData {
  std::shared_ptr<const data::BatchSource> train;
  std::shared_ptr<const data::BatchSource> validation;  // null: no evaluation
  // What the data are, and what is wrong with them; one rank says it.
  std::vector<std::string> told, warnings;
};

struct Task {
  std::string_view name;
  // Called on one rank after the other, the first of which fills the cache. Throws ConfigError and
  // DataError.
  std::function<TaskData(const TaskInput&)> open_data;
  // Counts labels, and tokens that are predicted rightly.
  bool counts_labels = false;
  // Warns of options that this task does not read.
  std::function<void(const config::Config&)> check_options;
};

}  // namespace qianli::train
