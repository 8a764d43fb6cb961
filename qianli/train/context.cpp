#include "qianli/train/context.h"

#include <fmt/format.h>

#include <algorithm>

#include "qianli/base/error.h"

namespace qianli::train {
namespace {

// Of the layer with the fewest, on one rank of the tensor group.
int64_t least_query_heads(const model::ModelSpec& spec, int64_t tensor) {
  int64_t least = spec.num_attention_heads;
  for (int64_t l = 0; l < spec.num_layers; ++l) least = std::min(least, spec.layer(l).num_heads);
  return least / tensor;
}

// Of all layers with attention; 0: one of them has none.
int64_t widest_window(const model::ModelSpec& spec) {
  int64_t widest = 0;
  for (int64_t l = 0; l < spec.num_layers + spec.mtp.num_layers; ++l) {
    const model::LayerSpec layer = spec.layer(l);
    if (!layer.has_attention()) continue;
    if (layer.window == 0) return 0;
    widest = std::max(widest, layer.window);
  }
  return widest;
}

// Parts of the model that need whole sequences on one rank.
void find_whole_sequences(const model::ModelSpec& spec, std::vector<std::string>& problems) {
  bool recurrent = false, indexer = false;
  for (int64_t l = 0; l < spec.num_layers + spec.mtp.num_layers; ++l) {
    const model::LayerSpec layer = spec.layer(l);
    recurrent = recurrent || layer.mixer == model::MixerKind::kGatedDeltaNet ||
                layer.mixer == model::MixerKind::kMamba2;
    indexer = indexer || layer.owns_indexer;
  }
  if (recurrent) {
    problems.emplace_back(
        "expected attention in all layers, got recurrent ones (gated delta net or Mamba-2), whose "
        "state goes through the whole sequence");
  }
  if (spec.compressed_attention) {
    problems.emplace_back(
        "expected attention to the keys of tokens, got compressed ones, which are made of tokens "
        "that follow each other");
  } else if (indexer) {
    problems.emplace_back(
        "expected attention to all keys, got an indexer, which chooses them from the whole "
        "sequence");
  }
  if (!spec.moe) return;
  if (spec.moe->capacity_factor) {
    problems.emplace_back(
        "expected a mixture of experts without model.moe.capacity_factor, which drops tokens by "
        "their rank in the whole microbatch");
  }
  if (spec.moe->sinkhorn) {
    problems.emplace_back(
        "expected a router without Sinkhorn balancing, which looks at the whole microbatch");
  }
}

bool balances(const model::MixtureOfExperts& moe) {
  return moe.aux_loss_coeff != 0 || moe.sequence_aux_loss_coeff != 0 ||
         moe.device_aux_loss_coeff != 0 || moe.communication_aux_loss_coeff != 0 ||
         moe.z_loss_coeff != 0;
}

}  // namespace

data::ContextOptions context_options(const config::ParallelConfig& parallel) {
  return {.size = parallel.context * parallel.tensor_y,
          .algorithm = data::context_algorithm(parallel.context_algorithm),
          .inner = parallel.context_ulysses,
          .window = parallel.context_window,
          .kept = data::kept_keys(parallel.context_kv_cache),
          .kept_interval = parallel.context_cache_interval};
}

data::ContextOptions context_options(const config::ParallelConfig& parallel,
                                     const model::ModelSpec& spec) {
  data::ContextOptions options = context_options(parallel);
  options.mask_window = widest_window(spec);
  return options;
}

void check_context(const config::Config& config, const model::ModelSpec& spec) {
  const config::ParallelConfig& parallel = config.parallel;
  const data::ContextOptions options = context_options(parallel);
  if (options.size == 1) return;
  auto problems =
      data::context_problems(options, least_query_heads(spec, parallel.tensor / parallel.tensor_y),
                             config.train.micro_batch_size * config.data.sequence_length);
  find_whole_sequences(spec, problems);
  if (options.kept_interval >= spec.num_layers) {
    problems.push_back(
        fmt::format("expected parallel.context_cache_interval less than the {} layers, got {}",
                    spec.num_layers, options.kept_interval));
  }
  if (problems.empty()) return;
  const std::string sharing =
      parallel.tensor_y == 1
          ? fmt::format("parallel.context={}", parallel.context)
          : fmt::format("parallel.context={} by parallel.tensor_y={}, whose ranks share a sequence",
                        parallel.context, parallel.tensor_y);
  throw ConfigError("parallel",
                    fmt::format("{} with parallel.context_algorithm={}: {}", sharing,
                                parallel.context_algorithm, fmt::join(problems, "; ")),
                    "change parallel.context or parallel.context_algorithm, or use data "
                    "parallelism alone");
}

void check_slices(const config::Config& config, const model::ModelSpec& spec) {
  const int64_t slices = config.parallel.schedule_slices;
  if (slices == 1) return;
  std::vector<std::string> problems;
  find_whole_sequences(spec, problems);
  if (spec.moe && balances(*spec.moe)) {
    problems.emplace_back(
        "expected a mixture of experts without balancing losses, which look at whole sequences");
  }
  if (config.parallel.context > 1) {
    problems.emplace_back(
        fmt::format("expected parallel.context=1, got {}", config.parallel.context));
  }
  if (config.parallel.tensor_y > 1) {
    problems.emplace_back(
        fmt::format("expected parallel.tensor_y=1, got {}, whose ranks share sequences",
                    config.parallel.tensor_y));
  }
  if (config.data.sequence_length < slices) {
    problems.emplace_back(
        fmt::format("expected sequences of at least a token for each slice, got {}",
                    config.data.sequence_length));
  }
  if (problems.empty()) return;
  throw ConfigError(
      "parallel", fmt::format("parallel.schedule_slices={}: {}", slices, fmt::join(problems, "; ")),
      "use parallel.schedule=1f1b or zb-h1, whose microbatches are whole");
}

}  // namespace qianli::train
