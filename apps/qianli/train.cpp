// The commands that train.
#include <CLI/CLI.hpp>

#include "apps/qianli/command.h"
#include "apps/qianli/engine.h"
#include "qianli/config/config.h"

namespace qianli::app {
namespace {

CLI::App* add_training(CLI::App& app, const char* name, const char* description,
                       void (*EngineApi::*train)(const config::Config&)) {
  struct Arguments {
    std::string config;
    std::vector<std::string> overrides;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(name, description);
  command
      ->add_option("CONFIG", arguments->config,
                   "Configuration (YAML); `qianli config explain` lists the keys")
      ->required();
  command->add_option("OVERRIDES", arguments->overrides,
                      "Settings that replace the file's, as section.key=value");
  command->callback([arguments, train] {
    const config::Config config = config::load(arguments->config, arguments->overrides);
    config::require_for_training(config);
    (engine().*train)(config);
  });
  return command;
}

constexpr const char* kResuming =
    "Running the same command again goes on from the last checkpoint (checkpoint.resume).\n"
    "Ctrl-C saves and exits with 75.";

}  // namespace

void add_pretrain(CLI::App& app) {
  add_training(app, "pretrain", "Train a language model on text or prepared tokens",
               &EngineApi::pretrain)
      ->footer(kResuming);
}

void add_sft(CLI::App& app) {
  add_training(app, "sft", "Fine-tune a language model on conversations", &EngineApi::sft)
      ->footer(std::string("data.path are rows of conversations (JSON, CSV; Alpaca, ShareGPT, "
                           "OpenAI), or what\n`qianli data prepare --template NAME` made of them. "
                           "See docs/finetuning.md.\n\n") +
               kResuming);
}

}  // namespace qianli::app
