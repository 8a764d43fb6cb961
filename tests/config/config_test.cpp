#include "qianli/config/config.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <fstream>
#include <variant>

#include "qianli/base/log.h"
#include "qianli/config/field.h"
#include "qianli/config/write.h"
#include "tests/config/expect_error.h"
#include "tests/support/test_paths.h"

namespace qianli::config {
namespace {

using testing::expect_config_error;

constexpr const char* kFirst = R"(model: ./smollm2
data:   {path: corpus.txt, tokenizer: ./smollm2, sequence_length: 256}
train:  {steps: 200, micro_batch_size: 4, global_batch_size: 8, seed: 1}
optim:  {name: adamw, lr: 3.0e-4, min_lr: 3.0e-5, lr_schedule: cosine, warmup_steps: 20,
         weight_decay: 0.1, betas: [0.9, 0.99], clip_grad_norm: 1.0}
precision: auto
parallel: {tensor: 1, sequence: false, pipeline: 1, context: 1, expert: 1, zero: 1}
checkpoint: {every: 100, keep: 2, resume: auto}
run: {dir: runs/first}
)";

Config read(const std::string& yaml) { return from_text(yaml, "first.yaml", {}); }

TEST(Config, reads_the_contract_example) {
  const Config config = read(kFirst);
  EXPECT_EQ(config.model.source, "./smollm2");
  ASSERT_EQ(config.data.path.size(), 1u);
  EXPECT_EQ(config.data.path[0], (DataSource{"corpus.txt", 1.0}));
  EXPECT_EQ(config.data.tokenizer, "./smollm2");
  EXPECT_EQ(config.data.sequence_length, 256);
  EXPECT_EQ(config.train.steps, 200);
  EXPECT_EQ(config.train.global_batch_size, 8);
  EXPECT_EQ(config.optim.lr, 3e-4);
  EXPECT_EQ(config.optim.betas, (std::array<double, 2>{0.9, 0.99}));
  EXPECT_EQ(config.parallel.zero, 1);
  EXPECT_EQ(config.checkpoint.keep, 2);
  EXPECT_EQ(config.run.dir, "runs/first");
  EXPECT_NO_THROW(require_for_training(config));
}

TEST(Config, fills_what_follows_from_other_values) {
  const Config config = from_text(
      "train: {steps: 50, micro_batch_size: 3, seed: 9}\n"
      "optim: {lr_schedule: wsd}\n",
      "some/where/tiny.yaml", {});
  EXPECT_EQ(config.data.seed, 9);
  EXPECT_EQ(config.train.global_batch_size, 3);
  EXPECT_EQ(config.optim.decay_steps, 50);
  EXPECT_EQ(config.optim.wsd_decay_steps, 5);
  EXPECT_EQ(config.run.dir, "runs/tiny");
  EXPECT_EQ(read("data: {seed: 4}\ntrain: {seed: 9}").data.seed, 4);
}

TEST(Config, reads_a_model_as_a_name_or_as_a_map) {
  EXPECT_EQ(read("model: llama-tiny").model.source, "llama-tiny");
  const ModelConfig model =
      read("model: {preset: llama-tiny, num_layers: 4, qk_norm: head, load_weights: auto}").model;
  EXPECT_EQ(model.source, "llama-tiny");
  EXPECT_EQ(model.num_layers, 4);
  EXPECT_EQ(model.qk_norm, "head");
  EXPECT_FALSE(model.load_weights.has_value());
  EXPECT_FALSE(model.hidden_size.has_value());
}

TEST(Config, reads_data_paths_in_all_forms) {
  const std::vector<DataSource> two = {{"a", 1.0}, {"b", 0.25}};
  EXPECT_EQ(read("data: {path: [a, {path: b, weight: 0.25}]}").data.path, two);
  EXPECT_EQ(read("data: {path: {path: b, weight: 2}}").data.path,
            (std::vector<DataSource>{{"b", 2.0}}));
  expect_config_error([] { read("data: {path: [{weight: 2}]}"); }, "to have 'path'");
  expect_config_error([] { read("data: {path: }"); }, "a path or a list, got nothing");
}

TEST(Config, reads_parameter_groups) {
  const Config config = read(
      "optim:\n  groups:\n    - {match: '*.bias', lr_scale: 0.5}\n"
      "    - {match: /norm/, weight_decay: 0.0}\n");
  ASSERT_EQ(config.optim.groups.size(), 2u);
  EXPECT_EQ(config.optim.groups[0], (ParameterGroup{"*.bias", 0.5, std::nullopt}));
  EXPECT_EQ(config.optim.groups[1], (ParameterGroup{"/norm/", 1.0, 0.0}));
}

TEST(Config, lists_the_back_ends_chosen_by_hand) {
  const std::map<std::string, std::string> chosen = {{"adamw", "native"},
                                                     {"rms_norm", "reference"}};
  EXPECT_EQ(op_backends(read("ops: {rms_norm: reference, adamw: native, linear: auto}")), chosen);
}

struct Refused {
  const char* yaml;
  const char* words;
};

TEST(Config, errors_name_file_line_key_and_reason) {
  const Refused cases[] = {
      {"train:\n  steps: many", "first.yaml:2: expected train.steps to be a whole number"},
      {"train: {steps: 1.5}", "got '1.5'"},
      {"train: {steps: 1e3}", "Hint: write whole numbers in digits, as 1000"},
      {"train: {steps: \"5\"}", "got the text '5'"},
      {"train: {steps: 99999999999999999999}", "expected train.steps"},
      {"train: {micro_batch_size: 0}", "from 1 to"},
      {"optim: {lr: -1}", "a number of at least 0"},
      {"optim: {lr: nan}", "got 'nan'"},
      {"optim: {lr: .inf}", "got '.inf'"},
      {"optim: {lr: 1e999}", "got '1e999'"},
      {"optim: {eps: 0}", "a number above 0"},
      {"optim: {betas: [0.9, 1.0]}", "got [0.9, 1.0]"},
      {"optim: {betas: [0.9]}", "a list of two numbers"},
      {"optim: {betas: 0.9}", "a list of two numbers"},
      {"optim: {name: adam}", "Hint: did you mean adamw"},
      {"optim: {groups: {match: a}}", "a list of maps, got a map"},
      {"optim: {groups: [a]}", "expected each item of optim.groups to be a map"},
      {"optim: 3", "expected optim to be a map of options, got '3'"},
      {"log: {report: yes}", "expected log.report to be true or false, got 'yes'"},
      {"log: {report: }", "got nothing"},
      {"run: {dir: ''}", "expected run.dir to be text"},
      {"precision: fp8", "one of auto, fp32, bf16, fp64"},
      {"\n\noptm: {lr: 1}",
       "first.yaml:3: expected a known option, got 'optm' (did you mean 'optim'?)"},
      {"optim: {Lr: 1}", "(did you mean 'optim.lr'?)"},
      {"train: {lr: 1}", "(did you mean 'optim.lr'?)"},
      {"ops: {rmsnorm: native}", "(did you mean 'ops.rms_norm'?)"},
      {"parallel: {tensor: 0}", "expected parallel.tensor to be"},
      {"parallel: {zero: 4}", "from 0 to 3"},
      {"parallel: {zero: 2, zero_parameter_ranks: 2}", "expected parallel.zero=3"},
      {"parallel: {zero: 3, zero_ranks: 4, zero_parameter_ranks: 3}", "to divide"},
      {"- a\n- b", "expected a map of options, got [a, b]"},
      {"device: \"a\\e[2Jb\"", "got the text 'a?[2Jb'"},
      {"just text", "expected a map of options, got 'just text'"},
  };
  for (const auto& refused : cases) {
    SCOPED_TRACE(refused.yaml);
    expect_config_error([&] { read(refused.yaml); }, refused.words);
  }
}

TEST(Config, checks_values_against_each_other) {
  const Refused cases[] = {
      {"train:\n  micro_batch_size: 3\n  global_batch_size: 8",
       "first.yaml:3: expected train.global"},
      {"optim: {lr: 1e-4, min_lr: 1e-3}", "expected optim.min_lr of at most optim.lr = 0.0001"},
      {"train: {steps: 10}\noptim: {warmup_steps: 10}",
       "first.yaml:2: expected optim.warmup_steps"},
      {"train: {steps: 9}\noptim: {lr_schedule: wsd, warmup_steps: 4, wsd_decay_steps: 6}",
       "of at most the 5 steps after the warm-up, got 6"},
      {"parallel: {tensor: 4, tensor_x: 4}", "tensor_y both above 1, or both 1, got 4 and 1"},
      {"parallel: {tensor: 6, tensor_x: 2, tensor_y: 2}", "got 6 for 2 x 2"},
      {"data: {split: '1,2,3,4'}", "up to three proportions"},
      {"data: {split: '0,0'}", "up to three proportions"},
      {"data: {split: '1,-1,3'}", "up to three proportions"},
      {"data: {split: '1,0,0'}\ntrain: {eval_every: 5}", "expected validation data"},
      {"data: {sequence_length: 64}\nmodel: {preset: x, max_position_embeddings: 32}",
       "model.max_position_embeddings = 32, got 64"},
      {"optim: {groups: [{match: /(/}]}", "missing closing parenthesis"},
  };
  for (const auto& refused : cases) {
    SCOPED_TRACE(refused.yaml);
    expect_config_error([&] { read(refused.yaml); }, refused.words);
  }
  EXPECT_NO_THROW(read("data: {split: '1,0,0', validation_path: v}\ntrain: {eval_every: 5}"));
}

TEST(Config, a_config_changed_by_hand_can_be_checked_again) {
  Config config = read(kFirst);
  EXPECT_NO_THROW(validate(config));
  config.train.micro_batch_size = 3;
  expect_config_error([&] { validate(config); }, "train.global_batch_size");
}

TEST(Config, training_needs_a_model_data_and_steps) {
  expect_config_error([] { require_for_training(read("")); }, "expected a model");
  expect_config_error([] { require_for_training(read("model: m")); }, "expected data.path");
  expect_config_error([] { require_for_training(read("model: m\ndata: {path: p}")); },
                      "expected train.steps");
}

TEST(Config, warns_of_options_without_effect) {
  const testing::TemporaryFolder folder;
  log::to_file(folder / "log.txt");
  read("optim: {lr_schedule: constant,\n min_lr: 1e-5}");
  log::to_file({});
  EXPECT_NE(read_file(folder / "log.txt", FileRole::kData)
                .find("first.yaml:2: optim.min_lr has no effect: optim.lr_schedule is constant"),
            std::string::npos);
}

// YAML of a value other than the default, for every kind of field.
std::string other_value(const Field& field) {
  const Option& option = field.option;
  if (option.key == "split") return "'7,2,1'";
  if (option.key == "communicators") return "'tensor:ctas=8,buffer=4M'";
  if (option.key == "max_position_embeddings") return "4096";
  if (!option.choices.empty()) return std::string(option.choices.back());
  const auto write = [](const auto& value) -> std::string {
    using T = std::decay_t<decltype(value)>;
    if constexpr (std::is_same_v<T, List>) {
      const Section item = value.sample();
      if (!item.shorthand) return "[{match: a, lr_scale: 0.5, weight_decay: 0.25}]";
      return item.fields.size() > 1 ? "[a, {path: 'b c', weight: 0.5}]" : "[a, {match: 'b c'}]";
    } else if constexpr (std::is_same_v<T, bool*>) {
      return *value ? "false" : "true";
    } else if constexpr (std::is_same_v<T, std::optional<bool>*>) {
      return "false";
    } else if constexpr (std::is_same_v<T, int64_t*>) {
      return std::to_string(*value + 1);
    } else if constexpr (std::is_same_v<T, std::optional<int64_t>*>) {
      return "3";
    } else if constexpr (std::is_same_v<T, std::string*> ||
                         std::is_same_v<T, std::optional<std::string>*>) {
      return R"("a: 'b' # \\ \"c\" \t é 1e3")";
    } else if constexpr (std::is_same_v<T, std::array<double, 2>*>) {
      return "[0.125, 0.5]";
    } else {
      return "0.012345678901234567";
    }
  };
  return std::visit(write, field.value);
}

// Options with a single allowed value in this version, and the inside of lists (set as whole
// lists).
bool is_settable(const Section& root, const std::string& path, const Field& field) {
  if (std::holds_alternative<Section>(field.value)) return false;
  const auto parent = find_field(root, path.substr(0, path.rfind('.')));
  if (parent && std::holds_alternative<List>(parent->value)) return false;
  return field.option.min < field.option.max && field.option.choices.size() != 1;
}

TEST(Config, every_key_round_trips_through_yaml) {
  Config defaults;
  const Section root = fields_of(defaults);
  int settable = 0;
  for (const auto& path : all_paths(root)) {
    const Field field = *find_field(root, path);
    if (!is_settable(root, path, field)) continue;
    ++settable;
    const std::string changed = path + "=" + other_value(field);
    SCOPED_TRACE(changed);
    std::vector<std::string> overrides = {"optim.lr=0.5", "optim.decay_steps=100", changed};
    const bool x = path == "parallel.tensor_x", y = path == "parallel.tensor_y";
    if (x || y) {  // they go together
      overrides.emplace_back("parallel.tensor=4");
      overrides.push_back(fmt::format("parallel.tensor_{}=2", x ? "y" : "x"));
    }
    if (path == "parallel.zero_parameter_ranks") overrides.emplace_back("parallel.zero=3");
    if (path == "tune.quantization") overrides.emplace_back("tune.method=lora");
    Config config = from_overrides_only(overrides);
    EXPECT_NE(value_to_json(find_field(fields_of(config), path)->value),
              value_to_json(field.value));
    const std::string yaml = to_yaml(config);
    const Config again = from_text(yaml, "again.yaml", {});
    EXPECT_EQ(to_yaml(again), yaml);
    EXPECT_EQ(to_json(again), to_json(config));
  }
  EXPECT_GT(settable, 60);
}

TEST(Config, text_that_yaml_would_take_for_something_else_is_quoted) {
  for (const std::string text :
       {"true", "null", "~",  "123", "1e5", "No",   "- a",  "{a", "a: b", "#x", "*a",
        "&a",   "!a",   "%a", "@a",  " a ", "a\nb", "auto", "'",  "\"",   "é"}) {
    SCOPED_TRACE(text);
    Config config;
    config.run.dir = text;
    config.data.tokenizer = text;
    const Config again = from_text(to_yaml(config), "x.yaml", {});
    EXPECT_EQ(again.run.dir, text);
    EXPECT_EQ(again.data.tokenizer, text);
  }
}

TEST(Config, loads_files_and_names_missing_ones) {
  const testing::TemporaryFolder folder;
  std::ofstream(folder / "mine.yaml") << kFirst;
  EXPECT_EQ(load(folder / "mine.yaml", {}).train.steps, 200);
  expect_config_error([&] { load(folder / "none.yaml", {}); }, "none.yaml");
  std::ofstream(folder / "big.yaml") << "# " << std::string(1 << 20, 'x');
  expect_config_error([&] { load(folder / "big.yaml", {}); }, "big.yaml");
}

}  // namespace
}  // namespace qianli::config
