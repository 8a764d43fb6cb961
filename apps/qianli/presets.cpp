#include "qianli/model/presets.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <set>
#include <string>
#include <variant>

#include "apps/qianli/command.h"
#include "qianli/base/json.h"
#include "qianli/base/progress.h"
#include "qianli/base/strings.h"
#include "qianli/model/family.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/parameter_table.h"
#include "qianli/model/resolve.h"
#include "qianli/model/spec_fields.h"

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
  for (const model::Preset& preset : model::presets()) {
    const std::string_view note = model::preset_note(preset.name);
    if (!note.empty()) fmt::print("{:<24} note: {}\n", preset.name, note);
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
    const std::string_view note = model::preset_note(preset.name);
    if (!note.empty()) list.back()["note"] = note;
  }
  fmt::print("{}\n", list.dump(2));
}

// What a family has beside its sizes, in the words of the `model` section: words and true flags
// with their value, numbers by their name.
class Switches {
 public:
  void add(model::ModelSpec spec) {
    model::ModelSpec plain;
    for (const model::SpecField& field : model::fields_of(spec)) {
      const auto other = model::field_at(plain, field.path);
      const std::string text = model::field_text(field.value);
      if (kSizes.contains(field.path) || (other && model::field_text(*other) == text)) continue;
      const bool has_name = std::holds_alternative<model::WordField>(field.value);
      if (has_name || std::holds_alternative<bool*>(field.value)) {
        found_.insert(fmt::format("`{}={}`", field.path, text));
      } else {
        found_.insert(fmt::format("`{}`", field.path));
      }
    }
  }
  std::string text() const {
    return join(std::vector<std::string>(found_.begin(), found_.end()), ", ");
  }

 private:
  inline static const std::set<std::string> kSizes{
      "family",        "num_layers",       "hidden_size",
      "vocab_size",    "ffn_hidden_size",  "num_attention_heads",
      "head_dim",      "num_query_groups", "max_position_embeddings",
      "init_std",      "norm_eps",         "rope.base",
      "eos_token_ids", "bos_token_id",     "pad_token_id"};
  std::set<std::string> found_;
};

// The table of docs/models.md.
void print_families() {
  fmt::print("| model_type | named sizes | switches |\n|---|---|---|\n");
  for (const std::string& family : model::family_names()) {
    Switches switches;
    switches.add(model::find_family(family).traits);
    std::vector<std::string> sizes;
    for (const model::Preset& preset : model::presets()) {
      if (preset.family != family) continue;
      sizes.push_back(
          fmt::format("{} ({})", preset.name, human_count(static_cast<double>(preset.parameters))));
      switches.add(model::preset(preset.name));
    }
    fmt::print("| {} | {} | {} |\n", family, join(sizes, ", "), switches.text());
  }
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
    bool families = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("presets", "List the named models, or print one as config.json.");
  command->add_option("NAME", options->name,
                      "Print this model, or that of a folder, as a config.json");
  command->add_flag("--json", options->json, "Print the list as JSON");
  command->add_flag("--tensors", options->tensors,
                    "Print the tensors that its weight files hold, and their shapes, as JSON");
  command->add_flag("--families", options->families,
                    "Print families, their named sizes and switches as a table in Markdown");
  command->callback([options] {
    if (options->families) return print_families();
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
