#include <ATen/ops/cat.h>

#include <algorithm>

#include "apps/qianli/engine/commands.h"
#include "qianli/base/log.h"
#include "qianli/infer/score.h"

namespace qianli::app {
namespace {

constexpr int64_t kTokens = 16;

// Tokens from all over the vocabulary, the same for every model of this size.
infer::TokenIds some_tokens(const infer::Model& model) {
  infer::TokenIds ids;
  for (int64_t i = 0; i < std::min(kTokens, model.position_limit()); ++i) {
    ids.push_back((i * i * 7919 + 13) % model.spec().vocab_size);
  }
  return ids;
}

at::Tensor logits_of(const std::string& path, const convert::SourceOptions& source) {
  const auto model = infer::Model::open(path, {.precision = "fp32", .source = source});
  log::info("model", "{}", model->summary());
  const infer::TokenIds ids = some_tokens(*model);
  std::vector<at::Tensor> rows;
  infer::score(*model, std::span(&ids, 1), {},
               [&](const at::Tensor& some) { rows.push_back(some.clone()); });
  return at::cat(rows);
}

}  // namespace

LogitsDifference run_compare_logits(const LogitsArguments& arguments) {
  // One after the other: only one model is in memory.
  const at::Tensor first = logits_of(arguments.first, arguments.from);
  const at::Tensor second = logits_of(arguments.second, {.config = arguments.from.config});
  return {.tokens = first.size(0),
          .largest = (first - second).abs().max().item<double>(),
          .largest_logit = first.abs().max().item<double>()};
}

}  // namespace qianli::app
