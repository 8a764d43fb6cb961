#include "qianli/config/validate.h"

#include <fmt/core.h>

#include <charconv>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/strings.h"
#include "qianli/config/communicators.h"
#include "qianli/config/name_pattern.h"

namespace qianli::config {
namespace {

// "first.yaml:12: " when the key was given, else "".
std::string prefix(const Places& places, std::string_view key) {
  const auto place = places.find(key);
  return place == places.end() ? "" : place->second + ": ";
}

class Checker {
 public:
  explicit Checker(const Places& places) : places_(places) {}
  explicit Checker(Places&&) = delete;

  void expect(bool holds, std::string_view key, const std::string& problem,
              const std::string& hint) const {
    if (!holds) throw ConfigError("config", prefix(places_, key) + problem, hint);
  }

 private:
  const Places& places_;
};

// Proportions of "969,30,1"; missing ones are 0. Empty when it is not such a list.
std::vector<double> split_proportions(const std::string& text) {
  std::vector<double> proportions;
  for (const auto& part : split(text, ',')) {
    const std::string_view number = trim(part);
    double value = 0;
    const auto [rest, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    const bool whole = error == std::errc{} && rest == number.data() + number.size();
    if (!whole || !std::isfinite(value) || value < 0) return {};
    proportions.push_back(value);
  }
  if (proportions.size() > 3) return {};
  proportions.resize(3, 0.0);
  return proportions[0] + proportions[1] + proportions[2] > 0 ? proportions : std::vector<double>{};
}

void check_data(const Config& config, const Checker& check) {
  const auto proportions = split_proportions(config.data.split);
  check.expect(
      !proportions.empty(), "data.split",
      fmt::format("expected data.split to be up to three proportions, got '{}'", config.data.split),
      "for example \"969,30,1\"");
  const bool evaluates = config.train.eval_every > 0;
  check.expect(!evaluates || config.data.validation_path || proportions[1] > 0, "train.eval_every",
               "expected validation data because train.eval_every is set, got none",
               "give data.validation_path, or a second part in data.split");
  check.expect(
      config.data.sequence_length <= config.model.max_position_embeddings.value_or(1 << 24),
      "data.sequence_length",
      fmt::format("expected data.sequence_length of at most "
                  "model.max_position_embeddings = {}, got {}",
                  config.model.max_position_embeddings.value_or(0), config.data.sequence_length),
      "shorten the sequences or raise model.max_position_embeddings");
}

void check_batches(const TrainConfig& train, const Checker& check) {
  const int64_t global = train.global_batch_size.value_or(train.micro_batch_size);
  check.expect(global % train.micro_batch_size == 0, "train.global_batch_size",
               fmt::format("expected train.global_batch_size to be a multiple of "
                           "train.micro_batch_size = {}, got {}",
                           train.micro_batch_size, global),
               fmt::format("use {} or another multiple",
                           (global / train.micro_batch_size + 1) * train.micro_batch_size));
}

void check_length(const TrainConfig& train, const Checker& check) {
  check.expect(train.steps == 0 || train.epochs == 0, "train.epochs",
               fmt::format("expected train.steps or train.epochs, got both, {} and {}", train.steps,
                           train.epochs),
               "give one of them");
  check.expect(train.micro_batch_tokens == 0 || train.micro_batch_size == 1,
               "train.micro_batch_tokens",
               fmt::format("expected train.micro_batch_size or train.micro_batch_tokens, got both, "
                           "{} and {}",
                           train.micro_batch_size, train.micro_batch_tokens),
               "with a budget of tokens a microbatch holds as many samples as fit");
}

void check_schedule(const Config& config, const Checker& check) {
  const OptimConfig& optim = config.optim;
  check.expect(
      optim.min_lr <= optim.lr, "optim.min_lr",
      fmt::format("expected optim.min_lr of at most optim.lr = {}, got {}", optim.lr, optim.min_lr),
      "lower optim.min_lr");
  if (!optim.decay_steps) return;
  const int64_t decay = *optim.decay_steps;
  check.expect(optim.warmup_steps < decay, "optim.warmup_steps",
               fmt::format("expected optim.warmup_steps below optim.decay_steps = {}, got {}",
                           decay, optim.warmup_steps),
               "shorten the warm-up or train longer (train.steps)");
  const int64_t fall = optim.lr_schedule == "wsd" ? optim.wsd_decay_steps.value_or(0) : 0;
  check.expect(fall <= decay - optim.warmup_steps, "optim.wsd_decay_steps",
               fmt::format("expected optim.wsd_decay_steps of at most the {} steps after the "
                           "warm-up, got {}",
                           decay - optim.warmup_steps, fall),
               "lower optim.wsd_decay_steps");
}

void check_tensor(const ParallelConfig& parallel, const Checker& check) {
  const int64_t x = parallel.tensor_x, y = parallel.tensor_y;
  if (x == 1 && y == 1) return;
  check.expect(x > 1 && y > 1, x > 1 ? "parallel.tensor_y" : "parallel.tensor_x",
               fmt::format("expected parallel.tensor_x and parallel.tensor_y both above 1, or both "
                           "1, got {} and {}",
                           x, y),
               "leave both out for one-dimensional tensor parallelism");
  check.expect(parallel.tensor / y == x && parallel.tensor % y == 0, "parallel.tensor",
               fmt::format("expected parallel.tensor to be parallel.tensor_x x parallel.tensor_y, "
                           "got {} for {} x {}",
                           parallel.tensor, x, y),
               "set parallel.tensor to their product");
}

void check_sharing(const ParallelConfig& parallel, const Checker& check) {
  const int64_t near = parallel.zero_parameter_ranks, all = parallel.zero_ranks;
  check.expect(near == 0 || parallel.zero == 3, "parallel.zero_parameter_ranks",
               fmt::format("expected parallel.zero=3 because parallel.zero_parameter_ranks is {}, "
                           "got {}",
                           near, parallel.zero),
               "layers come back from neighbours only where each rank keeps slices of them");
  check.expect(near == 0 || all % near == 0, "parallel.zero_parameter_ranks",
               fmt::format("expected parallel.zero_parameter_ranks to divide "
                           "parallel.zero_ranks = {}, got {}",
                           all, near),
               "use a divisor, or 0");
}

void check_tune(const Config& config, const Checker& check) {
  const TuneConfig& tune = config.tune;
  check.expect(!tune.lora() || (tune.freeze.empty() && tune.freeze_layers == 0),
               tune.freeze.empty() ? "tune.freeze_layers" : "tune.freeze",
               "expected tune.freeze and tune.freeze_layers with tune.method=full alone, got lora",
               "lora trains adapters only; tune.modules_to_save names what is trained beside them");
  check.expect(tune.lora() || tune.quantization == "none", "tune.quantization",
               fmt::format("expected tune.method=lora because tune.quantization is {}, got {}",
                           tune.quantization, tune.method),
               "weights in few bits cannot be trained");
  if (!tune.lora() || !tune.lu_lora_final_layer_index) return;
  const ParallelConfig& parallel = config.parallel;
  check.expect(parallel.tensor == 1 && parallel.context == 1, "tune.lu_lora_final_layer_index",
               fmt::format("expected whole tokens and weights on every rank for LU-LoRA, got "
                           "parallel.tensor={} and parallel.context={}",
                           parallel.tensor, parallel.context),
               "set both to 1");
  check.expect(!tune.use_dora, "tune.use_dora",
               "expected false with tune.lu_lora_final_layer_index, got true",
               "the local rule has no lengths of rows");
}

void check_groups(const OptimConfig& optim, const Places& places) {
  for (const auto& group : optim.groups) {
    try {
      NamePattern pattern(group.match);
    } catch (const ConfigError& error) {
      std::string_view said = error.what();
      if (said.ends_with('.')) said.remove_suffix(1);
      throw ConfigError("config", prefix(places, "optim.groups") + "optim.groups: match: " +
                                      std::string(said.substr(said.find("] ") + 2)));
    }
  }
}

}  // namespace

void validate_at(const Config& config, const Places& places) {
  const Checker check(places);
  check_data(config, check);
  check_batches(config.train, check);
  check_length(config.train, check);
  check_schedule(config, check);
  check_tensor(config.parallel, check);
  check_sharing(config.parallel, check);
  check_tune(config, check);
  check_groups(config.optim, places);
  parse_communicators(config.parallel.communicators);
}

void validate(const Config& config) { validate_at(config, {}); }

void warn_without_effect(const Config& config, const Places& places) {
  const auto warn = [&](bool useless, std::string_view key, std::string_view reason) {
    if (useless) log::warn("config", "{}{} has no effect: {}", prefix(places, key), key, reason);
  };
  const OptimConfig& optim = config.optim;
  const bool wsd = optim.lr_schedule == "wsd";
  warn(!wsd && optim.wsd_decay_steps, "optim.wsd_decay_steps", "optim.lr_schedule is not wsd");
  warn(!wsd && optim.wsd_decay_style != OptimConfig{}.wsd_decay_style, "optim.wsd_decay_style",
       "optim.lr_schedule is not wsd");
  warn(optim.lr_schedule == "constant" && optim.min_lr > 0, "optim.min_lr",
       "optim.lr_schedule is constant");
  const TuneConfig& tune = config.tune;
  const TuneConfig usual;
  const std::string_view not_lora = "tune.method is not lora";
  warn(!tune.lora() && tune.r != usual.r, "tune.r", not_lora);
  warn(!tune.lora() && tune.alpha != usual.alpha, "tune.alpha", not_lora);
  warn(!tune.lora() && tune.use_rslora, "tune.use_rslora", not_lora);
  warn(!tune.lora() && tune.use_dora, "tune.use_dora", not_lora);
  warn(!tune.lora() && !tune.target_modules.empty(), "tune.target_modules", not_lora);
  warn(!tune.lora() && !tune.layers.empty(), "tune.layers", not_lora);
  warn(!tune.lora() && !tune.modules_to_save.empty(), "tune.modules_to_save", not_lora);
  warn(!tune.lora() && tune.loraplus_lr_ratio != 1, "tune.loraplus_lr_ratio", not_lora);
  warn(!tune.lora() && tune.lu_lora_final_layer_index, "tune.lu_lora_final_layer_index", not_lora);
  const bool local = tune.lora() && tune.lu_lora_final_layer_index;
  const std::string_view none_local = "tune.lu_lora_final_layer_index is not set";
  warn(!local && tune.lu_lora_lr != usual.lu_lora_lr, "tune.lu_lora_lr", none_local);
  warn(!local && tune.lu_lora_lr_ratio != usual.lu_lora_lr_ratio, "tune.lu_lora_lr_ratio",
       none_local);
  warn(!tune.lora() && tune.adapter, "tune.adapter", not_lora);
  warn(tune.double_quant && tune.quantization != "nf4", "tune.double_quant",
       "tune.quantization is not nf4");
  const ParallelConfig& parallel = config.parallel;
  const bool alone = parallel.context * parallel.tensor_y == 1,
             exchanging =
                 parallel.context_algorithm == "hybrid" || parallel.context_algorithm == "adaptive";
  warn(alone && parallel.context_algorithm != ParallelConfig{}.context_algorithm,
       "parallel.context_algorithm", "parallel.context is 1");
  warn(parallel.sequence && parallel.tensor_y > 1, "parallel.sequence",
       "parallel.tensor_x and tensor_y share the tokens between the blocks anyway");
  warn(parallel.tensor_slices > 1 && parallel.tensor == 1, "parallel.tensor_slices",
       "parallel.tensor is 1");
  warn(parallel.context_ulysses > 1 && (alone || !exchanging), "parallel.context_ulysses",
       "it belongs to parallel.context_algorithm=hybrid or adaptive of several ranks");
  warn(alone && parallel.context_window > 1, "parallel.context_window", "parallel.context is 1");
  warn(parallel.context_kv_cache != "none" && (alone || parallel.context_algorithm == "ulysses"),
       "parallel.context_kv_cache", "no keys come from other ranks one block after the other");
  warn(parallel.context_cache_interval > 0 && parallel.context_kv_cache == "none",
       "parallel.context_cache_interval", "parallel.context_kv_cache is none");
  warn(parallel.zero == 0 && parallel.zero_ranks > 0, "parallel.zero_ranks", "parallel.zero is 0");
  warn(parallel.zero == 0 && !parallel.overlap_param_gather, "parallel.overlap_param_gather",
       "parallel.zero is 0");
  warn(parallel.gather_ahead > 1 && (parallel.zero == 0 || !parallel.overlap_param_gather),
       "parallel.gather_ahead", "no weights come while ranks compute");
  warn(parallel.adaptive_buffers && config.device != "npu", "parallel.adaptive_buffers",
       "device is not npu");
  warn(!parallel.adaptive_buffers && parallel.expert_buffer_factor != -1,
       "parallel.expert_buffer_factor", "parallel.adaptive_buffers is false");
  warn(parallel.aiqos, "parallel.aiqos", "priorities of traffic are not set");
  warn(config.train.eval_every == 0 && config.data.validation_path, "data.validation_path",
       "train.eval_every is 0");
  warn(!config.checkpoint.save_final && config.checkpoint.hugging_face, "checkpoint.hugging_face",
       "checkpoint.save_final is false");
}

void require_for_training(const Config& config) {
  const Places none;
  const Checker check(none);
  check.expect(!config.model.source.empty() || config.model.family, "",
               "expected a model, got none",
               "add `model: PRESET` or `model: FOLDER`, or model.family with its sizes");
  check.expect(!config.data.path.empty(), "", "expected data.path, got none",
               "add the file to train on, as in `data: {path: corpus.txt}`");
  check.expect(config.train.steps > 0 || config.train.epochs > 0, "",
               "expected train.steps of at least 1, got none", "add `train: {steps: 100}`");
}

}  // namespace qianli::config
