#include <CLI/CLI.hpp>

#include "apps/qianli/command.h"

namespace qianli::app {

void add_plan(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("plan", "Look at a training run before it costs anything.");
  command->require_subcommand(1);
  add_plan_schedule(*command);
}

}  // namespace qianli::app
