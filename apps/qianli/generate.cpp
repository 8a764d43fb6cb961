#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <sstream>
#include <string>

#include "apps/qianli/command.h"
#include "apps/qianli/engine.h"
#include "apps/qianli/model_options.h"
#include "qianli/base/error.h"
#include "qianli/base/file.h"

namespace qianli::app {
namespace {

constexpr uint64_t kMaxPromptBytes = uint64_t{1} << 26;

struct PromptFiles {
  std::vector<std::string> whole, lines;
};

CLI::Option* add_texts(CLI::App& command, const std::string& name, std::vector<std::string>& texts,
                       const std::string& help) {
  // Without allow_extra_args(false) the parser would cut "[INST] a, b [/INST]" into a list.
  return command.add_option(name, texts, help)
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

// A line of a .jsonl file: a text, or an object with one at "prompt".
std::string prompt_of(const std::string& line, const std::string& place) {
  const Json json = parse_json(line, place, FileRole::kData);
  const Json& text = json.is_object() && json.contains("prompt") ? json["prompt"] : json;
  if (text.is_string()) return text.get<std::string>();
  throw DataError("generate", fmt::format("{}: expected a text, or one at \"prompt\"", place));
}

void read_lines(const std::string& file, std::vector<std::string>& prompts) {
  std::istringstream text(read_file(file, FileRole::kData, kMaxPromptBytes));
  int64_t number = 0;
  for (std::string line; std::getline(text, line);) {
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) continue;
    const bool json = file.ends_with(".jsonl");
    prompts.push_back(json ? prompt_of(line, fmt::format("{} line {}", file, number)) : line);
  }
}

void add_prompts(CLI::App& command, GenerateArguments& arguments, PromptFiles& files) {
  auto* prompts = command.add_option_group("prompt", "What to continue");
  add_texts(*prompts, "-p,--prompt", arguments.prompts, "A text; may be given several times");
  add_texts(*prompts, "-f,--prompt-file", files.whole, "A file that holds one prompt");
  add_texts(*prompts, "--prompt-lines", files.lines,
            "A file with a prompt in each line; .jsonl: a text, or {\"prompt\": text}");
  prompts->require_option(1, 0);
}

void add_ways(CLI::App& command, GenerateArguments& arguments) {
  auto* speculate = add_speculate_option(command, arguments.model);
  add_texts(command, "--stop", arguments.stop,
            "Ends the text, which it is no part of; may be given several times");
  auto* choices = add_texts(command, "--choices", arguments.choices,
                            "The answer is one of these; given once for each");
  auto* beams = command
                    .add_option("--num-beams", arguments.num_beams,
                                "Beam search: the most probable text as a whole, of so many")
                    ->check(CLI::Range(1, 256))
                    ->capture_default_str()
                    ->excludes(choices)
                    ->excludes(speculate);
  command
      .add_option("--length-penalty", arguments.length_penalty,
                  "Of beam search: above 0 prefers long texts, below short ones")
      ->capture_default_str()
      ->needs(beams);
  command
      .add_option("--log-probs", arguments.log_probs,
                  "With --json: of each token and of so many of the best")
      ->check(CLI::Range(0, 1000))
      ->excludes(beams);
  command.add_option("--batch", arguments.batch, "Prompts at a time")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
}

}  // namespace

void add_generate(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  auto files = std::make_shared<PromptFiles>();
  CLI::App* command = app.add_subcommand("generate", "Continue prompts, token by token.");
  command->footer(
      "The text goes to standard output as it appears, speeds to standard error; of several\n"
      "prompts, each text when those before it are complete.\n"
      "Ctrl-C ends the texts where they are; the exit code is then 130.");
  add_model_options(*command, arguments->model);
  add_adapter_option(*command, arguments->model.adapters, /*named=*/false);
  add_prompts(*command, *arguments, *files);
  command->add_option("-n,--max-new-tokens", arguments->max_new_tokens, "At most so many tokens")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  add_sampling_options(*command, arguments->sampling);
  add_ways(*command, *arguments);
  command->add_flag("--ignore-eos", arguments->ignore_eos, "Go on behind the end of the text");
  command->add_flag("!--no-special-tokens", arguments->special_tokens,
                    "Add no special tokens to the prompt (a leading <s> or the like)");
  command->add_flag(
      "--json", arguments->json,
      "Print text, tokens and speeds as JSON: one object, or a list for several prompts");
  command->callback([arguments, files] {
    for (const std::string& file : files->whole)
      arguments->prompts.push_back(read_file(file, FileRole::kData, kMaxPromptBytes));
    for (const std::string& file : files->lines) read_lines(file, arguments->prompts);
    if (arguments->prompts.empty()) throw DataError("generate", "expected prompts, got none");
    engine().generate(*arguments);
  });
}

}  // namespace qianli::app
