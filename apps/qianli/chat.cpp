#include <CLI/CLI.hpp>
#include <memory>

#include "apps/qianli/model_commands.h"
#include "apps/qianli/model_options.h"
#include "apps/qianli/template_options.h"

namespace qianli::app {

void add_chat(CLI::App& app) {
  auto arguments = std::make_shared<ChatArguments>();
  auto variables = std::make_shared<std::vector<std::string>>();
  CLI::App* command = app.add_subcommand("chat", "Talk with a model.");
  command->footer(
      "A line is a message; a line that ends with \\ goes on in the next. q, quit and exit leave,\n"
      "clear and new begin again, /help shows the other commands. Ctrl-C ends an answer.\n" +
      list_of_templates());
  add_model_options(*command, arguments->model);
  add_adapter_option(*command, arguments->model.adapters, /*named=*/false);
  add_speculate_option(*command, arguments->model);
  add_sampling_options(*command, arguments->sampling);
  command
      ->add_option("-n,--max-new-tokens", arguments->max_new_tokens,
                   "Of an answer; 0: what the context has room for")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--system", arguments->system, "What the model is told before all else");
  command->add_option(
      "--template", arguments->template_name,
      "A named template (see below), or FILE.json:NAME, in the place of the model's own");
  command->add_option("--set", *variables,
                      "NAME=VALUE for the model's template, for example enable_thinking=false");
  command->add_option("--history-turns", arguments->history_turns,
                      "Questions and answers that the model is shown; 0: all that fit");
  command->add_option("--load", arguments->load,
                      "A saved conversation to go on with: JSON, a list of messages");
  command->add_flag("--show-thinking", arguments->show_thinking,
                    "Show what stands between <think> and </think>");
  command->callback([arguments, variables] {
    arguments->variables = read_variables(*variables);
    engine().chat(*arguments);
  });
}

}  // namespace qianli::app
