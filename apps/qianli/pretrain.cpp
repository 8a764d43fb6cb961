#include <CLI/CLI.hpp>

#include "apps/qianli/command.h"
#include "apps/qianli/engine.h"
#include "qianli/config/config.h"

namespace qianli::app {

void add_pretrain(CLI::App& app) {
  struct Arguments {
    std::string config;
    std::vector<std::string> overrides;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("pretrain", "Train a language model on text or prepared tokens");
  command
      ->add_option("CONFIG", arguments->config,
                   "Configuration (YAML); `qianli config explain` lists the keys")
      ->required();
  command->add_option("OVERRIDES", arguments->overrides,
                      "Settings that replace the file's, as section.key=value");
  command->footer(
      "Running the same command again goes on from the last checkpoint (checkpoint.resume).\n"
      "Ctrl-C saves and exits with 75.");
  command->callback([arguments] {
    const config::Config config = config::load(arguments->config, arguments->overrides);
    config::require_for_training(config);
    engine().pretrain(config);
  });
}

}  // namespace qianli::app
