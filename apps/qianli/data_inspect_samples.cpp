#include "apps/qianli/data_inspect_samples.h"

#include <fmt/core.h>

#include <iostream>

#include "qianli/base/error.h"
#include "qianli/base/stop.h"
#include "qianli/data/inspect.h"
#include "qianli/data/instruction/show.h"
#include "qianli/data/instruction_dataset.h"

namespace qianli::app {
namespace {

void print(const OrderedJson& json) {
  std::cout << json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) << "\n";
}

void show(const InspectSamples& options, const std::vector<data::ShownSequence>& sequences,
          const std::shared_ptr<const text::Tokenizer>& tokenizer) {
  for (const data::ShownSequence& one : sequences) {
    if (!one.name.empty()) std::cout << one.name << ":\n";
    std::cout << data::to_text(one, tokenizer, options.colour) << "\n";
  }
  std::cout << (options.colour ? "green: learnt, dim: read only, inverted: special tokens\n"
                               : "in brackets: read only, not learnt\n");
}

OrderedJson to_json(const std::vector<data::ShownSequence>& sequences,
                    const std::shared_ptr<const text::Tokenizer>& tokenizer) {
  OrderedJson json = OrderedJson::array();
  for (const data::ShownSequence& one : sequences) json.push_back(data::to_json(one, tokenizer));
  return json;
}

// The first rows of the files, through the encoder.
class Look {
 public:
  Look(const InspectSamples& options, const std::vector<data::KnownRows>& sets,
       const data::SampleEncoder& encoder)
      : options_(options), encoder_(encoder) {
    for (const data::KnownRows& rows : sets) {
      const int64_t end = counts_.rows + rows.max_rows.value_or(options.rows);
      for (const fs::path& file : rows.files)
        look(file, rows, std::min(options.rows, end) - counts_.rows);
    }
  }

  const data::InstructionCounts& counts() const { return counts_; }
  int64_t longest() const { return longest_; }
  const data::Sample& sample() const {
    if (shown_) return *shown_;
    throw DataError("data",
                    fmt::format("expected a sample in [0, {}), got {}",
                                counts_.samples + counts_.too_long, options_.sample),
                    counts_.first_bad_rows.empty() ? "" : counts_.first_bad_rows[0]);
  }

 private:
  void look(const fs::path& file, const data::KnownRows& rows, int64_t most) {
    const data::ExampleRules rules{rows.format, rows.task, rows.columns, rows.legacy,
                                   encoder_.options().additional};
    data::for_first_rows(
        file, static_cast<size_t>(most),
        [&](const OrderedJson& row, const std::string&) {
          std::vector<data::Sample> samples;
          for (const data::Example& example : data::read_examples(row, rules))
            samples.push_back(encoder_.encode(example));
          for (const data::Sample& sample : samples) take(sample);
          counts_.add({.rows = 1});
        },
        [this](const std::string& problem) {
          counts_.add({.rows = 1, .bad_rows = 1, .first_bad_rows = {problem}});
        });
  }

  void take(const data::Sample& sample) {
    throw_if_stopped("data");
    if (options_.sample == counts_.samples + counts_.too_long) shown_ = sample;
    longest_ = std::max(longest_, sample.longest());
    counts_.add({.too_long = sample.too_long ? 1 : 0,
                 .cut = sample.cut ? 1 : 0,
                 .samples = sample.too_long ? 0 : 1,
                 .tokens = sample.tokens(encoder_.fields()),
                 .trained = sample.trained(encoder_.fields())});
  }

  const InspectSamples& options_;
  const data::SampleEncoder& encoder_;
  data::InstructionCounts counts_;
  std::optional<data::Sample> shown_;
  int64_t longest_ = 0;
};

std::string text_of(const data::InstructionCounts& counts, int64_t longest) {
  std::string text =
      fmt::format("{} rows looked at: {} samples, {} bad rows, {} too long, {} cut\n", counts.rows,
                  counts.samples, counts.bad_rows, counts.too_long, counts.cut);
  for (const std::string& problem : counts.first_bad_rows) text += fmt::format("  {}\n", problem);
  return text + fmt::format("{} tokens, {} of them learnt ({:.1f} %), the longest sample has {}\n",
                            counts.tokens, counts.trained,
                            100.0 * static_cast<double>(counts.trained) /
                                static_cast<double>(std::max<int64_t>(counts.tokens, 1)),
                            longest);
}

}  // namespace

void inspect_rows(const InspectSamples& options, const InstructionFlags& flags) {
  if (options.tokenizer.empty())
    throw ConfigError("data", "expected --tokenizer with instruction data, got none");
  const auto sets = flags.sets(options.paths);
  const data::KnownRows& rows = sets[0];
  const auto tokenizer = text::Tokenizer::load(options.tokenizer);
  const auto encoder = flags.encoder(tokenizer, options.tokenizer, rows);
  const Look look(options, sets, encoder);
  const data::Sample& sample = look.sample();
  const auto sequences = data::sequences_of(encoder.fields(), sample.fields);
  if (options.json) {
    OrderedJson json = {{"format", data::name_of(rows.format)},
                        {"task", data::name_of(rows.task)},
                        {"longest", look.longest()}};
    json.update(look.counts().to_json());
    json["sample"] = options.sample;
    json["sample_is_cut"] = sample.cut;
    json["sample_is_too_long"] = sample.too_long;
    json["sequences"] = to_json(sequences, tokenizer);
    return print(json);
  }
  std::cout << text_of(look.counts(), look.longest())
            << fmt::format("\nsample {}{}{}:\n", options.sample, sample.cut ? ", cut" : "",
                           sample.too_long ? ", too long" : "");
  show(options, sequences, tokenizer);
}

void inspect_prepared(const InspectSamples& options) {
  const fs::path prefix = options.paths[0];
  const auto dataset = data::InstructionDataset::open(prefix, {.shuffle = false});
  const auto tokenizer =
      options.tokenizer.empty() ? nullptr : text::Tokenizer::load(options.tokenizer);
  std::vector<std::vector<int32_t>> values;
  for (const std::string& field : dataset.fields())
    values.push_back(dataset.field(field, dataset.sample(options.sample)));
  const auto sequences = data::sequences_of(dataset.fields(), values);
  const auto manifest = data::InstructionManifest::of_prefix(prefix);
  OrderedJson json = {{"fields", dataset.fields()}};
  for (const std::string& field : dataset.fields()) {
    const auto summary = data::summarise(dataset.corpus(field));
    json["corpora"][field] = data::to_json(summary);
    const bool ids = field.ends_with("input_ids");
    if (ids && !options.json) std::cout << field << "\n" << data::to_text(summary);
  }
  if (manifest) json.update(manifest->counts.to_json());
  if (options.json) {
    json["sample"] = options.sample;
    json["sequences"] = to_json(sequences, tokenizer);
    return print(json);
  }
  if (manifest) {
    const auto& counts = manifest->counts;
    std::cout << fmt::format(
        "{} samples of {} rows ({} bad, {} too long), {} cut; {} tokens, {} "
        "of them learnt\n",
        counts.samples, counts.rows, counts.bad_rows, counts.too_long, counts.cut, counts.tokens,
        counts.trained);
  }
  std::cout << fmt::format("\n{} {} of {}:\n", dataset.packed_length() ? "sequence" : "sample",
                           options.sample, dataset.stored());
  show(options, sequences, tokenizer);
}

}  // namespace qianli::app
