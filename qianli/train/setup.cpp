#include "qianli/train/setup.h"

#include <fmt/format.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/log.h"
#include "qianli/base/progress.h"
#include "qianli/checkpoint/checkpoint.h"
#include "qianli/dist/agreement.h"
#include "qianli/formats/checkpoint_folder.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/parameter_table.h"
#include "qianli/model/resolve.h"
#include "qianli/model/tuned_table.h"
#include "qianli/ops/dispatch.h"
#include "qianli/train/context.h"
#include "qianli/train/devices.h"
#include "qianli/tune/start.h"

namespace qianli::train {
namespace {

void make_run_folder(const config::Config& config) {
  std::error_code error;
  fs::create_directories(fs::path(config.run.dir) / "checkpoints", error);
  if (error) {
    throw ConfigError("run", fmt::format("cannot create {}: {}", config.run.dir, error.message()),
                      "choose another run.dir");
  }
}

void check_tokenizer(const config::Config& config) {
  if (!config.data.tokenizer || fs::exists(*config.data.tokenizer)) return;
  throw DataError("data",
                  fmt::format("expected a tokenizer folder or file as data.tokenizer, got '{}', "
                              "which does not exist",
                              *config.data.tokenizer),
                  "make one with `qianli tokenizer train`");
}

// The folder named in the data section, else the model's own.
fs::path find_tokenizer(const config::Config& config, const convert::ModelSource* weights) {
  if (config.data.tokenizer) return *config.data.tokenizer;
  const fs::path model =
      weights ? convert::companion_folder(*weights, fs::path(config.run.dir) / "tokenizer")
              : fs::path(config.model.source);
  return text::Tokenizer::is_in(model) ? model : fs::path();
}

// The model that training starts from; null: fresh weights.
std::unique_ptr<convert::ModelSource> open_weights(const config::ModelConfig& model) {
  const auto weights = model::weights_folder(model);
  if (!weights || !convert::is_model(*weights)) return nullptr;
  return convert::open_model(*weights);
}

void take_special_ids(model::ModelSpec& spec, const text::Tokenizer& tokenizer) {
  if (!spec.bos_token_id && tokenizer.bos_id()) spec.bos_token_id = *tokenizer.bos_id();
  if (spec.eos_token_ids.empty() && tokenizer.eos_id()) spec.eos_token_ids = {*tokenizer.eos_id()};
  if (!spec.pad_token_id && tokenizer.pad_id()) spec.pad_token_id = *tokenizer.pad_id();
}

void report_dropout(const config::Config& config) {
  const config::TrainConfig& train = config.train;
  const fs::path folder = config.model.source;
  if (folder.empty() || !fs::exists(folder / "config.json")) return;
  if (train.attention_dropout + train.hidden_dropout + train.embedding_dropout > 0) return;
  const auto rates = model::dropout_rates(model::read_config(folder));
  if (rates.empty()) return;
  log::info("model",
            "{} names {}, which is not applied: train.attention_dropout, train.hidden_dropout and "
            "train.embedding_dropout say what this training drops",
            (folder / "config.json").string(), fmt::join(rates, ", "));
}

// Which layers and which order of microbatches are this rank's.
void take_stage(Run& run) {
  const int64_t block = run.config.train.micro_batch_size * run.ranks.samples.count;
  const int64_t microbatches = std::max<int64_t>(1, *run.config.train.global_batch_size / block);
  run.stages = plan::plan_stages(run.config.parallel, run.spec, microbatches);
  run.ranks.part.chunks = run.stages.chunks[static_cast<size_t>(run.ranks.stages.rank())];
}

void expect_shareable(const Run& run) {
  const auto problems = plan::part_problems(run.spec, run.ranks.part);
  if (problems.empty()) return;
  throw ConfigError("parallel", fmt::format("{}", fmt::join(problems, "; ")));
}

model::ModelSpec resolve(const config::ModelConfig& model, const convert::ModelSource* weights) {
  // A config.json counts for more than the files beside it: it may ask for layers of multi-token
  // prediction that they do not hold, which then start fresh.
  const bool says_itself = weights && !fs::exists(weights->path / "config.json");
  return model::resolve(model, says_itself ? std::optional(weights->spec) : std::nullopt);
}

// Before any file of it is looked at further.
model::ModelSpec declared_model(const config::ModelConfig& model) {
  return resolve(model, open_weights(model).get());
}

// Adapters beside layers of multi-token prediction that start fresh would belong to no model.
void leave_out_missing_heads(model::ModelSpec& spec, const convert::ModelSource& weights) {
  if (spec.mtp.num_layers <= weights.spec.mtp.num_layers) return;
  spec.mtp.num_layers = weights.spec.mtp.num_layers;
  log::info("tune", "{} holds no further multi-token prediction heads: the adapter has none",
            weights.path.string());
}

void report_trained(const Run& run) {
  const tune::Trained trained = tune::count_trained(run.spec, run.config.tune);
  log::info("tune", "{} of {} parameters are trained",
            human_count(static_cast<double>(trained.elements)),
            human_count(static_cast<double>(trained.all)));
}

void open_model(Run& run) {
  const auto weights = open_weights(run.config.model);
  if (run.config.tune.freezes() && !weights) {
    throw ConfigError(
        "tune",
        fmt::format("expected a model with weights because some stay as they are, got "
                    "'{}', which starts fresh",
                    run.config.model.source),
        "set model to a folder with weights");
  }
  run.spec = resolve(run.config.model, weights.get());
  if (run.config.tune.lora()) leave_out_missing_heads(run.spec, *weights);
  run.tokenizer_folder = find_tokenizer(run.config, weights.get());
  if (!run.tokenizer_folder.empty()) {
    run.tokenizer = text::Tokenizer::load(run.tokenizer_folder);
    if (!weights && !run.config.model.vocab_size) {
      // A fresh model has as many rows as its tokenizer has tokens.
      run.spec.vocab_size = run.tokenizer->vocab_size();
      run.spec.validate();
    }
    if (run.tokenizer->vocab_size() > run.spec.vocab_size) {
      throw DataError(
          "data",
          fmt::format("expected a tokenizer with at most the model's {} tokens, got {} in {}",
                      run.spec.vocab_size, run.tokenizer->vocab_size(),
                      run.tokenizer_folder.string()),
          fmt::format("set model.vocab_size={} or choose the model's own tokenizer",
                      run.tokenizer->vocab_size()));
    }
    if (!weights) {
      // A fresh model speaks the tokenizer's special tokens, not those of the preset.
      run.spec.bos_token_id.reset();
      run.spec.eos_token_ids.clear();
      run.spec.pad_token_id.reset();
    }
    take_special_ids(run.spec, *run.tokenizer);
  }
  if (run.spec.position == model::PositionKind::kLearned &&
      run.config.data.sequence_length > run.spec.max_position_embeddings) {
    throw ConfigError(
        "data",
        fmt::format(
            "expected data.sequence_length of at most {} (the model's learned positions), got {}",
            run.spec.max_position_embeddings, run.config.data.sequence_length));
  }
  if (run.config.data.sequence_length > run.spec.max_position_embeddings) {
    log::warn("data", "data.sequence_length {} is longer than the {} positions the model declares",
              run.config.data.sequence_length, run.spec.max_position_embeddings);
  }
  report_dropout(run.config);
  check_context(run.config, run.spec);
  check_slices(run.config, run.spec);
  take_stage(run);
  expect_shareable(run);
  run.parameters = std::make_unique<nn::ParameterSet>(
      run.spec, run.compute.dtype, run.device,
      /*master=*/true, run.ranks.part, run.ranks.owners(run.config.parallel), &run.config.tune);
  log::info("model", "{}: {} parameters, {} layers, hidden {}, vocabulary {}", run.spec.family,
            human_count(static_cast<double>(model::parameter_count(run.spec))), run.spec.num_layers,
            run.spec.hidden_size, run.spec.vocab_size);
  if (run.config.tune.freezes()) report_trained(run);
  if (weights) {
    checkpoint::load_weights(*weights, *run.parameters);
  } else {
    run.parameters->initialize(static_cast<uint64_t>(run.config.train.seed));
  }
  tune::start_adapters(run.config, run.spec, *run.parameters);
  run.chunks = build_chunks(run.spec, *run.parameters, run.ranks);
}

data::BatchLayout batch_layout(const Run& run) {
  const config::Config& config = run.config;
  const config::ParallelConfig& parallel = config.parallel;
  return {.global_batch_size = *config.train.global_batch_size,
          .micro_batch_size = config.train.micro_batch_size,
          .data_parallel_rank = run.ranks.samples.index,
          .data_parallel_size = run.ranks.samples.count,
          .context = context_options(parallel, run.spec),
          .context_rank = run.ranks.parallel.context.rank() * parallel.tensor_y,
          .context_neighbours = parallel.tensor_y,
          .depths = run.spec.mtp.num_layers,
          .least_tokens = std::max({parallel.context * parallel.tensor, parallel.schedule_slices})};
}

void open_data(Run& run, const Task& task) {
  const config::Config& config = run.config;
  const fs::path cache =
      config.data.cache_dir ? fs::path(*config.data.cache_dir) : fs::path(config.run.dir) / "data";
  TaskData opened;
  // The first rank fills the cache.
  run.ranks.world.first_alone("preparing the data", [&] {
    opened = task.open_data({.config = config,
                             .tokenizer = run.tokenizer,
                             .tokenizer_folder = run.tokenizer_folder,
                             .cache = cache,
                             .layout = batch_layout(run),
                             .vocab_size = run.spec.vocab_size});
  });
  if (run.ranks.first()) {
    for (const std::string& sentence : opened.told) log::info("data", "{}", sentence);
    for (const std::string& warning : opened.warnings) log::warn("data", "{}", warning);
  }
  run.train_data = std::move(opened.train);
  run.validation_data = std::move(opened.validation);
  config::set_steps(run.config,
                    config.train.steps > 0 ? config.train.steps : run.train_data->num_steps());
  const auto [tokens, length] = run.train_data->step_size();
  run.flops_per_token =
      model::tuned_training_flops(run.spec, config.tune, 1, length) / static_cast<double>(length);
}

std::optional<fs::path> find_resume_point(const config::Config& config) {
  if (config.checkpoint.resume == "never") return std::nullopt;
  if (config.checkpoint.resume != "auto") return fs::path(config.checkpoint.resume);
  const fs::path folder = fs::path(config.run.dir) / "checkpoints";
  auto point = formats::latest_checkpoint(folder);
  if (!point && !formats::steps_in(folder).empty()) {
    // Starting anew would write over what can perhaps still be saved.
    throw CheckpointError(
        "checkpoint",
        fmt::format("expected a complete checkpoint in {}, got damaged ones", folder.string()),
        "restore one, or start anew with checkpoint.resume=never and another run.dir");
  }
  return point;
}

// The checkpoint to go on from, if any: the one that the first rank sees.
std::optional<fs::path> resume_point(const Run& run) {
  const std::string point = dist::first_rank(
      run.ranks.all, [&] { return find_resume_point(run.config).value_or(fs::path()).string(); });
  return point.empty() ? std::nullopt : std::optional<fs::path>(point);
}

// Another program does not say which data it has seen, only how much of it.
void go_on_from_foreign(const Run& run, const formats::TrainingState& state,
                        const fs::path& folder) {
  const int64_t batch = *run.config.train.global_batch_size;
  if (state.consumed_samples != state.step * batch) {
    throw ConfigError(
        "train",
        fmt::format("expected train.global_batch_size such that {} steps take the {} samples that "
                    "{} has taken, got {}",
                    state.step, state.consumed_samples, folder.string(), batch),
        "to start from its weights alone: model=FOLDER");
  }
  log::warn("data",
            "{} does not say which data it was trained on: goes on behind the first {} samples of "
            "these",
            folder.string(), state.consumed_samples);
}

void resume(Run& run, const fs::path& folder) {
  const auto state = checkpoint::load(folder, *run.parameters, *run.optimizer);
  const std::string fingerprint = run.train_data->fingerprint();
  if (state.data_fingerprint.empty()) {
    go_on_from_foreign(run, state, folder);
  } else if (!data::same_data(state.data_fingerprint, fingerprint)) {
    throw DataError(
        "data",
        fmt::format(
            "expected the data that {} was trained on, got other data, another split, seed or "
            "sequence length",
            folder.string()),
        "restore the data, or start anew with checkpoint.resume=never and another run.dir");
  } else if (state.data_fingerprint != fingerprint) {
    log::warn("data",
              "the samples come in another order than in the run so far, because train.steps, the "
              "batch size or the "
              "weights of the corpora changed; some may come again, as in Megatron");
  }
  if (state.step > run.config.train.steps) {
    throw ConfigError(
        "train",
        fmt::format("expected train.steps of at least the {} that {} has done, got {}", state.step,
                    folder.string(), run.config.train.steps),
        "raise train.steps, or start anew with another run.dir");
  }
  run.first_step = state.step;
  run.optimizer->set_updates_done(state.updates_done);
  log::info("checkpoint", "resumed {} after step {}", folder.string(), state.step);
}

}  // namespace

Run build_run(const Task& task, const config::Config& config) {
  const auto environment = launch::rank_environment(launch::process_environment());
  device::start(environment.local_world_size);
  const c10::Device device =
      device::choose(config.device, {environment.local_rank, environment.local_world_size});
  Ranks ranks = meet(config, environment, device, [&] {
    return devices_for(device, config, environment.rank == 0,
                       [&] { return declared_model(config.model); });
  });
  if (!ranks.first()) log::set_level(log::Level::kWarning);  // the first rank speaks for all
  ops::load_cuda_kernels();
  ops::choose_backends(config::op_backends(config));
  if (ranks.first()) task.check_options(config);
  check_tokenizer(config);  // before anything is made: a wrong path leaves nothing behind
  ranks.world.first_alone("making the run folder", [&] { make_run_folder(config); });
  if (ranks.first()) log::to_file(fs::path(config.run.dir) / "log.txt");
  Run run{.config = config,
          .ranks = std::move(ranks),
          .device = device,
          .compute = device::choose_compute_type(config.precision, device),
          .counts_labels = task.counts_labels};
  log::info("device", "{}, {} thread(s), {}", device.str(), device::threads(), run.compute.reason);
  open_model(run);
  open_data(run, task);
  dist::expect_same(run.ranks.all, "the data", run.train_data->fingerprint());
  run.optimizer = std::make_unique<optim::FlatOptimizer>(
      *run.parameters, tune::optimizer_of(run.config),
      gradient_groups(run.ranks, *run.parameters, config.parallel));
  if (!run.ranks.all.alone()) expect_known_groups(run.ranks, config.parallel.communicators);
  StepOptions options =
      step_options(run.stages, config.parallel, run.config.optim, run.spec, *run.parameters);
  options.dropout = {.attention = config.train.attention_dropout,
                     .hidden = config.train.hidden_dropout,
                     .embedding = config.train.embedding_dropout,
                     .noise = config.train.neftune_alpha,
                     .seed = static_cast<uint64_t>(config.train.seed)};
  options.means_of_microbatches = config.train.loss_normalization == "microbatch";
  options.counts_correct = task.counts_labels;
  run.step = std::make_unique<Step>(pointers(run.chunks), *run.parameters, *run.optimizer,
                                    std::move(options), step_ranks(run.ranks));
  const auto point = resume_point(run);
  if (point) resume(run, *point);
  run.saver = std::make_unique<checkpoint::Saver>(
      checkpoint::SaverOptions{.folder = fs::path(config.run.dir) / "checkpoints",
                               .keep = config.checkpoint.keep,
                               .asynchronous = config.checkpoint.asynchronous,
                               .tokenizer = run.tokenizer_folder,
                               .resumed_from = point.value_or(fs::path()),
                               .spec = run.spec,
                               .ranks = run.ranks.savers,
                               .copies = share_of(run.ranks.sharing.across),
                               .expert_copies = share_of(run.ranks.expert_sharing.across)});
  if (!run.ranks.first()) return run;
  // Only now is it sure that this run goes on: a failed start leaves the description of the one
  // before.
  write_file_atomically(fs::path(config.run.dir) / "config.yaml", config::to_yaml(run.config),
                        FileRole::kConfig);
  run.metrics =
      std::make_unique<Metrics>(config.run.dir, config.log, run.first_step, run.config.train.steps,
                                run.train_data->step_size().tokens);
  return run;
}

formats::TrainingState training_state(const Run& run, int64_t step) {
  return {.step = step,
          .updates_done = run.optimizer->updates_done(),
          .consumed_samples = step * *run.config.train.global_batch_size,
          .seed = static_cast<uint64_t>(run.config.train.seed),
          .data_fingerprint = run.train_data->fingerprint(),
          .config_yaml = config::to_yaml(run.config)};
}

}  // namespace qianli::train
