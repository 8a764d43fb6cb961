#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "apps/qianli/command.h"
#include "apps/qianli/engine.h"
#include "qianli/base/error.h"
#include "qianli/base/file.h"

namespace qianli::app {
namespace {

constexpr uint64_t kMaxPromptBytes = uint64_t{1} << 26;

void add_sampling(CLI::App& command, GenerateArguments& arguments) {
  auto* greedy = command.add_flag("--greedy", arguments.greedy,
                                  "Always the most probable token (the default, unless the model's "
                                  "generation_config.json samples)");
  command.add_option("--temperature", arguments.temperature, "Sample; 0 is greedy")
      ->excludes(greedy);
  command.add_option("--top-k", arguments.top_k, "Sample among the K most probable tokens")
      ->excludes(greedy);
  command
      .add_option("--top-p", arguments.top_p,
                  "Sample among the fewest tokens with this probability together")
      ->excludes(greedy);
  command.add_option("--repetition-penalty", arguments.repetition_penalty,
                     "Above 1: tokens already seen become less probable");
  command.add_option("--seed", arguments.seed, "Of the sampling: the same seed, the same text")
      ->check(CLI::NonNegativeNumber)  // else -1 becomes the largest seed
      ->excludes(greedy);
}

}  // namespace

void add_generate(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  auto prompt_files = std::make_shared<std::vector<std::string>>();
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt, token by token.");
  command->footer(
      "The text goes to standard output as it appears, speeds to standard error.\n"
      "Ctrl-C ends the text where it is; the exit code is then 130.");
  command->add_option("MODEL", arguments->model, "Hugging Face folder or checkpoint")->required();
  auto* prompts = command->add_option_group("prompt", "What to continue");
  // Without allow_extra_args(false) the parser would cut "[INST] a, b [/INST]" into a list.
  prompts->add_option("-p,--prompt", arguments->prompts, "A text; may be given several times")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  prompts->add_option("-f,--prompt-file", *prompt_files, "A file that holds one prompt")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  prompts->require_option(1, 0);
  command->add_option("-n,--max-new-tokens", arguments->max_new_tokens, "At most so many tokens")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  add_sampling(*command, *arguments);
  command->add_flag("--ignore-eos", arguments->ignore_eos, "Go on behind the end of the text");
  command->add_flag("!--no-special-tokens", arguments->special_tokens,
                    "Add no special tokens to the prompt (a leading <s> or the like)");
  command
      ->add_option("--precision", arguments->precision,
                   "auto: fp32, or bf16 where the weights and the device are")
      ->check(CLI::IsMember({"auto", "fp32", "bf16", "fp64"}))
      ->capture_default_str();
  command->add_option("--device", arguments->device)
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_flag(
      "--json", arguments->json,
      "Print text, tokens and speeds as JSON: one object, or a list for several prompts");
  command->callback([arguments, prompt_files] {
    for (const std::string& file : *prompt_files) {
      arguments->prompts.push_back(read_file(file, FileRole::kData, kMaxPromptBytes));
    }
    engine().generate(*arguments);
  });
}

}  // namespace qianli::app
