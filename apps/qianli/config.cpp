#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "apps/qianli/command.h"
#include "qianli/config/config.h"

namespace qianli::app {
namespace {

void add_explain(CLI::App& config) {
  struct Options {
    std::string key;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = config.add_subcommand("explain", "Help on a key or section.");
  command->add_option("KEY", options->key, "optim.lr, optim, …; without it: the sections");
  command->add_flag("--json", options->json, "Print a JSON array");
  command->callback([options] {
    std::cout << (options->json ? config::explain_json(options->key) + "\n"
                                : config::explain(options->key));
  });
}

void add_show(CLI::App& config) {
  struct Options {
    std::string file;
    std::vector<std::string> overrides;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command =
      config.add_subcommand("show", "Check a configuration and print its resolved values.");
  command->add_option("CONFIG", options->file, "YAML file")->required();
  command->add_option("OVERRIDES", options->overrides, "key=value, as in optim.lr=3e-4");
  command->add_flag("--json", options->json, "Print JSON instead of YAML");
  command->callback([options] {
    const auto resolved = config::load(options->file, options->overrides);
    std::cout << (options->json ? config::to_json(resolved) + "\n" : config::to_yaml(resolved));
  });
}

}  // namespace

void add_config(CLI::App& app) {
  CLI::App* command = app.add_subcommand("config", "Explain, check and show configurations.");
  command->require_subcommand(1);
  add_explain(*command);
  add_show(*command);
  command->add_subcommand("schema", "Print the JSON Schema, for editors.")->callback([] {
    std::cout << config::json_schema();
  });
  command->add_subcommand("docs", "Print docs/config.md.")->callback([] {
    std::cout << config::markdown();
  });
}

}  // namespace qianli::app
