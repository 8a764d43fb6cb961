#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "apps/qianli/command.h"
#include "apps/qianli/data_inspect_samples.h"
#include "qianli/base/error.h"
#include "qianli/data/gpt_dataset.h"
#include "qianli/data/inspect.h"
#include "qianli/data/instruction_dataset.h"
#include "qianli/data/pretrain_data.h"

namespace qianli::app {
namespace {

struct Options {
  std::vector<std::string> paths;
  std::string tokenizer, split, cache;
  std::string part = "train";
  std::string key = "text";
  int64_t sequence_length = 0, sample = 0;
  std::optional<int64_t> num_samples;
  uint32_t seed = 1234;
  bool no_append_eod = false, eod_mask_loss = false;
  bool reset_position_ids = false, reset_attention_mask = false, order = false, json = false;
  bool no_color = false;
  int64_t rows = 1000;
  InstructionFlags instruction;

  bool colour() const {
    return !no_color && ::isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
  }
};

// A folder of its own, gone with the object; or the one the user wants to keep.
class Cache {
 public:
  explicit Cache(const std::string& wanted) : path_(wanted), temporary_(wanted.empty()) {
    if (!temporary_) return;
    std::string name = (fs::temp_directory_path() / "qianli-inspect-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      throw DataError("data", fmt::format("cannot create a folder in {}", name),
                      "give one with --cache");
    }
    path_ = name;
  }
  ~Cache() {
    std::error_code ignored;
    if (temporary_) fs::remove_all(path_, ignored);
  }
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
  bool temporary_;
};

struct Opened {
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::vector<data::WeightedPath> corpora;
  data::MaskOptions masks;
};

Opened open(const Options& options, const fs::path& cache) {
  Opened opened;
  std::optional<data::DocumentEncoder> encoder;
  if (!options.tokenizer.empty()) {
    opened.tokenizer = text::Tokenizer::load(options.tokenizer);
    encoder = data::document_encoder(opened.tokenizer);
    if (encoder->eod) opened.masks.eod = *encoder->eod;
    if (opened.tokenizer->pad_id()) opened.masks.pad = *opened.tokenizer->pad_id();
    opened.masks.vocab_size = encoder->vocab_size;
  }
  opened.corpora = data::parse_data_paths(options.paths);
  for (data::WeightedPath& corpus : opened.corpora) {
    const auto resolved = data::resolve_corpus(corpus.path, {.text_key = options.key},
                                               !options.no_append_eod, encoder, cache);
    corpus.path = resolved.prefix.string();
    if (resolved.eod) opened.masks.eod = resolved.eod;
  }
  opened.masks.eod_mask_loss = options.eod_mask_loss;
  opened.masks.reset_position_ids = options.reset_position_ids;
  opened.masks.reset_attention_mask = options.reset_attention_mask;
  return opened;
}

OrderedJson array_to_json(const data::IndexArray& array) {
  OrderedJson json = OrderedJson::array();
  for (int64_t row = 0; row < array.rows(); ++row) {
    if (array.columns() == 1) {
      json.push_back(array[row]);
    } else {
      json.push_back(OrderedJson::array({array[2 * row], array[2 * row + 1]}));
    }
  }
  return json;
}

OrderedJson order_to_json(const data::SampleSet& samples) {
  if (const auto* gpt = dynamic_cast<const data::GptDataset*>(&samples)) {
    return {{"document_index", array_to_json(gpt->order().document)},
            {"sample_index", array_to_json(gpt->order().sample)},
            {"shuffle_index", array_to_json(gpt->order().shuffle)}};
  }
  const auto& blend = dynamic_cast<const data::BlendedDataset&>(samples);
  return {{"dataset_index", array_to_json(blend.order().dataset)},
          {"dataset_sample_index", array_to_json(blend.order().sample)}};
}

std::shared_ptr<const data::SampleSet> open_samples(const Options& options, const Opened& opened) {
  size_t part = 0;
  while (data::kSplitNames[part] != options.part) ++part;
  const auto split_text = options.split.empty() ? std::nullopt : std::optional(options.split);
  return data::open_blend(opened.corpora, static_cast<data::Split>(part), split_text,
                          options.num_samples,
                          {.sequence_length = options.sequence_length, .seed = options.seed});
}

void inspect_corpora(const Options& options) {
  const Cache cache(options.cache);
  const Opened opened = open(options, cache.path());
  OrderedJson json = {{"corpora", OrderedJson::array()}};
  std::string text;
  for (size_t i = 0; i < opened.corpora.size(); ++i) {
    const data::WeightedPath& corpus = opened.corpora[i];
    const auto summary = data::summarise(formats::IndexedDataset::open(corpus.path));
    OrderedJson entry = {{"path", corpus.path}};
    if (corpus.weight) entry["weight"] = *corpus.weight;
    entry.update(data::to_json(summary));
    json["corpora"].push_back(std::move(entry));
    text += fmt::format("{}\n{}", corpus.path, data::to_text(summary));
  }
  if (options.sequence_length > 0) {
    const auto samples = open_samples(options, opened);
    const int64_t index = options.sample;
    const auto sample = data::make_batch(*samples, std::span(&index, 1), opened.masks);
    json["samples"] = samples->size();
    if (options.order) json["order"] = order_to_json(*samples);
    json["sample"] = data::sample_to_json(sample, opened.tokenizer.get());
    text += fmt::format(
        "\n{} samples of {} tokens; sample {}:\n{}\n", samples->size(), options.sequence_length,
        index,
        data::sample_to_text(sample, opened.tokenizer.get(), opened.masks.eod, options.colour()));
  }
  std::cout << (options.json
                    ? json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n"
                    : text);
}

void run(const Options& options) {
  const InspectSamples samples{.paths = options.paths,
                               .tokenizer = options.tokenizer,
                               .sample = options.sample,
                               .rows = options.rows,
                               .json = options.json,
                               .colour = options.colour()};
  if (options.instruction.asked()) return inspect_rows(samples, options.instruction);
  const bool prepared =
      options.paths.size() == 1 && data::InstructionDataset::exists(options.paths[0]);
  options.instruction.check_unasked();
  prepared ? inspect_prepared(samples) : inspect_corpora(options);
}

void add_sample_options(CLI::App& command, Options& options) {
  const char* group = "Samples, as training sees them";
  command
      .add_option("--sequence-length", options.sequence_length, "Tokens per sample; shows a sample")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->group(group);
  command.add_option("--sample", options.sample, "Number of the sample shown [0]")->group(group);
  command
      .add_option("--num-samples", options.num_samples,
                  "Samples asked for, as steps x global batch size [one epoch]")
      ->check(CLI::PositiveNumber)
      ->group(group);
  command.add_option("--split", options.split, "As data.split, like 969,30,1 [everything]")
      ->group(group);
  command.add_option("--part", options.part, "Which part of the split")
      ->check(CLI::IsMember({"train", "valid", "test"}))
      ->group(group);
  command.add_option("--seed", options.seed, "As data.seed [1234]")
      ->check(CLI::NonNegativeNumber)
      ->group(group);
  command.add_flag("--eod-mask-loss", options.eod_mask_loss, "As data.eod_mask_loss")->group(group);
  command
      .add_flag("--reset-position-ids", options.reset_position_ids, "As data.reset_position_ids")
      ->group(group);
  command
      .add_flag("--reset-attention-mask", options.reset_attention_mask,
                "As data.reset_attention_mask")
      ->group(group);
  command.add_flag("--order", options.order, "Put the whole order of samples into the JSON")
      ->group(group);
}

}  // namespace

void add_data_inspect(CLI::App& data) {
  auto options = std::make_shared<Options>();
  CLI::App* command = data.add_subcommand(
      "inspect", "Count what is in a corpus or in instruction data, and show samples.");
  command->footer(
      "Tokens at positions without loss are dimmed (in brackets when not on a terminal), and "
      "documents\n"
      "end with a bar. Weights may stand before the paths: 0.3 first 0.7 second.");
  command
      ->add_option(
          "PATH", options->paths,
          "Text, JSONL, the prefix of a .bin/.idx pair, or of prepared instruction data; with "
          "--template rows of instruction data")
      ->required();
  command->add_option("--tokenizer", options->tokenizer,
                      "Folder with tokenizer files, or one of them; needed for text");
  command->add_option("--key", options->key, "Field of a JSON record that holds the text [text]");
  command->add_flag("--no-append-eod", options->no_append_eod,
                    "Do not end documents with the end-of-document token");
  command->add_option("--cache", options->cache, "Folder that keeps prepared text [none]");
  command->add_flag("--json", options->json, "Print a JSON object");
  command->add_flag("--no-color", options->no_color, "Plain text, also on a terminal");
  command->add_option("--rows", options->rows, "Rows of instruction data looked at [1000]")
      ->check(CLI::PositiveNumber)
      ->group("Instruction data");
  options->instruction.add_to(*command);
  add_sample_options(*command, *options);
  command->callback([options] { run(*options); });
}

}  // namespace qianli::app
