#include "qianli/model/presets.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "apps/qianli/command.h"
#include "qianli/base/json.h"
#include "qianli/base/progress.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/parameter_table.h"
#include "qianli/model/resolve.h"

namespace qianli::app {
namespace {

void print_table() {
  fmt::print("{:<24} {:<15} {:>6} {:>6} {:>6} {:>9} {:>8} {:>10}\n", "name", "family", "layers",
             "hidden", "heads", "kv heads", "vocab", "parameters");
  for (const model::Preset& preset : model::presets()) {
    const model::ModelSpec spec = model::preset(preset.name);
    fmt::print("{:<24} {:<15} {:>6} {:>6} {:>6} {:>9} {:>8} {:>10}\n", preset.name, preset.family,
               spec.num_layers, spec.hidden_size, spec.num_attention_heads, spec.num_query_groups,
               spec.vocab_size, human_count(static_cast<double>(preset.parameters)));
  }
  for (const auto& [name, reason] : model::unsupported_presets()) {
    fmt::print("{:<24} not supported: {}\n", name, reason);
  }
}

void print_json() {
  auto list = OrderedJson::array();
  for (const model::Preset& preset : model::presets()) {
    const model::ModelSpec spec = model::preset(preset.name);
    list.push_back({{"name", preset.name},
                    {"family", preset.family},
                    {"num_layers", spec.num_layers},
                    {"hidden_size", spec.hidden_size},
                    {"num_attention_heads", spec.num_attention_heads},
                    {"num_query_groups", spec.num_query_groups},
                    {"vocab_size", spec.vocab_size},
                    {"parameters", preset.parameters}});
  }
  fmt::print("{}\n", list.dump(2));
}

// Names and shapes in a Hugging Face folder of this model, as files are written.
void print_tensors(const model::ModelSpec& spec) {
  OrderedJson tensors = OrderedJson::object();
  for (const model::ParameterEntry& entry : model::parameter_table(spec)) {
    for (const model::ForeignPiece& piece : entry.hugging_face) tensors[piece.name] = piece.shape;
    for (const std::string& name : entry.hugging_face_copies) tensors[name] = entry.shape;
  }
  fmt::print("{}\n", tensors.dump());
}

}  // namespace

void add_presets(CLI::App& app) {
  struct Options {
    std::string name;
    bool json = false;
    bool tensors = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("presets", "List the named models, or print one as config.json.");
  command->add_option("NAME", options->name,
                      "Print this model, or that of a folder, as a config.json");
  command->add_flag("--json", options->json, "Print the list as JSON");
  command->add_flag("--tensors", options->tensors,
                    "Print the tensors that its weight files hold, and their shapes, as JSON");
  command->callback([options] {
    if (!options->name.empty()) {
      const model::ModelSpec spec = model::resolve({.source = options->name});
      if (options->tensors) return print_tensors(spec);
      fmt::print("{}\n", model::to_hugging_face(spec).dump(2));
    } else if (options->json) {
      print_json();
    } else {
      print_table();
    }
  });
}

}  // namespace qianli::app
