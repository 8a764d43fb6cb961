#include <CLI/CLI.hpp>
#include <memory>

#include "apps/qianli/command.h"
#include "apps/qianli/engine.h"
#include "apps/qianli/model_options.h"

namespace qianli::app {

void add_score(CLI::App& app) {
  auto arguments = std::make_shared<ScoreArguments>();
  CLI::App* command =
      app.add_subcommand("score", "Log-probabilities of given tokens, and their perplexity.");
  command->footer(
      "Standard error gets a summary. Standard output gets JSON, with --json or when it is no\n"
      "terminal: log_probs (per sequence one number for every token but the first), tokens,\n"
      "mean_nll, perplexity.");
  command->add_option("MODEL", arguments->model, "Hugging Face folder or checkpoint")->required();
  command->add_option("--adapter", arguments->adapter,
                      "An adapter of low rank beside the weights: a folder as PEFT writes it, or a "
                      "run or checkpoint that trained one");
  command->add_option("--tokens", arguments->tokens_file, "JSON file: [[ids…], …]")->required();
  command->add_option("--logits", arguments->logits_file,
                      "Also write float32 logits to this safetensors file: `logits` [sequences, "
                      "length, vocabulary], or `logits.N` where lengths differ");
  command->add_option("--precision", arguments->precision)
      ->check(CLI::IsMember({"auto", "fp32", "bf16", "fp64"}))
      ->capture_default_str();
  command->add_option("--device", arguments->device)
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  add_quantize_option(*command, arguments->quantize);
  command->add_flag("--json", arguments->json, "Print JSON on a terminal, too");
  command->callback([arguments] { engine().score(*arguments); });
}

}  // namespace qianli::app
