#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <optional>

#include "apps/qianli/command.h"
#include "qianli/base/json.h"
#include "qianli/base/progress.h"
#include "qianli/data/prepare.h"

namespace qianli::app {
namespace {

struct Options {
  std::vector<std::string> inputs;
  std::string tokenizer, output;
  std::string key = "text";
  std::string separator;
  int threads = 0;
  bool no_append_eod = false, overwrite = false, json = false;
};

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

void run(const Options& options) {
  const std::string prefix = fmt::format("{}_{}_document", options.output, options.key);
  const auto encoder = data::document_encoder(text::Tokenizer::load(options.tokenizer));
  std::optional<Progress> progress;
  data::PrepareOptions work{.rules = {.text_key = options.key},
                            .append_eod = !options.no_append_eod,
                            .threads = options.threads,
                            .overwrite = options.overwrite};
  if (!options.separator.empty()) work.rules.separator = options.separator;
  work.inputs.assign(options.inputs.begin(), options.inputs.end());
  work.report = [&](uint64_t done, uint64_t total) {
    if (!progress) progress.emplace("preparing", total, "bytes");
    progress->update(done);
  };
  const auto manifest = data::prepare_corpus(prefix, work, encoder);
  if (progress) progress->finish();
  print(options, prefix, manifest);
}

}  // namespace

void add_data_prepare(CLI::App& data) {
  auto options = std::make_shared<Options>();
  CLI::App* command = data.add_subcommand(
      "prepare", "Tokenise text into PREFIX_KEY_document.{bin,idx}, readable by Megatron too.");
  command->footer(
      "A line of a .jsonl (or .ndjson, .json) file is a document; any other file is one document,\n"
      "unless --separator is given. Files ending in .gz are unpacked on the way. Interrupted work "
      "is\n"
      "kept in a .parts folder: the same command goes on.");
  command->add_option("INPUT", options->inputs, "Text or JSON files, in this order")->required();
  command
      ->add_option("--tokenizer", options->tokenizer, "Folder with tokenizer files, or one of them")
      ->required();
  command->add_option("--output", options->output, "PREFIX of the files written")->required();
  command->add_option("--key", options->key, "Field of a JSON record that holds the text [text]");
  command->add_option("--separator", options->separator,
                      "Text between two documents of a plain text file");
  command->add_option("--threads", options->threads, "Threads [all cores]")
      ->check(CLI::Range(1, 4096));
  command->add_flag("--no-append-eod", options->no_append_eod,
                    "Do not end documents with the end-of-document token");
  command->add_flag("--overwrite", options->overwrite, "Replace a corpus made from something else");
  command->add_flag("--json", options->json, "Print a JSON object");
  command->callback([options] { run(*options); });
}

}  // namespace qianli::app
