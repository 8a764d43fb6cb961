// qianli data prepare | inspect
#include "apps/qianli/command.h"

#include <CLI/CLI.hpp>
#include <memory>

namespace qianli::app {

void add_data(CLI::App& app) {
  CLI::App* command = app.add_subcommand("data", "Turn text into training data, and look into it.");
  command->require_subcommand(1);
  add_data_prepare(*command);
  add_data_inspect(*command);
}

}  // namespace qianli::app
