#include "qianli/model/presets.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "apps/qianli/command.h"
#include "qianli/base/json.h"
#include "qianli/base/progress.h"
#include "qianli/model/hugging_face.h"

namespace qianli::app {
namespace {

void print_table() {
  fmt::print("{:<22} {:<8} {:>6} {:>6} {:>6} {:>9} {:>8} {:>10}\n", "name", "family", "layers",
             "hidden", "heads", "kv heads", "vocab", "parameters");
  for (const model::Preset& preset : model::presets()) {
    fmt::print("{:<22} {:<8} {:>6} {:>6} {:>6} {:>9} {:>8} {:>10}\n", preset.name, preset.family,
               preset.num_layers, preset.hidden_size, preset.num_attention_heads,
               preset.num_query_groups, preset.vocab_size,
               human_count(static_cast<double>(preset.parameters)));
  }
}

void print_json() {
  auto list = OrderedJson::array();
  for (const model::Preset& preset : model::presets()) {
    list.push_back({{"name", preset.name},
                    {"family", preset.family},
                    {"num_layers", preset.num_layers},
                    {"hidden_size", preset.hidden_size},
                    {"num_attention_heads", preset.num_attention_heads},
                    {"num_query_groups", preset.num_query_groups},
                    {"vocab_size", preset.vocab_size},
                    {"parameters", preset.parameters}});
  }
  fmt::print("{}\n", list.dump(2));
}

}  // namespace

void add_presets(CLI::App& app) {
  struct Options {
    std::string name;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("presets", "List the named models, or print one as config.json.");
  command->add_option("NAME", options->name, "Print this model as a Hugging Face config.json");
  command->add_flag("--json", options->json, "Print the list as JSON");
  command->callback([options] {
    if (!options->name.empty()) {
      fmt::print("{}\n", model::to_hugging_face(model::preset(options->name)).dump(2));
    } else if (options->json) {
      print_json();
    } else {
      print_table();
    }
  });
}

}  // namespace qianli::app
