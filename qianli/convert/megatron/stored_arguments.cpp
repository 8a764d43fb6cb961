#include "qianli/convert/megatron/stored_arguments.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "qianli/base/error.h"

namespace qianli::convert {

using formats::Value;

namespace {
constexpr int64_t kMaxRanks = 100000;  // each has a file

// Sums and products of two do not overflow.
bool is_size(int64_t number) { return number >= INT32_MIN && number <= INT32_MAX; }

// "3,4,5"; nothing where it is no such list.
template <typename Number>
std::optional<std::vector<Number>> split_numbers(const std::string& text) {
  std::vector<Number> numbers;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at < end;) {
    Number number{};
    const auto [after, error] = std::from_chars(at, end, number);
    if (error != std::errc() || (after != end && *after != ',')) return std::nullopt;
    numbers.push_back(number);
    at = after == end ? end : after + 1;
  }
  return numbers;
}

}  // namespace

const Value* StoredArguments::find(std::string_view name) const {
  const Value* value = args_ ? args_->find(name) : nullptr;
  return value && !value->is_none() ? value : nullptr;
}

bool StoredArguments::has(std::string_view name) const { return args_ && args_->find(name); }

const Value* StoredArguments::first(Names names, std::string_view& name) const {
  for (const std::string_view candidate : names) {
    name = candidate;
    if (const Value* value = find(candidate)) return value;
  }
  return nullptr;
}

void StoredArguments::fail(std::string_view name, const std::string& problem) const {
  const Value* value = find(name);
  throw CheckpointError("convert",
                        fmt::format("{}: args.{}: expected {}, got {}", source_, name, problem,
                                    value ? value->shown() : "none"),
                        "give --config, a folder with the model's config.json or a preset");
}

void StoredArguments::lacks(Names names) const {
  throw CheckpointError(
      "convert",
      fmt::format("{}: args do not say {}: the model is not known", source_, *names.begin()),
      "give --config, a folder with the model's config.json or a preset");
}

std::optional<int64_t> StoredArguments::integer(Names names) const {
  std::string_view name;
  const Value* value = first(names, name);
  if (!value) return std::nullopt;
  if (const auto number = value->as_int(); number && is_size(*number)) return number;
  fail(name, "an integer of 32 bits");
}

std::optional<double> StoredArguments::number(Names names) const {
  std::string_view name;
  const Value* value = first(names, name);
  if (!value) return std::nullopt;
  if (const auto number = value->as_float()) return number;
  fail(name, "a number");
}

bool StoredArguments::flag(Names names) const {
  bool any = false;
  for (const std::string_view name : names) {
    const Value* value = find(name);
    if (!value) continue;
    const auto flag = value->as_bool();
    if (!flag) fail(name, "True or False");
    any = any || *flag;
  }
  return any;
}

std::string StoredArguments::text(std::string_view name) const {
  const Value* value = find(name);
  if (!value) return {};
  if (const std::string* text = value->as_text()) return *text;
  fail(name, "a text");
}

std::vector<int64_t> StoredArguments::integers(std::string_view name) const {
  const Value* value = find(name);
  if (!value) return {};
  if (auto list = value->as_integers(); list && std::ranges::all_of(*list, is_size)) return *list;
  const std::string* text = value->as_text();
  if (!text) fail(name, "a list of integers");
  auto numbers = split_numbers<int64_t>(*text);
  if (!numbers || !std::ranges::all_of(*numbers, is_size))
    fail(name, "integers with commas between them");
  return *std::move(numbers);
}

std::vector<double> StoredArguments::numbers(std::string_view name) const {
  const Value* value = find(name);
  if (!value) return {};
  if (const std::string* text = value->as_text()) {
    auto numbers = split_numbers<double>(*text);
    if (!numbers) fail(name, "numbers with commas between them");
    return *std::move(numbers);
  }
  const formats::Values* items = value->items();
  if (!items) fail(name, "a list of numbers");
  std::vector<double> numbers;
  for (const Value& item : *items) {
    const auto number = item.as_float();
    if (!number) fail(name, "a list of numbers");
    numbers.push_back(*number);
  }
  return numbers;
}

int64_t StoredArguments::needed_integer(Names names) const {
  const auto value = integer(names);
  if (!value) lacks(names);
  return *value;
}

double StoredArguments::needed_number(Names names) const {
  const auto value = number(names);
  if (!value) lacks(names);
  return *value;
}

namespace {

// Megatron-core's uneven stages (core_v0.12, transformer_block.py, get_num_layers_to_build): layers
// of the first and the last one given, or the embedding and the loss counted as a layer each; the
// others are alike. Empty: all are.
std::vector<int64_t> uneven_stages(const StoredArguments& args, int64_t stages) {
  const char *const kFirst = "decoder_first_pipeline_num_layers",
                    *const kLast = "decoder_last_pipeline_num_layers";
  const auto first = args.integer({kFirst}), last = args.integer({kLast});
  const int64_t embedding = args.flag({"account_for_embedding_in_pipeline_split"}) ? 1 : 0;
  const int64_t loss = args.flag({"account_for_loss_in_pipeline_split"}) ? 1 : 0;
  if (stages == 1 || (!first && !last && embedding + loss == 0)) return {};
  const int64_t layers = args.needed_integer({"num_layers", "num_hidden_layers"});
  const bool given = first || last;
  const int64_t shared = given ? stages - (first ? 1 : 0) - (last ? 1 : 0) : stages;
  const int64_t left =
      given ? layers - first.value_or(0) - last.value_or(0) : layers + embedding + loss;
  const int64_t each = shared > 0 ? left / shared : 0;
  if (first.value_or(0) < 0 || last.value_or(0) < 0 || left < 0 || each * shared != left) {
    args.fail(first  ? kFirst
              : last ? kLast
                     : "num_layers",
              fmt::format("layers of {} stages of which those in the middle are alike", stages));
  }
  std::vector<int64_t> counts(static_cast<size_t>(stages), each);
  counts.front() = first.value_or(each) - (given ? 0 : embedding);
  counts.back() = last.value_or(each) - (given ? 0 : loss);
  return counts;
}

}  // namespace

MegatronLayout layout_of(const StoredArguments& args) {
  MegatronLayout layout;
  layout.tensor = args.integer({"tensor_model_parallel_size"}).value_or(1);
  layout.pipeline = args.integer({"pipeline_model_parallel_size"}).value_or(1);
  layout.expert = args.integer({"expert_model_parallel_size"}).value_or(1);
  layout.expert_tensor = args.integer({"expert_tensor_parallel_size"}).value_or(0);
  layout.layers_per_virtual_stage =
      args.integer({"num_layers_per_virtual_pipeline_stage"}).value_or(0);
  layout.layers_per_stage = args.integers("num_layer_list");
  layout.noop_layers = args.integers("noop_layers");
  layout.tensor_extends_expert = args.flag({"moe_tp_extend_ep"});
  const Value* schedule = args.find("schedules_method");
  layout.dual_pipe_v = schedule && schedule->as_text() && *schedule->as_text() == "dualpipev";
  int64_t ranks = 1;
  for (const auto& [name, size] : {std::pair{"tensor_model_parallel_size", layout.tensor},
                                   {"pipeline_model_parallel_size", layout.pipeline},
                                   {"expert_model_parallel_size", layout.expert}}) {
    if (size < 1 || size > kMaxRanks / ranks)
      args.fail(name, fmt::format("at least 1, and at most {} ranks in all", kMaxRanks));
    ranks *= size;
  }
  if (args.find("pipeline_model_parallel_layout"))
    args.fail("pipeline_model_parallel_layout", "none: stages told by numbers of layers");
  if (layout.layers_per_stage.empty())
    layout.layers_per_stage = uneven_stages(args, layout.pipeline);
  return layout;
}

}  // namespace qianli::convert
