#include <CLI/CLI.hpp>

#include "apps/qianli/command.h"
#include "apps/qianli/engine.h"

namespace qianli::app {

void add_doctor(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand(
      "doctor", "Show hardware, libraries and measured speeds, and what is missing");
  command->add_flag("--json", *json, "Print JSON");
  command->callback([json] { engine().doctor(*json); });
}

void add_backends(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand(
      "backends", "Show which implementation serves each op on each device and dtype");
  command->add_flag("--json", *json, "Print JSON");
  command->callback([json] { engine().backends(*json); });
}

}  // namespace qianli::app
