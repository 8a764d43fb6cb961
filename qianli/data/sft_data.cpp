#include "qianli/data/sft_data.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/progress.h"
#include "qianli/base/strings.h"
#include "qianli/data/instruction/configured.h"

namespace qianli::data {
namespace {

double percent(int64_t part, int64_t whole) {
  return 100.0 * static_cast<double>(part) / static_cast<double>(std::max<int64_t>(whole, 1));
}

std::vector<fs::path> training_paths(const config::DataConfig& data) {
  std::vector<fs::path> paths;
  for (const config::DataSource& source : data.path) {
    if (source.weight != 1.0) {
      throw ConfigError("data",
                        fmt::format("expected instruction data without weights, got {} for {}",
                                    source.weight, source.path),
                        "all samples of all files are taken");
    }
    paths.emplace_back(source.path);
  }
  return paths;
}

// A template that nobody named is the model's own.
config::InstructionConfig with_template(const config::DataConfig& data, Legacy legacy) {
  config::InstructionConfig config = data.instruction;
  if (!config.chat_template.empty() || legacy != Legacy::kNone) return config;
  config.chat_template = kOwnTemplate;
  return config;
}

class Opening {
 public:
  explicit Opening(const SftDataInput& input) : input_(input), data_(input.config.data) {}

  SftData open();

 private:
  fs::path resolve(const std::vector<fs::path>& paths);
  fs::path prepare(const KnownRows& rows);
  void tell_counts(const InstructionManifest& manifest, const fs::path& name);
  std::shared_ptr<const InstructionDataset> samples(const fs::path& prefix, Split split,
                                                    bool split_up) const;
  std::optional<int32_t> end_of_sample(const fs::path& prefix,
                                       const InstructionDataset& samples) const;
  InstructionBatchOptions options(const fs::path& prefix, const InstructionDataset& samples) const;
  void tell_training(const InstructionBatches& batches);

  const SftDataInput& input_;
  const config::DataConfig& data_;
  // Said by one rank.
  std::vector<std::string> told_, warnings_;
};

void check_tokenizer(const fs::path& prefix, const InstructionManifest& manifest,
                     const text::Tokenizer* tokenizer) {
  const OrderedJson samples = manifest.settings.value("samples", OrderedJson::object());
  const std::string made = samples.value("tokenizer", std::string());
  if (!tokenizer || made.empty() || made == tokenizer->fingerprint()) return;
  throw DataError(
      "data", fmt::format("{} was prepared with another tokenizer than the run's", prefix.string()),
      "prepare it again with the model's, or set data.tokenizer");
}

// Prepared samples as they are; else rows made into samples in the cache.
fs::path Opening::resolve(const std::vector<fs::path>& paths) {
  if (paths.size() == 1 && InstructionDataset::exists(paths[0])) {
    if (const auto manifest = InstructionManifest::of_prefix(paths[0])) {
      check_tokenizer(paths[0], *manifest, input_.tokenizer.get());
      tell_counts(*manifest, paths[0]);
    }
    return paths[0];
  }
  for (const fs::path& path : paths) {
    if (fs::exists(path)) continue;
    throw DataError(
        "data", fmt::format("expected instruction data at {}, got nothing", path.string()),
        "give files or folders of rows, or the prefix of data that `qianli data prepare "
        "--template NAME` has written");
  }
  if (!input_.tokenizer)
    throw ConfigError("data", "expected a tokenizer for rows of instruction data, got none",
                      "set data.tokenizer to a folder with tokenizer.json");
  const KnownRows rows = configured_rows(data_.instruction, "", paths);
  told_.insert(told_.end(), rows.notices.begin(), rows.notices.end());
  if (rows.task != InstructionTask::kSft) {
    throw DataError(
        "data",
        fmt::format("expected rows of one answer each, got rows for {}", name_of(rows.task)),
        "data.map_keys names the columns to use");
  }
  return prepare(rows);
}

fs::path Opening::prepare(const KnownRows& rows) {
  const SampleEncoder encoder = configured_encoder(
      with_template(data_, rows.legacy), rows, input_.tokenizer, input_.tokenizer_folder,
      {.append_eod = data_.append_eod.value_or(false), .sequence_length = data_.sequence_length});
  warnings_.insert(warnings_.end(), encoder.warnings().begin(), encoder.warnings().end());
  InstructionOptions options{.rows = rows, .fail_on_bad_rows = data_.bad_rows == "fail"};
  const std::string name = rows.files[0].filename().string();
  const std::string identity = instruction_identity(options, encoder);
  const fs::path prefix =
      input_.cache / "instruction" / fmt::format("{}-{}", rows.files[0].stem().string(), identity);
  std::optional<Progress> progress;
  options.report = [&](uint64_t done, uint64_t total) {
    if (!progress) progress.emplace(fmt::format("preparing {}", name), total, "bytes");
    progress->update(done);
  };
  // What is there is checked when it is opened.
  const auto there = InstructionManifest::of_prefix(prefix);
  const InstructionManifest manifest = there && there->identity() == identity
                                           ? *there
                                           : prepare_instructions(prefix, options, encoder);
  if (progress) progress->finish(fmt::format("{} samples", manifest.counts.samples));
  if (options.fail_on_bad_rows && manifest.counts.bad_rows > 0)
    throw DataError("data", manifest.counts.first_bad_rows.at(0),
                    "data.bad_rows=skip leaves such rows out");
  tell_counts(manifest, rows.files[0]);
  return prefix;
}

void Opening::tell_counts(const InstructionManifest& manifest, const fs::path& name) {
  const InstructionCounts& counts = manifest.counts;
  warnings_.insert(warnings_.end(), counts.warnings.begin(), counts.warnings.end());
  if (counts.bad_rows > 0) {
    warnings_.push_back(fmt::format(
        "{} of {} rows could not be used and are left out; the first of them:", counts.bad_rows,
        counts.rows));
    warnings_.insert(warnings_.end(), counts.first_bad_rows.begin(), counts.first_bad_rows.end());
  }
  if (counts.too_long > 0) {
    warnings_.push_back(
        fmt::format("{} samples reach the sequence length and are left out; "
                    "data.truncation=two-sided cuts them instead",
                    counts.too_long));
  }
  told_.push_back(fmt::format("{}: {} samples of {} rows, {} tokens, {:.1f} % with labels{}",
                              name.filename().string(), counts.samples, counts.rows, counts.tokens,
                              percent(counts.trained, counts.tokens),
                              counts.cut > 0 ? fmt::format(", {} cut", counts.cut) : ""));
}

std::shared_ptr<const InstructionDataset> Opening::samples(const fs::path& prefix, Split split,
                                                           bool split_up) const {
  InstructionDatasetOptions options{.split = split, .shuffle = false};
  if (split_up) options.split_text = data_.split;
  auto opened =
      std::make_shared<const InstructionDataset>(InstructionDataset::open(prefix, options));
  if (!opened->has("input_ids") || !opened->has("labels")) {
    throw DataError("data",
                    fmt::format("expected the fields input_ids and labels of {}, got {}",
                                prefix.string(), join(opened->fields(), ", ")),
                    "prepare it with --task sft");
  }
  const auto packed = opened->packed_length();
  if (!packed) return opened;
  if (*packed > data_.sequence_length + 1) {
    throw ConfigError("data",
                      fmt::format("expected data.sequence_length of at least {}, because {} is "
                                  "packed into sequences of {}, got {}",
                                  *packed - 1, prefix.string(), *packed, data_.sequence_length));
  }
  if (data_.packing != "none") {
    throw ConfigError(
        "data", fmt::format("expected data.packing=none, because {} is packed already, got {}",
                            prefix.string(), data_.packing));
  }
  return opened;
}

std::optional<int32_t> Opening::end_of_sample(const fs::path& prefix,
                                              const InstructionDataset& samples) const {
  if (samples.neatly_packed()) return std::nullopt;
  if (samples.packed_length()) {
    const auto manifest = InstructionManifest::of_prefix(prefix);
    return manifest->settings.at("samples").at("eos").get<int32_t>();
  }
  if (!data_.reset_attention_mask) return std::nullopt;
  const auto eos = input_.tokenizer ? input_.tokenizer->eos_id() : std::nullopt;
  if (eos) return eos;
  throw ConfigError("data",
                    "expected a tokenizer with an end of text for data.reset_attention_mask, got "
                    "none",
                    "set data.tokenizer");
}

InstructionBatchOptions Opening::options(const fs::path& prefix,
                                         const InstructionDataset& samples) const {
  return {.rows = {.packing = row_packing(data_.packing),
                   .capacity = data_.sequence_length,
                   .seed = static_cast<uint32_t>(data_.seed.value_or(1234))},
          .micro_batch_tokens = input_.config.train.micro_batch_tokens,
          .microbatch_multiple = input_.config.parallel.pipeline,
          .end_of_sample = end_of_sample(prefix, samples),
          .vocab_size = input_.vocab_size};
}

void Opening::tell_training(const InstructionBatches& batches) {
  const auto& one = batches.summary();
  if (one.too_long > 0) {
    warnings_.push_back(
        fmt::format("{} samples are longer than data.sequence_length={} and are left out",
                    one.too_long, data_.sequence_length));
  }
  const int64_t steps = batches.num_steps(), batch = input_.layout.global_batch_size;
  const std::string rows =
      data_.packing == "none"
          ? std::string("each a row, without padding")
          : fmt::format("packed into {} rows of at most {} tokens, {:.1f} % full", one.rows,
                        data_.sequence_length,
                        percent(one.tokens, one.rows * data_.sequence_length));
  told_.push_back(fmt::format("trained on {} samples, {}; {:.3g} epochs = {} steps of {} {}",
                              one.samples, rows, *batches.epochs_after(steps), steps, batch,
                              data_.packing == "none" ? "samples" : "rows"));
}

SftData Opening::open() {
  const config::TrainConfig& train = input_.config.train;
  const bool evaluates = train.eval_every > 0, own = data_.validation_path.has_value();
  const fs::path prefix = resolve(training_paths(data_));
  SftData data;
  const auto training = samples(prefix, Split::kTrain, evaluates && !own);
  InstructionBatchOptions wanted = options(prefix, *training);
  if (train.epochs > 0) {
    wanted.wanted.epochs = train.epochs;
  } else {
    wanted.wanted.rows = train.steps * input_.layout.global_batch_size;
    wanted.steps = train.steps;
  }
  data.train = std::make_shared<const InstructionBatches>(training, input_.layout, wanted);
  tell_training(*data.train);
  if (evaluates) {
    const fs::path place = own ? resolve({*data_.validation_path}) : prefix;
    const auto validation = samples(place, Split::kValidation, !own);
    InstructionBatchOptions once = options(place, *validation);
    once.rows.shuffle = false;
    once.wanted.epochs = 1;
    data.validation = std::make_shared<const InstructionBatches>(validation, input_.layout, once);
  }
  data.told = std::move(told_);
  data.warnings = std::move(warnings_);
  return data;
}

}  // namespace

SftData open_sft_data(const SftDataInput& input) { return Opening(input).open(); }

}  // namespace qianli::data
