#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <optional>

#include "apps/qianli/command.h"
#include "apps/qianli/instruction_options.h"
#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/base/progress.h"
#include "qianli/data/merge.h"
#include "qianli/data/prepare.h"

namespace qianli::app {
namespace {

struct Options {
  std::vector<std::string> inputs;
  std::string tokenizer, output;
  std::vector<std::string> keys = {"text"};
  std::string separator;
  std::string bad_rows = "skip";
  std::vector<std::string> merge_keys;
  int threads = 0;
  int64_t num_subs = 1;
  bool no_append_eod = false, overwrite = false, json = false;
  InstructionFlags instruction;
};

// A bar over the bytes of input, from the first report on.
class Bar {
 public:
  data::ReportBytes report() {
    return [this](uint64_t done, uint64_t total) {
      if (!progress_) progress_.emplace("preparing", total, "bytes");
      progress_->update(done);
    };
  }
  void finish() {
    if (progress_) progress_->finish();
  }

 private:
  std::optional<Progress> progress_;
};

// MindSpeed-LLM's handlers of pretraining data.
constexpr std::pair<const char*, data::DocumentText> kTextHandlers[] = {
    {"GeneralPretrainHandler", data::DocumentText::kKey},
    {"AlpacaPretrainHandler", data::DocumentText::kAlpaca},
    {"SharegptPretrainHandler", data::DocumentText::kSharegpt},
    {"StackOverflowPythonPretrainHandler", data::DocumentText::kStackOverflow}};

std::optional<data::DocumentText> text_handler(const std::string& name) {
  for (const auto& [known, text] : kTextHandlers) {
    if (name == known) return text;
  }
  return std::nullopt;
}

void print(const Options& options, const std::string& prefix,
           const data::CorpusManifest& manifest) {
  if (options.json) {
    std::cout << OrderedJson({{"prefix", prefix},
                              {"documents", manifest.documents},
                              {"tokens", manifest.tokens},
                              {"tokenizer", manifest.tokenizer},
                              {"vocab_size", manifest.vocab_size}})
                     .dump()
              << "\n";
    return;
  }
  std::cout << fmt::format("{} documents, {} tokens in {}.{{bin,idx}}\n", manifest.documents,
                           manifest.tokens, prefix)
            << fmt::format("Train on it with data.path={}\n", prefix);
}

void prepare_documents(const Options& options, data::PrepareOptions work) {
  const auto encoder = data::document_encoder(text::Tokenizer::load(options.tokenizer));
  work.threads = options.threads;
  work.overwrite = options.overwrite;
  if (!options.separator.empty()) work.rules.separator = options.separator;
  for (const std::string& key : options.keys) {
    const std::string prefix = fmt::format("{}_{}_document", options.output, key);
    Bar bar;
    work.rules.text_key = key;
    work.report = bar.report();
    const auto manifest = data::prepare_corpus(prefix, work, encoder);
    bar.finish();
    print(options, prefix, manifest);
  }
}

void prepare_documents(const Options& options) {
  options.instruction.check_unasked();
  data::PrepareOptions work{.append_eod = !options.no_append_eod};
  work.inputs.assign(options.inputs.begin(), options.inputs.end());
  prepare_documents(options, work);
}

// As MindSpeed-LLM's handlers read text: rows, also of folders, of .txt files one a line; documents
// end with the end-of-document token where that is asked for.
void prepare_documents(const Options& options, data::DocumentText text) {
  InstructionFlags others = options.instruction;
  others.config.handler_name.clear();
  others.append_eod = false;
  others.check_unasked();
  if (options.no_append_eod)
    throw ConfigError("data", "expected --append-eod or nothing with --handler-name");
  if (text != data::DocumentText::kKey && options.keys != std::vector<std::string>{"text"})
    throw ConfigError("data", "expected the keys of text with GeneralPretrainHandler only");
  const auto input =
      data::input_files(std::vector<fs::path>(options.inputs.begin(), options.inputs.end()));
  for (const std::string& notice : input.notices) log::info("data", "{}", notice);
  for (const fs::path& file : input.files) {
    if (data::row_kind_of(file, "") != data::RowKind::kCsv) continue;
    throw DataError("data", fmt::format("expected text in .jsonl, .json, .parquet, .arrow or .txt "
                                        "files, got {}",
                                        file.string()));
  }
  data::PrepareOptions work{.inputs = input.files,
                            .rules = {.text = text, .separator = "\n"},
                            .append_eod = options.instruction.append_eod};
  prepare_documents(options, work);
}

void print(const Options& options, const data::InstructionManifest& manifest,
           const data::KnownRows& rows) {
  const data::InstructionCounts& counts = manifest.counts;
  for (const std::string& warning : counts.warnings) log::warn("data", "{}", warning);
  if (counts.bad_rows > 0) {
    log::warn("data", "{} of {} rows could not be used and are left out; the first of them:",
              counts.bad_rows, counts.rows);
    for (const std::string& problem : counts.first_bad_rows) log::warn("data", "{}", problem);
  }
  if (counts.too_long > 0) {
    log::warn(
        "data", "{} samples reach the sequence length and are left out{}", counts.too_long,
        rows.task == data::InstructionTask::kSft || rows.task == data::InstructionTask::kPreference
            ? "; --truncation two-sided cuts them instead"
            : "");
  }
  if (options.json) {
    OrderedJson json = {{"prefix", options.output},
                        {"format", name_of(rows.format)},
                        {"task", name_of(rows.task)},
                        {"fields", manifest.fields}};
    json.update(counts.to_json());
    std::cout << json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) << "\n";
    return;
  }
  const double share = 100.0 * static_cast<double>(counts.trained) /
                       static_cast<double>(std::max<int64_t>(counts.tokens, 1));
  std::cout << fmt::format("{} samples of {} rows, {} tokens, {} of them learnt ({:.1f} %)\n",
                           counts.samples, counts.rows, counts.tokens, counts.trained, share);
  if (counts.cut > 0) std::cout << fmt::format("{} samples were cut\n", counts.cut);
  if (manifest.sequence_length > 0) {
    std::cout << fmt::format("packed into {} sequences of {} tokens, {:.1f} % full\n",
                             counts.sequences, manifest.sequence_length,
                             100.0 * static_cast<double>(counts.tokens) /
                                 static_cast<double>(counts.sequences * manifest.sequence_length));
  }
  for (const std::string& field : manifest.fields) {
    std::cout << data::field_prefix(options.output, field).string() << ".{bin,idx}\n";
  }
  std::cout << fmt::format("Look at them with `qianli data inspect {} --tokenizer {}`\n",
                           options.output, options.tokenizer);
}

void prepare_samples(const Options& options) {
  const InstructionFlags& flags = options.instruction;
  if (options.no_append_eod || !options.separator.empty() ||
      options.keys != std::vector<std::string>{"text"}) {
    throw ConfigError("data", "expected --key, --separator and --no-append-eod with text only",
                      "--map-keys names the columns of instruction data");
  }
  const auto packing = flags.packing();
  auto sets = flags.sets(options.inputs);
  const auto mixing = flags.mixing(sets.size());
  const auto rows = sets[0];
  sets.erase(sets.begin());
  const auto encoder =
      flags.encoder(text::Tokenizer::load(options.tokenizer), options.tokenizer, rows);
  Bar bar;
  const auto manifest = data::prepare_instructions(options.output,
                                                   {.rows = rows,
                                                    .more = sets,
                                                    .mixing = mixing,
                                                    .packing = packing,
                                                    .num_subs = options.num_subs,
                                                    .fail_on_bad_rows = options.bad_rows == "fail",
                                                    .threads = options.threads,
                                                    .overwrite = options.overwrite,
                                                    .report = bar.report()},
                                                   encoder);
  bar.finish();
  print(options, manifest, rows);
}

void merge(const Options& options) {
  if (options.inputs.size() != 1)
    throw ConfigError("data", "expected one folder with --merge-group-keys, got several inputs");
  OrderedJson json = OrderedJson::array();
  for (const auto& group :
       data::merge_groups(options.inputs[0], options.merge_keys, options.output)) {
    const std::string result = options.output + "_" + group.key;
    json.push_back(
        {{"prefix", result}, {"parts", group.parts.size()}, {"sequences", group.sequences}});
    if (!options.json) {
      std::cout << fmt::format("{} sequences of {} parts in {}.{{bin,idx}}\n", group.sequences,
                               group.parts.size(), result);
    }
  }
  if (options.json) std::cout << json.dump() << "\n";
}

void run(const Options& options) {
  if (!options.merge_keys.empty()) return merge(options);
  if (options.tokenizer.empty()) throw ConfigError("data", "expected --tokenizer, got none");
  const auto text = text_handler(options.instruction.config.handler_name);
  if (text) return prepare_documents(options, *text);
  options.instruction.asked() ? prepare_samples(options) : prepare_documents(options);
}

}  // namespace

void add_data_prepare(CLI::App& data) {
  auto options = std::make_shared<Options>();
  CLI::App* command = data.add_subcommand(
      "prepare",
      "Tokenise text or instruction data into .bin/.idx files, readable by Megatron too.");
  command->footer(
      "Text becomes PREFIX_KEY_document.{bin,idx}. With --template (or another option of "
      "instruction\n"
      "data) the input are rows of JSON, CSV or text, or a folder of them, which become\n"
      "PREFIX_packed_FIELD_document.{bin,idx} with labels.\n\n"
      "A line of a .jsonl (or .ndjson, .json) file is a document; any other file is one document,\n"
      "unless --separator is given. Files ending in .gz are unpacked on the way. Interrupted work "
      "is\n"
      "kept in a .parts folder: the same command goes on.");
  command
      ->add_option("INPUT", options->inputs,
                   "Files, in this order; of rows also folders, or names (--dataset-dir)")
      ->required();
  command->add_option("--tokenizer", options->tokenizer,
                      "Folder with tokenizer files, or one of them");
  command->add_option("--output,--output-prefix", options->output, "PREFIX of the files written")
      ->required();
  command->add_option(
      "--key,--json-keys", options->keys,
      "Fields of a JSON record that hold text, each for a corpus of its own [text]");
  command->add_option("--separator", options->separator,
                      "Text between two documents of a plain text file");
  command->add_option("--threads,--workers", options->threads, "Threads [all cores]")
      ->check(CLI::Range(1, 4096));
  command->add_flag("--no-append-eod", options->no_append_eod,
                    "Do not end documents with the end-of-document token");
  command->add_flag("--overwrite", options->overwrite, "Replace a corpus made from something else");
  command->add_flag("--json", options->json, "Print a JSON object");
  command
      ->add_option("--bad-rows", options->bad_rows,
                   "Rows that cannot be used: skip them and say so, or fail")
      ->check(CLI::IsMember({"skip", "fail"}))
      ->capture_default_str()
      ->group("Instruction data");
  options->instruction.add_to(*command);
  options->instruction.add_mixing_to(*command);
  command
      ->add_option("--n-subs", options->num_subs,
                   "With --pack: as many groups of rows are packed, each by itself. Without, the "
                   "files are the same for any number")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->group("Instruction data: samples");
  command
      ->add_option("--merge-group-keys", options->merge_keys,
                   "Put all .bin/.idx pairs of a folder with such a key in their names one behind "
                   "the other, as PREFIX_KEY")
      ->group("Merging");
  command->callback([options] { run(*options); });
}

}  // namespace qianli::app
