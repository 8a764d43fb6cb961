#include <CLI/CLI.hpp>

#include "apps/qianli/command.h"

namespace qianli::app {

void add_commands(CLI::App& app) {
  add_config(app);
  add_presets(app);
  add_tokenizer(app);
}

}  // namespace qianli::app
