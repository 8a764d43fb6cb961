#include "apps/qianli/engine/sampling.h"

#include <fmt/core.h>

#include <charconv>
#include <filesystem>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/tune/attach.h"

namespace qianli::app {
namespace {

// "ID=BIAS"
std::pair<int64_t, double> read_bias(const std::string& text) {
  std::pair<int64_t, double> bias;
  const char* const end = text.data() + text.size();
  const auto id = std::from_chars(text.data(), end, bias.first);
  const bool has_id = id.ec == std::errc() && id.ptr != end && *id.ptr == '=';
  const auto value = has_id ? std::from_chars(id.ptr + 1, end, bias.second) : id;
  if (has_id && value.ec == std::errc() && value.ptr == end) return bias;
  throw ConfigError("generate", fmt::format("expected ID=BIAS at --logit-bias, got '{}'", text),
                    "for example --logit-bias 42=-100");
}

}  // namespace

std::unique_ptr<infer::Model> open_with_tokenizer(const ModelArguments& arguments) {
  auto model = infer::Model::open(arguments.model, {.precision = arguments.precision,
                                                    .device = arguments.device,
                                                    .quantize = arguments.quantize});
  model->tokenizer();  // says what is missing before anything is printed
  log::info("model", "{}", model->summary());
  for (const std::string& given : arguments.adapters) {
    const std::string folder = split_adapter(given).second;
    tune::attach(folder, model->spec(), model->parameters());
    log::info("adapter", "{} is attached", folder);
  }
  return model;
}

std::pair<std::string, std::string> split_adapter(const std::string& given) {
  const size_t sign = given.find('=');
  if (sign != std::string::npos) return {given.substr(0, sign), given.substr(sign + 1)};
  return {std::filesystem::weakly_canonical(given).filename().string(), given};
}

int64_t only_adapter(const ModelArguments& arguments) {
  return arguments.adapters.empty() ? nn::kNoAdapter : 0;
}

infer::SamplingOptions sampling_options(const SamplingArguments& arguments,
                                        const infer::SamplingOptions& defaults) {
  infer::SamplingOptions options = defaults;
  const bool chooses = arguments.top_k || arguments.top_p || arguments.min_p;
  if (options.greedy() && chooses) options.temperature = 1.0;
  if (arguments.greedy) options.temperature = 0.0;
  take_given(arguments, options);
  for (const std::string& bias : arguments.logit_bias)
    options.logit_bias.push_back(read_bias(bias));
  options.validate();
  if (options.greedy() && (arguments.seed || chooses)) {
    log::warn("generate", "greedy decoding has no use for --seed, --top-k, --top-p and --min-p");
  }
  return options;
}

std::vector<int64_t> plain_ids(const infer::Model& model, const std::string& text) {
  const auto ids = model.tokenizer()->encode(text, /*add_special_tokens=*/false);
  return {ids.begin(), ids.end()};
}

}  // namespace qianli::app
