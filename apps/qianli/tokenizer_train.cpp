// qianli tokenizer train: a byte-level BPE tokenizer from text files.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>

#include "apps/qianli/command.h"
#include "qianli/base/json.h"
#include "qianli/base/progress.h"
#include "qianli/text/train.h"

namespace qianli::app {
namespace {

struct Options {
  std::vector<std::string> inputs;
  std::string output, pattern = "llama3";
  text::TrainOptions train;
  bool json = false;
};

void train(Options options) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  options.train.pattern =
      options.pattern == "gpt2" ? text::TrainPattern::kGpt2 : text::TrainPattern::kLlama3;
  const std::vector<fs::path> files(options.inputs.begin(), options.inputs.end());
  const auto report = text::train_byte_level_bpe(options.train, files, options.output);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  if (options.json) {
    const Json result{{"vocab_size", report.vocab_size},
                      {"text_bytes", report.text_bytes},
                      {"distinct_words", report.distinct_words},
                      {"seconds", seconds}};
    fmt::print("{}\n", result.dump(2));
    return;
  }
  fmt::print("{} tokens from {} of text ({} distinct words) in {}, written to {}\n",
             report.vocab_size, human_bytes(static_cast<uint64_t>(report.text_bytes)),
             report.distinct_words, human_seconds(seconds), options.output);
}

}  // namespace

void add_tokenizer_train(CLI::App& tokenizer) {
  const auto options = std::make_shared<Options>();
  CLI::App* sub = tokenizer.add_subcommand("train", "A byte-level BPE tokenizer from text files");
  sub->add_option("input", options->inputs, "Text files, or *.jsonl with a \"text\" in every line")
      ->required();
  sub->add_option("--vocab-size", options->train.vocab_size,
                  "Tokens: special tokens, 256 bytes and merges together")
      ->required();
  sub->add_option("--output", options->output,
                  "Folder for tokenizer.json and tokenizer_config.json")
      ->required();
  sub->add_option(
         "--special", options->train.special_tokens,
         "Special tokens, in the order of their ids (repeat the flag, or several after it)")
      ->capture_default_str();
  sub->add_option("--pattern", options->pattern, "How text is cut into words: gpt2 or llama3")
      ->check(CLI::IsMember({"gpt2", "llama3"}))
      ->capture_default_str();
  sub->add_option("--min-frequency", options->train.min_frequency,
                  "Pairs seen less often do not become tokens")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--threads", options->train.threads, "Threads that count words (0: all cores)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_flag("--json", options->json, "Print JSON");
  sub->callback([options] { train(*options); });
}

}  // namespace qianli::app
