#include "qianli/model/tuned_table.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/config/name_pattern.h"
#include "qianli/model/stacked_experts.h"

namespace qianli::model {
namespace {

using config::TuneConfig;

constexpr std::string_view kAdapterPrefix = "base_model.model.";
constexpr double kLocalStd = 1e-4;  // of B where the rule of LU-LoRA is to move it
// Megatron's older words for the same layers.
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kLegacyWords = {{
    {"query_key_value", "linear_qkv"},
    {"dense", "linear_proj"},
    {"dense_h_to_4h", "linear_fc1"},
    {"dense_4h_to_h", "linear_fc2"},
}};

bool is_plain(std::string_view word) { return word.find_first_of("*?[/") == word.npos; }

bool is_end_of(std::string_view word, std::string_view name) {
  return name == word || (name.ends_with(word) && name[name.size() - word.size() - 1] == '.');
}

// Names as tune.target_modules and its like have them.
class Names {
 public:
  Names(const std::vector<config::NameMatch>& given, std::string key)
      : key_(std::move(key)), used_(given.size(), false) {
    for (const auto& [match] : given) {
      std::string word = match;
      for (const auto& [legacy, own] : kLegacyWords) {
        if (word == legacy) word = own;
      }
      words_.push_back(word);
      patterns_.emplace_back(word);
    }
  }

  bool empty() const { return words_.empty(); }

  // Any of the names that something has.
  bool match(const std::vector<std::string>& names) {
    bool found = false;
    for (size_t i = 0; i < words_.size(); ++i) {
      const bool matches = std::ranges::any_of(names, [&](const std::string& name) {
        return is_plain(words_[i]) ? is_end_of(words_[i], name) : patterns_[i].matches(name);
      });
      used_[i] = used_[i] || matches;
      found = found || matches;
    }
    return found;
  }

  void expect_all_used(const std::string& what) const {
    for (size_t i = 0; i < words_.size(); ++i) {
      if (used_[i]) continue;
      throw ConfigError("tune",
                        fmt::format("expected {} to name {}, got '{}'", key_, what, words_[i]),
                        "names look like q_proj, linear_qkv or decoder.layers.0.mlp.linear_fc1");
    }
  }

 private:
  std::string key_;
  std::vector<std::string> words_;
  std::vector<config::NamePattern> patterns_;
  std::vector<bool> used_;
};

// "0-3,7"
class Layers {
 public:
  explicit Layers(const std::string& text) {
    for (const std::string& part : split(text, ',')) {
      if (text.empty()) break;
      const std::string_view range = trim(part);
      const size_t dash = range.find('-');
      const int64_t first = number(range.substr(0, dash), text);
      ranges_.emplace_back(first,
                           dash == range.npos ? first : number(range.substr(dash + 1), text));
    }
  }
  bool has(int64_t layer) const {
    return ranges_.empty() || std::ranges::any_of(ranges_, [&](const auto& range) {
             return range.first <= layer && layer <= range.second;
           });
  }

 private:
  static int64_t number(std::string_view text, const std::string& all) {
    int64_t value = -1;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || rest != text.data() + text.size() || value < 0) {
      throw ConfigError("tune", fmt::format("expected tune.layers as in \"0-3,7\", got '{}'", all));
    }
    return value;
  }

  std::vector<std::pair<int64_t, int64_t>> ranges_;
};

// The matrices of the decoder's layers that stand for nn.Linear elsewhere.
bool is_linear(const ParameterEntry& entry) {
  if (entry.layer < 0 || !entry.name.ends_with(".weight") || entry.buffer) return false;
  if (entry.shape.size() != (entry.expert ? 3U : 2U)) return false;
  const std::string module = module_of(entry.name);
  const std::string_view last = std::string_view(module).substr(module.rfind('.') + 1);
  const bool linear = last.starts_with("linear_") || last == "in_proj" || last == "out_proj";
  return linear && module.find(".indexer.") == module.npos;
}

// Whether the weight is computed with in blocks where the configuration says so, without adapters
// (inference; the output layer's has 8 bits with either word): the layers' matrices, but one that
// is multiplied with others before tokens are, and that of the output layer.
bool in_blocks(const ModelSpec& spec, const ParameterEntry& entry, const TuneConfig& tune) {
  if (tune.quantization != "q8_0" && tune.quantization != "q4_0") return false;
  const char* output =
      spec.tie_word_embeddings ? "embedding.word_embeddings.weight" : "output_layer.weight";
  if (entry.name == output) return !spec.normalized_output;
  return is_linear(entry) && !entry.name.ends_with(".linear_kv_up_proj.weight");
}

int64_t rows_of(const ParameterEntry& weight) { return weight.shape[weight.expert ? 1 : 0]; }

constexpr std::string_view kFirstExpert = ".experts.0.";

// All modules of which the weight has rows; none where Hugging Face has none of it. Pieces of one
// tensor are one module.
std::vector<ModuleRows> modules_in(const ParameterEntry& weight) {
  std::vector<ModuleRows> modules;
  const int64_t rows = rows_of(weight);
  for (const ForeignPiece& piece : module_pieces(weight)) {
    if (piece.first_row >= rows) break;  // of other experts
    if (!piece.name.ends_with(".weight")) return {};
    const std::string module = module_of(piece.name);
    const int64_t count = std::min(piece.rows, rows - piece.first_row);
    if (!modules.empty() && modules.back().module == module) {
      modules.back().count += count;
    } else {
      modules.push_back({.module = module, .first = piece.first_row, .count = count});
    }
  }
  return modules;
}

// A module of the first expert also as the tensor of all of them, as PEFT's target_parameters has
// it.
std::vector<std::string> names_of_module(const std::string& module) {
  std::vector<std::string> names{module};
  const size_t at = module.find(kFirstExpert);
  if (at != module.npos)
    names.push_back(module.substr(0, at) + ".experts." + module.substr(at + kFirstExpert.size()));
  return names;
}

std::vector<ModuleRows> adapted(const ParameterEntry& weight, Names& targets,
                                const Layers& layers) {
  if (!is_linear(weight) || !layers.has(weight.layer)) return {};
  std::vector<ModuleRows> modules = modules_in(weight);
  const std::string own = module_of(weight.name);
  if (!targets.empty() && !targets.match({own})) {
    std::erase_if(modules, [&](const ModuleRows& rows) {
      return !targets.match(names_of_module(rows.module));
    });
  }
  return modules;
}

// The cut of those rows of a weight.
std::vector<CutSection> cut_of_rows(const ParameterEntry& weight,
                                    const std::vector<ModuleRows>& modules) {
  std::vector<CutSection> cut;
  int64_t first = 0;
  for (const CutSection& section : weight.cut) {
    const bool inside = std::ranges::any_of(modules, [&](const ModuleRows& rows) {
      return rows.first <= first && first < rows.first + rows.count;
    });
    if (inside) cut.push_back(section);
    first += section.size();
  }
  return cut;
}

class AdapterWriter {
 public:
  AdapterWriter(const ParameterEntry& weight, std::vector<ModuleRows> modules,
                const TuneConfig& tune)
      : weight_(weight),
        pieces_(module_pieces(weight)),
        modules_(std::move(modules)),
        rank_(tune.r),
        local_(tune.learns_locally(weight.layer)) {
    for (const ModuleRows& module : modules_) rows_ += module.count;
  }

  ParameterEntry down() const {
    const int64_t columns = weight_.shape.back();
    ParameterEntry a = entry(".lora_A", static_cast<int64_t>(modules_.size()) * rank_, columns);
    // Kaiming's uniform one with a slope of sqrt(5).
    a.init = Init::kUniform;
    a.init_std = 1.0 / std::sqrt(static_cast<double>(columns));
    if (cuts_columns()) {
      a.cut = weight_.cut;
      a.cut_axis = weight_.cut_axis;
    }
    a.stream_axis = weight_.stream_axis == 1 ? 1 : -1;
    each_module([&](const std::string& module, const ModuleRows&) {
      append(a, {.name = module + ".lora_A.weight",
                 .shape = {rank_, columns},
                 .columns = columns,
                 .rows = rank_});
    });
    return a;
  }

  ParameterEntry up() const {
    ParameterEntry b = entry(".lora_B", rows_, rank_);
    b.init = local_ ? Init::kNormal : Init::kZeros;
    b.init_std = local_ ? kLocalStd : 0.0;
    if (!cuts_columns()) {
      b.cut = cut_of_rows(weight_, modules_);
      b.cut_axis = weight_.cut_axis;
    }
    b.stream_axis = weight_.stream_axis == 0 ? 0 : -1;
    each_module(
        [&](const std::string& module, const ModuleRows& rows) { up_pieces(b, module, rows); });
    return b;
  }

  // The lengths of the rows of W where the model's weights are there (tune/start.h).
  ParameterEntry magnitude() const {
    ParameterEntry m = up();
    m.name = module_of(weight_.name) + ".lora_magnitude";
    m.shape = {rows_};
    m.init = Init::kOnes;
    m.weight_decay = false;
    for (ForeignPiece& piece : m.hugging_face) {
      piece.name = module_of(model::module_of(piece.name)) + ".lora_magnitude_vector";
      piece.shape = {piece.shape[0]};
      piece.columns = 1;
    }
    return m;
  }

 private:
  bool cuts_columns() const {
    return !weight_.cut.empty() && weight_.cut_axis == (weight_.expert ? 2 : 1);
  }

  ParameterEntry entry(const char* suffix, int64_t rows, int64_t columns) const {
    ParameterEntry made;
    made.name = module_of(weight_.name) + suffix;
    made.shape = {rows, columns};
    if (weight_.expert) made.shape.insert(made.shape.begin(), weight_.shape[0]);
    made.within_block = weight_.within_block;
    made.expert = weight_.expert;
    made.layer = weight_.layer;
    made.weight_decay = true;
    return made;
  }

  // body(its name in a PEFT folder, its rows), for each expert one after the other.
  template <class Body>
  void each_module(const Body& body) const {
    const int64_t experts = weight_.expert ? weight_.shape[0] : 1;
    for (int64_t e = 0; e < experts; ++e) {
      for (const ModuleRows& rows : modules_) {
        body(std::string(kAdapterPrefix) +
                 (weight_.expert ? of_expert(rows.module, e) : rows.module),
             rows);
      }
    }
  }

  static void append(ParameterEntry& entry, ForeignPiece piece) {
    auto& pieces = entry.hugging_face;
    if (!pieces.empty()) piece.first_row = pieces.back().first_row + pieces.back().rows;
    pieces.push_back(std::move(piece));
  }

  // Rows that are woven into others in the module's weight are so in its B.
  void up_pieces(ParameterEntry& b, const std::string& module, const ModuleRows& rows) const {
    for (const ForeignPiece& piece : pieces_) {
      if (piece.first_row < rows.first || piece.first_row >= rows.first + rows.count) continue;
      const int64_t all = piece.transposed ? piece.columns : piece.slice_rows();
      append(b, {.name = module + ".lora_B.weight",
                 .shape = {all, rank_},
                 .columns = rank_,
                 .rows = std::min(piece.rows, rows.count),
                 .foreign_row = piece.foreign_row,
                 .block = piece.block,
                 .stride = piece.stride});
    }
  }

  const ParameterEntry& weight_;
  std::vector<ForeignPiece> pieces_;
  std::vector<ModuleRows> modules_;
  int64_t rank_, rows_ = 0;
  bool local_;
};

// What the rule of LU-LoRA needs of the parameters, which it must reach before anything else does.
void check_local(const ModelSpec& spec, const TuneConfig& tune,
                 const std::vector<TunedEntry>& table) {
  if (!tune.lora() || !tune.lu_lora_final_layer_index) return;
  const int64_t final_layer = *tune.lu_lora_final_layer_index;
  if (final_layer + 1 >= spec.num_layers) {
    throw ConfigError("tune",
                      fmt::format("expected tune.lu_lora_final_layer_index below {}, got {}",
                                  spec.num_layers - 1, final_layer),
                      "the last layer learns by gradients");
  }
  for (const TunedEntry& tuned : table) {
    const ParameterEntry& entry = tuned.entry;
    const bool below =
        entry.layer < 0 ? entry.name.starts_with("embedding.") : tune.learns_locally(entry.layer);
    if (!below || tuned.frozen) continue;
    if (!is_adapter(entry.name)) {
      throw ConfigError(
          "tune",
          fmt::format(
              "expected tune.modules_to_save above layer {} (tune.lu_lora_final_layer_index), "
              "got {}",
              final_layer, entry.name),
          "nothing goes back through these layers");
    }
    if (entry.expert) {
      throw ConfigError("tune",
                        fmt::format("expected adapters of dense layers up to layer {} "
                                    "(tune.lu_lora_final_layer_index), got {}",
                                    final_layer, entry.name),
                        "tune.target_modules chooses others");
    }
  }
}

// Its own name, and what it is part of elsewhere.
std::vector<std::string> names_of(const ParameterEntry& entry) {
  std::vector<std::string> names{entry.name, module_of(entry.name)};
  for (const ForeignPiece& piece : entry.hugging_face) names.push_back(module_of(piece.name));
  return names;
}

}  // namespace

double tuned_training_flops(const ModelSpec& spec, const TuneConfig& tune, int64_t sequences,
                            int64_t sequence_length) {
  double difference = 0;  // of a token
  for (const auto& [entry, frozen, quantized] : tuned_table(spec, tune)) {
    const bool tied = spec.tie_word_embeddings && entry.name == "embedding.word_embeddings.weight";
    if (entry.shape.size() < 2 || (entry.name.starts_with("embedding.") && !tied)) continue;
    const double used = entry.expert ? static_cast<double>(spec.moe->top_k) /
                                           static_cast<double>(spec.moe->num_experts)
                                     : 1.0;
    const double elements = used * static_cast<double>(entry.elements());
    if (frozen) difference -= 2 * elements;
    if (is_adapter(entry.name)) difference += 6 * elements;
  }
  return training_flops(spec, sequences, sequence_length) +
         difference * static_cast<double>(sequences * sequence_length);
}

bool is_adapter(const std::string& parameter) {
  return parameter.ends_with(".lora_A") || parameter.ends_with(".lora_B") ||
         parameter.ends_with(".lora_magnitude");
}

std::string module_of(const std::string& parameter) {
  return parameter.substr(0, parameter.rfind('.'));
}

std::vector<ModuleRows> adapted_rows(const ParameterEntry& weight, const TuneConfig& tune) {
  if (!tune.lora()) return {};
  Names targets(tune.target_modules, "tune.target_modules");
  return adapted(weight, targets, Layers(tune.layers));
}

std::vector<TunedEntry> tuned_table(const ModelSpec& spec, const TuneConfig& tune) {
  std::vector<TunedEntry> table;
  Names targets(tune.target_modules, "tune.target_modules");
  Names whole(tune.modules_to_save, "tune.modules_to_save"), frozen(tune.freeze, "tune.freeze");
  const Layers layers(tune.layers);
  for (ParameterEntry& entry : parameter_table(spec)) {
    if (!tune.lora()) {
      const bool low =
          entry.layer < 0 ? entry.name.starts_with("embedding.") : entry.layer < tune.freeze_layers;
      const bool named = frozen.match(names_of(entry)), blocks = in_blocks(spec, entry, tune);
      table.push_back({.entry = std::move(entry),
                       .frozen = named || blocks || (low && tune.freeze_layers > 0),
                       .quantized = blocks});
      continue;
    }
    const bool is_whole = whole.match(names_of(entry));
    std::vector<ModuleRows> modules;
    if (!is_whole) modules = adapted(entry, targets, layers);
    const bool in_few_bits = tune.quantization != "none" && !is_whole && is_linear(entry);
    table.push_back({std::move(entry), !is_whole, in_few_bits});
    if (modules.empty()) continue;
    const ParameterEntry weight = table.back().entry;
    const AdapterWriter writer(weight, std::move(modules), tune);
    table.push_back({.entry = writer.down()});
    table.push_back({.entry = writer.up()});
    if (tune.use_dora && !weight.expert) table.push_back({.entry = writer.magnitude()});
  }
  targets.expect_all_used("a linear layer of the decoder");
  whole.expect_all_used("a module");
  frozen.expect_all_used("a module");
  check_local(spec, tune, table);
  return table;
}

}  // namespace qianli::model
