#include "apps/qianli/usage.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

namespace qianli::app {
namespace {

// Option groups are commands without a name.
bool is_command(const CLI::App* app) { return !app->get_name().empty(); }
bool is_group(const CLI::App* app) { return app->get_name().empty(); }

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands(is_command))
    names.push_back(command->get_name());
  return names;
}

// "--name" of all options, those of groups too.
void collect_options(const CLI::App& app, std::vector<std::string>& names) {
  for (const CLI::Option* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  for (const CLI::App* group : app.get_subcommands(is_group)) collect_options(*group, names);
}

// Whether there are arguments without a name.
bool takes_words(const CLI::App& app) {
  return std::ranges::any_of(app.get_options(),
                             [](const CLI::Option* option) { return option->get_positional(); });
}

// Walks the words of a command line down to the command they name.
class Diagnosis {
 public:
  Diagnosis(const CLI::App& app, const std::vector<std::string>& words)
      : command_(&app), name_(app.get_name()) {
    for (size_t i = 0; i < words.size() && problem_.empty() && words[i] != "--"; ++i) {
      if (words[i].size() > 1 && words[i][0] == '-') {
        i += values_after(words[i]);
      } else {
        enter(words[i]);
      }
    }
  }

  // Empty where every command and option is known.
  const std::string& problem() const { return problem_; }
  std::string hint() const { return fmt::format("see `{} --help`", name_); }

 private:
  void enter(const std::string& word) {
    const auto commands = command_names(*command_);
    for (const CLI::App* command : command_->get_subcommands(is_command)) {
      if (command->get_name() != word) continue;
      command_ = command;
      name_ += " " + word;
      return;
    }
    if (takes_words(*command_)) return;
    problem_ = fmt::format("expected a command of `{}`, got '{}'{}", name_, word,
                           suggestion(word, commands));
  }

  // How many of the following words belong to an option.
  size_t values_after(const std::string& word) {
    const bool is_long = word[1] == '-';
    const std::string name = is_long ? word.substr(0, word.find('=')) : word.substr(0, 2);
    const CLI::Option* option = command_->get_option_no_throw(name);
    if (option == nullptr) {
      std::vector<std::string> known;
      collect_options(*command_, known);
      problem_ = fmt::format("expected an option of `{}`, got '{}'{}", name_, is_long ? name : word,
                             suggestion(name, known));
      return 0;
    }
    const bool holds_value = is_long ? word.size() > name.size() : word.size() > 2;
    return holds_value ? 0 : static_cast<size_t>(option->get_items_expected_min());
  }

  const CLI::App* command_;
  std::string name_;
  std::string problem_;
};

// One sentence of the parser, without its end.
std::string parser_words(std::string_view text) {
  text = trim(text.substr(0, text.find('\n')));
  while (text.ends_with('.')) text.remove_suffix(1);
  return std::string(text);
}

}  // namespace

void throw_usage_error(const CLI::App& app, int argc, char** argv, const CLI::ParseError& error) {
  const Diagnosis diagnosis(app, {argv + 1, argv + argc});
  throw ConfigError("usage",
                    diagnosis.problem().empty() ? parser_words(error.what()) : diagnosis.problem(),
                    diagnosis.hint());
}

}  // namespace qianli::app
