#include <CLI/CLI.hpp>

#include "apps/qianli/command.h"
#include "apps/qianli/model_commands.h"

namespace qianli::app {

void add_commands(CLI::App& app, const std::vector<std::string>& job) {
  add_pretrain(app);
  add_sft(app);
  add_generate(app);
  add_chat(app);
  add_serve(app);
  add_score(app);
  add_convert(app);
  add_compare(app);
  add_config(app);
  add_presets(app);
  add_data(app);
  add_tokenizer(app);
  add_plan(app);
  add_launch(app, job);
  add_backends(app);
  add_doctor(app);
}

}  // namespace qianli::app
